//! Statistics for dashboards: what is out there, what is going on, how well it goes.
//!
//! Invariants:
//! - Nothing here counts attempts one by one. The database notes each outcome in `outcomes_log` in the transaction that
//!   settles it, takes it back there when a late proof corrects it, and a job sums the log up ([`fold`]). Every
//!   outcome is in one of the two tables at every commit.
//! - Durations are kept as classes that grow by a tenth, so a percentile is off by at most 5 %.

mod db;
mod figures;
mod fold;
pub mod http;
mod tally;
mod view;

pub use figures::{Figures, figures};
pub use fold::fold;
