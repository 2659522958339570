//! Rollouts: who is to get which version, how far that may go now, and the engine that makes it happen.
//!
//! Invariants:
//! - A target is a predicate, never a list of rows: creating a rollout costs the same for ten printers and ten
//!   million, and printers that appear later belong to it.
//! - Which printer gets what is decided by one pure function ([`decide`]); the database repeats its conditions when an
//!   offer is claimed, behind the rollout's row lock.
//! - Every narrowing (pause, cancel, lower percentage, delete) raises the rollout's epoch. A claim or a frame of an
//!   older epoch is void, so nothing leaves after the answer.
//! - Counters are sums over a census that the database keeps, judged by the same function: completed + failed + declined
//!   + pending = total, at every commit.
//! - Limits hold because a claim counts what is open only once it holds the rollout's row.

mod census;
mod control;
mod create;
mod db;
mod decide;
mod dry_run;
mod engine;
mod explain;
mod force;
mod guard;
pub mod http;
mod judge;
mod known;
mod limits;
pub mod plan;
mod rollback;
#[cfg(test)]
mod samples;
mod send;
mod steward;
mod tally;
mod target;
mod types;
mod weigh;
mod wire;

pub use census::{fleet, fold};
pub use control::{Change, advance, approve, change, delete, hold, retry_failed, undo};
pub use create::{Wanted, create};
pub use db::{catalog, current, find};
pub use decide::{Catalog, Decision, Limit, Offering, Pick, Plan, ReleaseBrief, Why, decide};
pub use dry_run::{DryRun, dry_run};
pub use engine::{Engine, Parts, Work};
pub use explain::{Explanation, PrinterExplanation, explain, explain_rollout};
pub use force::{Force, force};
pub use judge::StatusReason;
pub use known::Known;
pub use steward::{Depth, Steward, look};
pub use tally::{Counters, count, snapshot};
pub use target::Target;
pub use types::{Rollout, RolloutType, Status};

/// What can go wrong with rollouts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are missing or wrong: their names and what is wrong.
    #[error("the request has errors")]
    Invalid(Vec<(String, String)>),
    /// No release of that version.
    #[error("{0}")]
    FirmwareNotFound(String),
    /// No such rollout.
    #[error("no rollout {0}")]
    NotFound(String),
    /// The state forbids it.
    #[error("{0}")]
    Conflict(String),
    /// `If-Match` does not hold.
    #[error("the rollout is at revision {0} by now")]
    Stale(i64),
    /// PostgreSQL.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}
