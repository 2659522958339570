//! Printers: who they are, what they run, whether they are online.
//!
//! Invariants:
//! - A row is what the printer's last subscribe message said. Nothing else changes its version: what it runs is what
//!   it says when it connects.
//! - Online is a join: the row names the replica that holds the socket, and that replica's lease has not run out. So a
//!   process that dies takes its printers offline without a write.
//! - Who is let in is decided in the transaction that writes the subscribe message, and by what the printer shows there.
//! - An owner's row is what an operator said about a user. Users need none: whoever has no row has the defaults.
//! - Of two sockets of one printer the one with the higher number is the newer, and only that one can mark it offline.

mod db;
pub mod http;
mod keys;
mod owners;
mod presence;
mod types;
mod view;

pub use db::{by_name, connections, disconnected, facts, hold, installed, subscribe};
pub use keys::{Credential, admit};
pub use owners::{Owner, owners};
pub use presence::{farewell, heartbeat, moment, noted, unaware};
pub use types::{Arrival, Cohort, Downloads, Facts, Installed, Named, Subscribed, Subscription, bucket};
pub use view::Printer;

/// What can go wrong with printers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such printer.
    #[error("no printer `{0}`")]
    NotFound(String),
    /// No such key.
    #[error("no key `{0}`")]
    NoKey(uuid::Uuid),
    /// What is known of an owner is at this revision, not at the demanded one.
    #[error("it is at revision {0} now")]
    Stale(i64),
    /// PostgreSQL.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}
