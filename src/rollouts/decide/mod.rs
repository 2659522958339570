//! The one decision: which offer, if any, this printer gets now. A pure function of (plan, printer, its past, now).

use std::collections::HashMap;
use std::time::Duration;

use chrono::TimeDelta;

use super::Target;
use crate::clock::Time;
use crate::ids::{FirmwareId, RolloutId};
use crate::printers::Facts;
use crate::storage::ObjectKey;
use crate::updates::{self, Past};
use crate::version::Version;
use crate::words::{Channel, Platform};

/// Longest back-off between two tries.
const MAX_BACKOFF: TimeDelta = TimeDelta::days(1);

/// A release, as far as deciding and sending need it.
#[derive(Clone, Debug)]
pub struct ReleaseBrief {
    /// Row.
    pub id: FirmwareId,
    /// Its channel.
    pub channel: Channel,
    /// The chip family it runs on.
    pub platform: Platform,
    /// Offered even where automatic updates are off.
    pub mandatory: bool,
    /// Printers below it cannot take it.
    pub min_upgrade_version: Option<Version>,
    /// Where its bytes are.
    pub key: ObjectKey,
    /// MD5, lower-case hex.
    pub md5: String,
}

/// A rollout that may make offers now.
#[derive(Clone, Debug)]
pub struct Offering {
    /// Row.
    pub rollout: RolloutId,
    /// The number that people type.
    pub number: i64,
    /// Its epoch when the plan was read.
    pub epoch: i64,
    /// What it brings.
    pub version: Version,
    /// Only releases of this channel.
    pub channel: Option<Channel>,
    /// Whom.
    pub target: Target,
    /// Buckets below it are in.
    pub percentage: u8,
    /// Tries a printer.
    pub max_attempts: u32,
    /// Every release of the version, the most stable first.
    pub releases: Vec<ReleaseBrief>,
}

/// All offerings, the highest version first.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    offerings: Vec<Offering>,
}

impl Plan {
    /// Puts offerings into their order of precedence: the highest version wins, then the newest rollout.
    pub fn new(mut offerings: Vec<Offering>) -> Self {
        offerings.sort_by(|a, b| b.version.cmp(&a.version).then(b.number.cmp(&a.number)));
        Self { offerings }
    }

    /// In order of precedence.
    pub fn offerings(&self) -> &[Offering] {
        &self.offerings
    }
}

/// Why a printer gets nothing of a rollout, now or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The predicate does not hold.
    NotInTarget,
    /// No release of the version for its platform (on the rollout's channel).
    NoReleaseForPlatform,
    /// It runs this version or a newer one.
    NotOlder,
    /// It does not take updates by itself, and this one is not mandatory.
    AutoUpdateOff,
    /// It runs something too old for this release.
    BelowMinUpgradeVersion,
    /// Its bucket is not in yet.
    OutsidePercentage,
    /// It took it.
    Completed,
    /// It said no.
    Declined,
    /// It was tried as often as the rollout allows.
    AttemptsUsedUp,
    /// The last try was too recent.
    BackingOff,
}

/// What one offering means for one printer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Offer { release: usize, attempt: u32 },
    Waiting { why: Why, until: Option<Time> },
    Nothing(Why),
}

/// What a printer gets now.
#[derive(Debug)]
pub enum Decision<'a> {
    /// This.
    Offer {
        /// From whom.
        offering: &'a Offering,
        /// What.
        release: &'a ReleaseBrief,
        /// Which try it is.
        attempt: u32,
    },
    /// Nothing yet.
    Waiting {
        /// For what.
        why: Why,
        /// When to look again, when that is known.
        until: Option<Time>,
    },
    /// Nothing of all that is on offer; the reason of the offering that came closest.
    Nothing(Option<Why>),
}

/// Decides for a printer that has no open update. `backoff` is the wait before a second try.
pub fn decide<'a>(
    plan: &'a Plan,
    printer: &Facts,
    past: &HashMap<RolloutId, Past>,
    backoff: Duration,
    now: Time,
) -> Decision<'a> {
    let mut nearest: Option<Verdict> = None;
    for offering in &plan.offerings {
        match offering.weigh(printer, past.get(&offering.rollout), backoff, now) {
            Verdict::Offer { release, attempt } => {
                return Decision::Offer { offering, release: &offering.releases[release], attempt };
            }
            // A printer that is between two tries of a higher version is not sent a lower one meanwhile.
            Verdict::Waiting { why, until: until @ Some(_) } => return Decision::Waiting { why, until },
            verdict => {
                if !matches!(nearest, Some(Verdict::Waiting { .. })) {
                    nearest = Some(verdict);
                }
            }
        }
    }
    match nearest {
        Some(Verdict::Waiting { why, until }) => Decision::Waiting { why, until },
        Some(Verdict::Nothing(why)) => Decision::Nothing(Some(why)),
        Some(Verdict::Offer { .. }) | None => Decision::Nothing(None),
    }
}

impl Offering {
    /// The release that this printer would get: on the rollout's channel when it names one, else on the printer's own,
    /// else the most stable one; always for its platform.
    fn release_for(&self, printer: &Facts) -> Option<usize> {
        let fits = |release: &ReleaseBrief| {
            release.platform == printer.platform && self.channel.is_none_or(|only| only == release.channel)
        };
        let own =
            self.releases.iter().position(|release| fits(release) && release.channel == printer.channel);
        own.or_else(|| self.releases.iter().position(fits))
    }

    fn weigh(&self, printer: &Facts, past: Option<&Past>, backoff: Duration, now: Time) -> Verdict {
        if !self.target.has(printer) {
            return Verdict::Nothing(Why::NotInTarget);
        }
        let Some(index) = self.release_for(printer) else {
            return Verdict::Nothing(Why::NoReleaseForPlatform);
        };
        let release = &self.releases[index];
        if printer.version >= self.version {
            return Verdict::Nothing(Why::NotOlder);
        }
        if !printer.auto_update && !release.mandatory {
            return Verdict::Nothing(Why::AutoUpdateOff);
        }
        if release.min_upgrade_version.as_ref().is_some_and(|least| printer.version < *least) {
            return Verdict::Nothing(Why::BelowMinUpgradeVersion);
        }
        let attempt = match past.map(|past| past.status) {
            None => 1,
            Some(updates::Status::Declined) => return Verdict::Nothing(Why::Declined),
            // Completed and yet older again: somebody flashed it back. It was served; it is left alone.
            Some(updates::Status::Completed) => return Verdict::Nothing(Why::Completed),
            Some(_) => past.map_or(1, |past| past.attempts + 1),
        };
        if attempt > self.max_attempts {
            return Verdict::Nothing(Why::AttemptsUsedUp);
        }
        if printer.bucket >= self.percentage {
            return Verdict::Waiting { why: Why::OutsidePercentage, until: None };
        }
        if let Some(ended) = past.and_then(|past| past.ended_at) {
            let until = ended + wait(backoff, attempt);
            if now < until {
                return Verdict::Waiting { why: Why::BackingOff, until: Some(until) };
            }
        }
        Verdict::Offer { release: index, attempt }
    }
}

/// The wait before try number `attempt`, counted from the end of the one before: doubles each time.
fn wait(backoff: Duration, attempt: u32) -> TimeDelta {
    let factor = 1i32.checked_shl(attempt.saturating_sub(2).min(30)).unwrap_or(i32::MAX);
    let first = TimeDelta::from_std(backoff).unwrap_or(MAX_BACKOFF);
    first.checked_mul(factor).map_or(MAX_BACKOFF, |wait| wait.min(MAX_BACKOFF))
}

#[cfg(test)]
mod tests;
