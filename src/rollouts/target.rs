//! Whom a rollout is for: a predicate over printers.

use crate::auth::Scope;
use crate::ids::{PrinterId, RolloutId, UserId};
use crate::printers::{Cohort, Facts};
use crate::version::Version;
use crate::words::{Channel, Platform};

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
    /// Only printers of one of these platforms.
    pub platforms: Option<Vec<Platform>>,
    /// Only printers of these users, whoever the lists name: the scope of the key that made the rollout.
    pub owners: Option<Vec<UserId>>,
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
            && self.owners.is_none()
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
            && self.owners.as_ref().is_none_or(|owners| owners.contains(&printer.user_id))
            && self.installed_by.is_none_or(|rollout| installed_by == Some(rollout))
            && self.previous_version.as_ref().is_none_or(|version| printer.previous.as_ref() == Some(version))
    }

    /// Whether printers of this kind are in the target, if it names them.
    pub fn admits(&self, cohort: &Cohort) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(&cohort.channel))
            && self.platforms.as_ref().is_none_or(|platforms| platforms.contains(&cohort.platform))
            && self.min_version.as_ref().is_none_or(|least| cohort.version >= *least)
            && self.max_version.as_ref().is_none_or(|most| cohort.version <= *most)
    }

    /// The same target within a scope, or every entry that lies outside, by field. Printers outside of it are not named
    /// as such: that would tell that they are there.
    pub fn within(mut self, scope: &Scope) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        if let Some(users) = scope.user_ids() {
            if self.all || (self.user_ids.is_none() && self.printer_ids.is_none()) {
                (self.all, self.user_ids, self.printer_ids) = (false, Some(users.clone()), None);
            }
            outside("user_ids", self.user_ids.as_deref(), &users, &mut errors);
            self.owners = Some(users);
        }
        if let Some(channels) = scope.channels() {
            outside("channels", self.channels.as_deref(), &channels, &mut errors);
            self.channels = self.channels.or(Some(channels));
        }
        if let Some(platforms) = scope.platforms() {
            outside("platforms", self.platforms.as_deref(), &platforms, &mut errors);
            self.platforms = self.platforms.or(Some(platforms));
        }
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }

    /// What it can reach at most.
    pub fn reach(&self) -> Scope {
        fn texts<T: ToString>(list: &[T]) -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        }
        let users = self.user_ids.as_ref().filter(|_| !self.all && self.printer_ids.is_none());
        Scope {
            user_ids: self.owners.as_ref().or(users).map(|list| texts(list)),
            channels: self.channels.as_ref().map(|list| texts(list)),
            platforms: self.platforms.as_ref().map(|list| texts(list)),
        }
    }

    /// Whether it names anything at all.
    pub fn names_something(&self) -> bool {
        *self != Self::default()
    }
}

fn outside<T: PartialEq + std::fmt::Display>(
    field: &str,
    named: Option<&[T]>,
    within: &[T],
    errors: &mut Vec<(String, String)>,
) {
    for (index, one) in named.unwrap_or_default().iter().enumerate() {
        if !within.contains(one) {
            let detail = format!("is `{one}`, which the key is not for; GET /api/me tells what it is for");
            errors.push((format!("target.{field}[{index}]"), detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            user_ids: Some(vec!["a".into(), "b".into()]),
            channels: Some(vec!["beta".into()]),
            platforms: None,
        }
    }

    #[test]
    fn a_target_within_a_scope_reaches_no_further() {
        let printers = Some(vec!["theirs".parse().unwrap()]);
        let named = Target { printer_ids: printers.clone(), ..Target::default() };
        let everyone = Target { all: true, printer_ids: printers, ..Target::default() };
        for target in [Target::default(), named, everyone] {
            let within = target.within(&scope()).unwrap();
            assert!(!within.is_open() && !within.all, "{within:?}");
            assert_eq!(within.reach(), scope());
        }
    }

    #[test]
    fn what_lies_outside_is_refused_by_field() {
        let target = Target {
            user_ids: Some(vec!["a".parse().unwrap(), "c".parse().unwrap()]),
            channels: Some(vec![Channel::Stable]),
            ..Target::default()
        };
        let errors = target.within(&scope()).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["target.user_ids[1]", "target.channels[0]"]);
    }

    #[test]
    fn a_target_without_a_scope_reaches_what_it_names() {
        let users = Target { user_ids: Some(vec!["a".parse().unwrap()]), ..Target::default() };
        assert_eq!(users.reach().user_ids, Some(vec!["a".into()]));
        let more = Target { printer_ids: Some(vec!["p".parse().unwrap()]), ..users.clone() };
        assert_eq!(
            (more.reach(), Target { all: true, ..users }.reach()),
            (Scope::default(), Scope::default())
        );
    }
}
