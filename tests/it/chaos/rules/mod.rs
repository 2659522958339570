//! What must be true of every history.

mod rows;
mod soon;
mod wire;

pub use rows::*;
pub use soon::*;
pub use wire::*;

use uuid::Uuid;

use super::history::History;
use super::story;

pub type Checked = Result<(), Broken>;

/// A rule that does not hold.
#[derive(Debug)]
pub struct Broken {
    pub why: String,
    pub about: About,
}

/// Whose story tells more.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// By its row.
    Printer(Uuid),
    Rollout(Uuid),
}

macro_rules! ensure {
    ($holds:expr, $about:expr, $($why:tt)+) => {
        if !$holds {
            return Err(crate::chaos::rules::Broken { why: format!($($why)+), about: $about });
        }
    };
}
pub(crate) use ensure;

/// A rule and what it says.
type Rule = (&'static str, fn(&History) -> Checked);

/// Those of every scenario.
pub const RULES: &[Rule] = &[
    ("a printer has one open offer at most", one_open_offer),
    ("no more offers are open than max_in_flight", in_flight),
    ("the census is right at every commit", census),
    ("what REST tells adds up", adds_up),
    ("only a rollout that makes offers claims", claims_while_it_offers),
    ("an attempt never goes back", ranks),
    ("every offer was claimed", claimed),
    ("nothing leaves after a cancel or a pause was answered", nothing_after_the_answer),
    ("an outcome has its cause", causes),
    ("what was acknowledged is written down", nothing_lost),
    ("who is eligible is offered soon", offered_soon),
];

/// Fails with a story when a rule is broken.
pub fn check(history: &History) {
    for (rule, holds) in RULES {
        if let Err(Broken { why, about }) = holds(history) {
            panic!("broken: {rule}\n{why}\n{}", story::of(history, &about));
        }
    }
}

/// Fails with a story unless every printer runs the version in the end, and each was offered it once.
pub fn check_end(history: &History, version: &str, printers: usize) {
    if let Err(Broken { why, about }) = arrived(history, version, printers) {
        panic!("{why}\n{}", story::of(history, &about));
    }
}
