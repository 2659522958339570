//! Why a printer gets nothing of a rollout, now or ever: a word for machines and a sentence for people.

use std::fmt;

use crate::clock::Time;

/// The reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The predicate does not hold.
    NotInTarget,
    /// No release of the version for its platform (on the rollout's channel).
    NoReleaseForPlatform,
    /// It runs this very version.
    RunsIt,
    /// It runs a newer one.
    NotOlder,
    /// It does not take updates by itself, and this one is not mandatory.
    AutoUpdateOff,
    /// It runs something too old for this release, and no release in between can be taken.
    BelowMinUpgradeVersion,
    /// It took it.
    Completed,
    /// It said no.
    Declined,
    /// It was tried as often as the rollout allows.
    AttemptsUsedUp(u32),
    /// The rollout was cancelled.
    Cancelled,
    /// Its bucket is not in yet.
    OutsidePercentage {
        /// The printer's.
        bucket: u8,
        /// The rollout's.
        percentage: u8,
    },
    /// The last try was too recent.
    BackingOff(Time),
    /// The rollout has not begun.
    NotStarted(Option<Time>),
    /// A second person has not agreed yet.
    AwaitsApproval,
    /// The rollout is held.
    Paused(Option<String>),
    /// As many updates are open, or were offered within a minute, as the rollout allows.
    LimitReached(Limit),
    /// No maintenance window is open; in words when one will be.
    WindowClosed(String),
    /// It has an open update already.
    Busy(String),
}

/// What bounds the offers of a rollout at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max_in_flight`.
    InFlight,
    /// `rate_per_minute`.
    Rate,
    /// The step lets printers through a few at a time until some have proved themselves.
    FirstFew,
}

impl Why {
    /// The words of what only waits for its moment; a rollout of a lower version does not overtake it.
    pub(in crate::rollouts) const MOMENTARY: [&str; 5] =
        ["backing_off", "in_flight_limit", "rate_limit", "first_few", "window_closed"];

    /// Whether this only waits for its moment.
    pub(super) fn is_of_the_moment(&self) -> bool {
        Self::MOMENTARY.contains(&self.code())
    }

    /// The word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotInTarget => "not_in_target",
            Self::NoReleaseForPlatform => "no_release_for_platform",
            Self::RunsIt => "runs_it",
            Self::NotOlder => "not_older",
            Self::AutoUpdateOff => "auto_update_off",
            Self::BelowMinUpgradeVersion => "below_min_upgrade_version",
            Self::Completed => "completed",
            Self::Declined => "declined",
            Self::AttemptsUsedUp(_) => "attempts_used_up",
            Self::Cancelled => "cancelled",
            Self::OutsidePercentage { .. } => "outside_percentage",
            Self::BackingOff(_) => "backing_off",
            Self::NotStarted(_) => "not_started",
            Self::AwaitsApproval => "awaits_approval",
            Self::Paused(_) => "paused",
            Self::LimitReached(Limit::InFlight) => "in_flight_limit",
            Self::LimitReached(Limit::Rate) => "rate_limit",
            Self::LimitReached(Limit::FirstFew) => "first_few",
            Self::WindowClosed(_) => "window_closed",
            Self::Busy(_) => "busy",
        }
    }
}

fn at(time: &Time) -> impl fmt::Display {
    time.format("%Y-%m-%d %H:%M:%S UTC")
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInTarget => f.write_str("It is not in the rollout's target."),
            Self::NoReleaseForPlatform => {
                f.write_str("The version has no release for its platform (on the rollout's channel).")
            }
            Self::RunsIt => f.write_str("It runs this version."),
            Self::NotOlder => f.write_str(
                "It runs a newer version, the rollout does not allow_downgrade, and what it runs was not withdrawn.",
            ),
            Self::AutoUpdateOff => {
                f.write_str("Its auto_update is off and the release is not mandatory; an operator may force it.")
            }
            Self::BelowMinUpgradeVersion => f.write_str(
                "It runs a version below the release's min_upgrade_version, and no release in between can be taken.",
            ),
            Self::Completed => f.write_str("It took this rollout's release before."),
            Self::Declined => f.write_str("It declined; an operator may force it."),
            Self::AttemptsUsedUp(tries) => {
                write!(f, "It failed {tries} times, as often as allowed; retry-failed or a forced update tries again.")
            }
            Self::Cancelled => f.write_str("The rollout was cancelled."),
            Self::OutsidePercentage { bucket, percentage } => {
                write!(f, "Its bucket {bucket} is not below the rollout's percentage, {percentage}.")
            }
            Self::BackingOff(until) => write!(f, "Its last try failed; the next is at {}.", at(until)),
            Self::NotStarted(Some(time)) => write!(f, "The rollout starts at {}.", at(time)),
            Self::NotStarted(None) => f.write_str("The rollout was not started."),
            Self::AwaitsApproval => f.write_str("A second person has to approve the rollout."),
            Self::Paused(Some(why)) => write!(f, "The rollout is paused: {why}"),
            Self::Paused(None) => f.write_str("The rollout is paused."),
            Self::LimitReached(Limit::InFlight) => {
                f.write_str("As many updates are open as max_in_flight allows.")
            }
            Self::LimitReached(Limit::Rate) => {
                f.write_str("As many offers were made within a minute as rate_per_minute allows.")
            }
            Self::LimitReached(Limit::FirstFew) => f.write_str(
                "The step lets printers through a few at a time until more of them have proved themselves.",
            ),
            Self::WindowClosed(opens) => write!(f, "Its maintenance window is closed; it {opens}."),
            Self::Busy(version) => write!(f, "Its update to {version} is open; it gets one at a time."),
        }
    }
}
