//! Updates: attempts to bring one printer to one release, one row each.
//!
//! Invariants:
//! - A printer has at most one open update; the database's unique index says so too.
//! - What a printer says moves its update forward; **the proof is its next subscribe** ([`settle`]). A `completed`
//!   update stays open until then.
//! - Every write names the state it expects. A message about a closed update, repeated or out of order, changes
//!   nothing.
//!
//! This room knows rollouts by their id only; which printer gets what is decided above it.

mod db;
mod download;
mod expire;
mod forgive;
pub mod http;
mod intake;
mod list;
mod offer;
mod report;
mod settle;
mod types;
mod view;

pub use db::{TARGET_SORTS, has_open, one, open_forced, remembered, targets};
pub use download::{download_ended, download_started, no_space};
pub use expire::expire;
pub use forgive::{Forced, force, forgive};
pub use intake::{Arrived, End, Intake, Noted, Welcome};
pub use offer::{Claim, claim, hold_releases, recall, reoffer, withdraw};
pub use report::{Outcome, Progress, Report, report, socket_lost};
pub use settle::{Back, Settled, settle};
pub use types::{Open, Past, Reason, Remembered, Settlement, Status, ends};
pub use view::UpdateView;
