//! What a printer is and how it behaves: everything a test or an operator may set.

use std::{net::IpAddr, sync::Arc, time::Duration};

use secrecy::SecretString;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    chance::{Behaviour, Fate},
    wiretap::Wiretap,
};

/// Namespace of made-up printer ids, so that two runs mean the same printers.
const PRINTERS: Uuid = Uuid::from_u128(0x6f2c_1f0e_9a51_4d0b_8d0c_3c5b_7f2e_9a14);

/// The id of a printer that no one else has: the same user and name mean the same printer in every run.
pub(super) fn made_up(user: &str, name: &str) -> String {
    Uuid::new_v5(&PRINTERS, format!("{user}/{name}").as_bytes()).to_string()
}

/// Which printer is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// As the protocol is written: keeps its socket while it downloads, reports, says `firmware_complete`.
    Polite,
    /// As an unchanged ESP8266 sketch does: the socket dies when the download starts, no report is ever sent, and
    /// the reconnect with the new version is the only proof.
    Device,
}

/// Who a printer says it is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Sent as `printer_id`; without one, the server has name and user only.
    pub printer_id: Option<String>,
    /// Part of the path and of the subscribe message.
    pub user_id: Arc<str>,
    /// Sent as `printer_name`.
    pub name: String,
    /// Sent as `platform` when given (absent in the documented message).
    pub platform: Option<Arc<str>>,
    /// Sent as `update_channel`.
    pub channel: Arc<str>,
    /// Sent as `api_key` when given.
    pub api_key: Option<SecretString>,
    /// Further fields of the subscribe message, such as `max_url_length`; they win over the ones above.
    pub extra: Map<String, Value>,
}

impl Identity {
    /// What events and handles call this printer.
    #[must_use]
    pub fn label(&self) -> Arc<str> {
        match &self.printer_id {
            Some(id) => Arc::from(id.as_str()),
            None => Arc::from(format!("{}/{}", self.user_id, self.name)),
        }
    }
}

/// The times of a printer's life.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between the loss of a connection, or a failed attempt, and the next one. For ever, without back-off or jitter.
    pub reconnect: Duration,
    /// From a finished download until the first attempt to connect.
    pub reboot: Duration,
    /// Between an offer and the start of its download.
    pub before_download: Duration,
    /// A download without a byte for this long has failed.
    pub silence: Duration,
    /// For TCP, TLS and the WebSocket's handshake together, and for one write.
    pub connect: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            reconnect: Duration::from_millis(500),
            reboot: Duration::from_secs(3),
            before_download: Duration::ZERO,
            silence: Duration::from_secs(8),
            connect: Duration::from_secs(5),
        }
    }
}

/// What fits into a printer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A longer frame ends the connection.
    pub frame: usize,
    /// Bytes of JSON that the sketch's document holds: a longer `firmware_update` is not understood.
    pub json: Option<usize>,
    /// Bytes of flash for a new image; sent as `x-ESP8266-free-space`.
    pub free_space: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame: 15 * 1024, json: None, free_space: 8 * 1024 * 1024 }
    }
}

/// One printer.
#[derive(Debug, Clone)]
pub struct PrinterOptions {
    /// `ws://` or `wss://` (`http` and `https` mean the same), host, and a path prefix if there is one.
    pub server: Arc<str>,
    /// Who it says it is.
    pub identity: Identity,
    /// What it runs at first.
    pub firmware_version: Arc<str>,
    /// Sent as `auto_update`; when false the printer declines what it is offered.
    pub auto_update: bool,
    /// Installs what it is offered even though `auto_update` is off.
    pub accepts_forced: bool,
    /// By the book or as built.
    pub mode: Mode,
    /// How its attempts end.
    pub behaviour: Behaviour,
    /// Feeds the odds.
    pub seed: u64,
    /// In device mode: says `firmware_failed` after the reconnect, as a changed sketch would.
    pub reports_failure: bool,
    /// Repeats reports and sends them in the wrong order.
    pub chaos: bool,
    /// Reads its downloads no faster than this.
    pub slow_bytes_per_second: Option<u32>,
    /// In polite mode: percents at which `firmware_progress` is sent.
    pub progress: Arc<[u8]>,
    /// Its times.
    pub pace: Pace,
    /// Its bounds.
    pub limits: Limits,
    /// Local address of its connections. In a large fleet one address runs out of ports.
    pub source_ip: Option<IpAddr>,
    /// Told whatever passes its sockets.
    pub wiretap: Option<Wiretap>,
}

impl PrinterOptions {
    /// Printer number `index` of a fleet on `server`: user `demo`, channel `stable`, version 1.0.0, polite, lucky.
    #[must_use]
    pub fn new(server: &str, index: u64) -> Self {
        let name = format!("Printer {index:05}");
        Self {
            server: Arc::from(server),
            identity: Identity {
                printer_id: Some(made_up("demo", &name)),
                user_id: Arc::from("demo"),
                // Each has its own: a key that several show speaks for several.
                api_key: Some(format!("key of {name}").into()),
                name,
                platform: None,
                channel: Arc::from("stable"),
                extra: Map::new(),
            },
            firmware_version: Arc::from("1.0.0"),
            auto_update: true,
            accepts_forced: false,
            mode: Mode::Polite,
            behaviour: Behaviour::Always(Fate::Install),
            seed: index,
            reports_failure: false,
            chaos: false,
            slow_bytes_per_second: None,
            progress: Arc::from([0, 25, 50, 75, 100]),
            pace: Pace::default(),
            limits: Limits::default(),
            source_ip: None,
            wiretap: None,
        }
    }
}

/// A fleet.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Its printers.
    pub printers: Vec<PrinterOptions>,
    /// First connections a second; later ones come as they come, which is what an outage is like.
    pub connect_rate: Option<f64>,
    /// Handed to the printers in turn, where they name no address of their own.
    pub source_ips: Vec<IpAddr>,
    /// Events kept for a slow reader; beyond that it is told how many it missed.
    pub event_capacity: usize,
}

impl FleetOptions {
    /// `count` printers, each made by `make` from its index.
    #[must_use]
    pub fn of(count: u64, make: impl FnMut(u64) -> PrinterOptions) -> Self {
        Self::from((0..count).map(make).collect::<Vec<_>>())
    }
}

impl From<Vec<PrinterOptions>> for FleetOptions {
    fn from(printers: Vec<PrinterOptions>) -> Self {
        Self { printers, connect_rate: None, source_ips: Vec::new(), event_capacity: 4096 }
    }
}
