//! Whom a rollout is for: a predicate over printers.

use crate::ids::{PrinterId, UserId};
use crate::printers::Facts;
use crate::version::Version;
use crate::words::Channel;

/// (everyone, or a user of a list, or a printer of a list; everyone when none of these is given) and, where given, a
/// channel of a list, a least and a greatest version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Everyone, whatever the lists say.
    pub all: bool,
    /// Printers of these users.
    pub user_ids: Option<Vec<UserId>>,
    /// These printers.
    pub printer_ids: Option<Vec<PrinterId>>,
    /// Only printers that follow one of these channels.
    pub channels: Option<Vec<Channel>>,
    /// Only printers that run this version or a higher one.
    pub min_version: Option<Version>,
    /// Only printers that run this version or a lower one.
    pub max_version: Option<Version>,
}

impl Target {
    /// Whether the printer is in the target now. `rollouts/tally.rs` says the same in SQL.
    pub fn has(&self, printer: &Facts) -> bool {
        let named = self.all
            || (self.user_ids.is_none() && self.printer_ids.is_none())
            || self.user_ids.as_ref().is_some_and(|users| users.contains(&printer.user_id))
            || self.printer_ids.as_ref().is_some_and(|printers| printers.contains(&printer.printer_id));
        named
            && self.channels.as_ref().is_none_or(|channels| channels.contains(&printer.channel))
            && self.min_version.as_ref().is_none_or(|least| printer.version >= *least)
            && self.max_version.as_ref().is_none_or(|most| printer.version <= *most)
    }

    /// Whether it names anything at all.
    pub fn names_something(&self) -> bool {
        *self != Self::default()
    }
}
