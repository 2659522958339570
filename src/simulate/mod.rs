//! Printers that are none: clients that speak the documented protocol to any server, one or thousands of them.
//!
//! They know nothing of this crate's server. What they send and expect is written from the protocol's document and
//! from the behaviour of the ESP8266's libraries, so that a misunderstanding inside the server cannot hide in a
//! shared definition. They serve the tests, the demonstration, load measurements and operators who want to see a
//! rollout before they let it loose on real devices.
//!
//! Two kinds ([`Mode`]): a *polite* printer follows the document (it keeps its socket while it downloads, reports
//! progress, says `firmware_complete`); a *device* does what unchanged firmware does (its socket dies with the
//! download, which is HTTP/1.0, and it is next heard of when it subscribes with the new version). Both reconnect for
//! ever at a fixed interval and ignore why they were cut off.
//!
//! * [`Fleet`] runs printers by themselves, counts what happens to them ([`Summary`]) and tells it ([`Event`]).
//! * [`Printer`] is one connection under manual control.
//! * [`image`] makes firmware that passes the checks on an upload.
//! * [`run`] is the command line's way in.
//!
//! What befalls a printer is a pure function of its seed ([`Behaviour`]), so a run can be repeated.
//!
//! One thing that real printers do is not played: they drop messages that come in fragments, these put them together.

mod chance;
mod download;
mod fleet;
pub mod image;
mod install;
mod intake;
mod life;
mod net;
mod options;
mod printer;
mod ramp;
mod run;
mod show;
mod talk;
mod tally;
mod wire;
mod wiretap;

pub use chance::{Behaviour, Fate, Noise, Odds};
pub use fleet::{Fleet, PrinterHandle};
pub use intake::{DownloadError, Downloaded};
pub use life::{Phase, PrinterState};
pub use options::{FleetOptions, Identity, Limits, Mode, Pace, PrinterOptions};
pub use printer::Printer;
pub use run::{Args, run};
pub use tally::{Event, EventKind, Summary};
pub use tokio_tungstenite::tungstenite::Message;
pub use wire::{Offer, offer_of};
pub use wiretap::{Overheard, Passed, Wiretap};

/// Why a simulation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's URL, or an offer's, makes no sense.
    #[error("the server {0:?} cannot be used: {1}")]
    Server(String, &'static str),
    /// Shares of fates that are no shares.
    #[error("the rates must each be between 0 and 1 and together at most 1; they add up to {sum}")]
    Odds {
        /// What they add up to.
        sum: f64,
    },
    /// No connection, or it broke.
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    /// The trust anchors cannot be loaded, or TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(tokio_rustls::rustls::Error),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(reqwest::Error),
    /// The server answered the handshake with this HTTP status.
    #[error("the server refused the WebSocket with HTTP status {0}")]
    Refused(u16),
    /// The server's answer to the handshake is none that a printer understands.
    #[error("the WebSocket's handshake failed: {0}")]
    Handshake(&'static str),
    /// A breach of the WebSocket protocol, a frame that is too long, or a lost connection.
    #[error(transparent)]
    Socket(Box<tokio_tungstenite::tungstenite::Error>),
    /// Something took too long.
    #[error("timed out while {0}")]
    Timeout(&'static str),
    /// The server closed the connection.
    #[error("the server closed the connection (code {code:?}, {reason:?})")]
    Closed {
        /// Its close code.
        code: Option<u16>,
        /// Its reason.
        reason: String,
    },
    /// The printer is bricked, or its fleet is stopped.
    #[error("the printer is gone")]
    Gone,
    /// The fleet did not become as wanted.
    #[error("the fleet did not get there in time: {0:?}")]
    NotInTime(Box<Summary>),
    /// `--until-version` was not reached.
    #[error("{running} of {printers} printers run {version}")]
    Unreached {
        /// The version that all should run.
        version: String,
        /// How many do.
        running: usize,
        /// How many there are.
        printers: usize,
    },
}

impl From<tokio_tungstenite::tungstenite::Error> for Error {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        match error {
            tokio_tungstenite::tungstenite::Error::Io(error) => Self::Io(error),
            other => Self::Socket(Box::new(other)),
        }
    }
}
