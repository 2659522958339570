//! Whom a rollout is for: a predicate over printers.

use crate::ids::{PrinterId, RolloutId, UserId};
use crate::printers::{Cohort, Facts};
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
    /// Only printers whose version was installed by this rollout.
    pub installed_by: Option<RolloutId>,
    /// Only printers that ran this version before their last update.
    pub previous_version: Option<Version>,
}

impl Target {
    /// Whether the printer is in the target now.
    pub fn has(&self, printer: &Facts) -> bool {
        self.names(printer) && self.admits(&printer.cohort)
    }

    /// Whether everything that is in the target is so by channel and version alone, not by who it is.
    pub fn is_open(&self) -> bool {
        (self.all || (self.user_ids.is_none() && self.printer_ids.is_none()))
            && self.installed_by.is_none()
            && self.previous_version.is_none()
    }

    /// Whether the lists name the printer. The function `rollout_names` of the database says the same.
    fn names(&self, printer: &Facts) -> bool {
        let listed = self.all
            || (self.user_ids.is_none() && self.printer_ids.is_none())
            || self.user_ids.as_ref().is_some_and(|users| users.contains(&printer.user_id))
            || self.printer_ids.as_ref().is_some_and(|printers| printers.contains(&printer.printer_id));
        let installed_by = printer.cohort.installed.and_then(|installed| installed.rollout);
        listed
            && self.installed_by.is_none_or(|rollout| installed_by == Some(rollout))
            && self.previous_version.as_ref().is_none_or(|version| printer.previous.as_ref() == Some(version))
    }

    /// Whether printers of this kind are in the target, if it names them.
    pub fn admits(&self, cohort: &Cohort) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(&cohort.channel))
            && self.min_version.as_ref().is_none_or(|least| cohort.version >= *least)
            && self.max_version.as_ref().is_none_or(|most| cohort.version <= *most)
    }

    /// Whether it names anything at all.
    pub fn names_something(&self) -> bool {
        *self != Self::default()
    }
}
