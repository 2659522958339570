//! Live events: what changed, on whichever replica, for those who watch.
//!
//! Invariants:
//! - Events are written by the database itself, in the transaction of the change (`migrations/`), so that no way of
//!   changing a row can forget one. Progress is no event.
//! - A [`Place`] orders them: transaction, then number. Only what lies below every running transaction is read, so
//!   that one which commits late is waited for and never skipped.
//! - The table is the truth. A [`Feed`] reads it once for all watchers of this replica; whoever does not keep up, comes
//!   back or joins in between reads on from the table, at their own pace, and misses nothing while it is kept.
//!   What is no longer kept is owned up to, with a `reset`.

mod db;
mod feed;
pub mod http;
mod types;
mod watch;

pub use db::forget;
pub use feed::Feed;
pub use types::{Kind, Place};
