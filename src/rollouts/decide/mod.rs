//! The one decision: which offer, if any, this printer gets now. A pure function of (plan, printer, its past, now),
//! used for pushing, for counting ([`Catalog::pick`]) and for explaining.

mod catalog;
mod why;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

pub use self::catalog::{Catalog, Pick, ReleaseBrief};
pub use self::why::{Limit, Why};
use super::{Rollout, Status};
use crate::clock::Time;
use crate::ids::{RolloutId, UserId};
use crate::printers::{Facts, Owner};
use crate::rollouts::plan::Approval;
use crate::updates::{self, Past};
use crate::windows::{Opening, Windows};

/// Longest back-off between two tries.
const MAX_BACKOFF: TimeDelta = TimeDelta::days(1);

/// A rollout, and how many offers it may make now.
#[derive(Clone, Debug)]
pub struct Offering {
    /// The rollout.
    pub rollout: Rollout,
    /// Offers that its limits allow at the moment, and which of them is the narrowest; none: unbounded. The claim
    /// decides, this only spares it what is hopeless.
    pub slots: Option<(u32, Limit)>,
}

/// All offerings, the highest version first, and what they are decided from.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    offerings: Vec<Offering>,
    /// All releases.
    pub catalog: Catalog,
    /// What owners want for their printers.
    pub owners: Arc<HashMap<UserId, Owner>>,
}

impl Plan {
    /// Puts offerings into their order of precedence: the highest version wins, then the newest rollout.
    pub fn new(mut offerings: Vec<Offering>, catalog: Catalog, owners: Arc<HashMap<UserId, Owner>>) -> Self {
        offerings.sort_by(|a, b| {
            b.rollout.version.cmp(&a.rollout.version).then(b.rollout.number.cmp(&a.rollout.number))
        });
        Self { offerings, catalog, owners }
    }

    /// In order of precedence.
    pub fn offerings(&self) -> &[Offering] {
        &self.offerings
    }

    /// Takes note of what limits leave by now.
    pub(super) fn limit(&mut self, left: &HashMap<RolloutId, u32>) {
        for offering in &mut self.offerings {
            if let (Some(slots), Some(left)) = (&mut offering.slots, left.get(&offering.rollout.id)) {
                slots.0 = *left;
            }
        }
    }
}

/// What one offering means for one printer.
#[derive(Clone, Debug)]
pub enum Verdict<'a> {
    /// This.
    Offer {
        /// What.
        pick: Pick<'a>,
        /// Which try it is.
        tries: u32,
    },
    /// Nothing yet.
    Waiting {
        /// For what.
        why: Why,
        /// When to look again, when that is known.
        until: Option<Time>,
    },
    /// Nothing.
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
        pick: Pick<'a>,
        /// Which try it is.
        tries: u32,
    },
    /// Nothing yet.
    Waiting {
        /// For what.
        why: Why,
        /// When to look again, when that is known.
        until: Option<Time>,
    },
    /// Nothing of all that is on offer; the reason of the offering that came first.
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
    let (mut waiting, mut nothing) = (None, None);
    for offering in &plan.offerings {
        match offering.weigh(plan, printer, past.get(&offering.rollout.id), backoff, now) {
            Verdict::Offer { pick, tries } => return Decision::Offer { offering, pick, tries },
            // A lower version may come first where the higher one is not meant for the printer yet. One that only
            // waits for its moment is not overtaken.
            Verdict::Waiting { why, until } if why.is_of_the_moment() => {
                return Decision::Waiting { why, until };
            }
            Verdict::Waiting { why, until } => waiting = waiting.or(Some((why, until))),
            Verdict::Nothing(why) => nothing = nothing.or(Some(why)),
        }
    }
    match waiting {
        Some((why, until)) => Decision::Waiting { why, until },
        None => Decision::Nothing(nothing),
    }
}

impl Offering {
    /// What this offering means for the printer.
    pub fn weigh<'a>(
        &self,
        plan: &'a Plan,
        printer: &Facts,
        past: Option<&Past>,
        backoff: Duration,
        now: Time,
    ) -> Verdict<'a> {
        let rollout = &self.rollout;
        if !rollout.target.has(printer) {
            return Verdict::Nothing(Why::NotInTarget);
        }
        // Completed and yet older again: somebody flashed it back. It was served; it is left alone.
        let tries = match past.map(|past| past.status) {
            None => 1,
            Some(updates::Status::Declined) => return Verdict::Nothing(Why::Declined),
            Some(updates::Status::Completed) => return Verdict::Nothing(Why::Completed),
            Some(_) => past.map_or(1, |past| past.tries + 1),
        };
        let pick = match plan.catalog.pick(rollout, &printer.cohort) {
            Ok(pick) => pick,
            Err(why) => return Verdict::Nothing(why),
        };
        if tries > rollout.max_attempts {
            return Verdict::Nothing(Why::AttemptsUsedUp(rollout.max_attempts));
        }
        if let Some(verdict) = self.held() {
            return verdict;
        }
        if printer.bucket >= rollout.percentage {
            let why = Why::OutsidePercentage { bucket: printer.bucket, percentage: rollout.percentage };
            return Verdict::Waiting { why, until: None };
        }
        if let Some(ended) = past.and_then(|past| past.ended_at) {
            let until = ended + wait(backoff, tries);
            if now < until {
                return Verdict::Waiting { why: Why::BackingOff(until), until: Some(until) };
            }
        }
        if let Some((opens, why)) = self.closed(plan, printer, &pick, now) {
            return Verdict::Waiting { why, until: Some(opens) };
        }
        if let Some((0, limit)) = self.slots {
            return Verdict::Waiting { why: Why::LimitReached(limit), until: None };
        }
        Verdict::Offer { pick, tries }
    }

    /// When the maintenance windows open that hold the printer back now. Those of the rollout and those of its owner
    /// must both be open; a mandatory release waits only for those that say so.
    fn closed(&self, plan: &Plan, printer: &Facts, pick: &Pick<'_>, now: Time) -> Option<(Time, Why)> {
        let owner = plan.owners.get(&printer.user_id);
        let zone = printer.zone(owner);
        let both = [self.rollout.windows.as_ref(), owner.and_then(|owner| owner.windows.as_ref())];
        let waits = |windows: &&Windows| !(pick.release.mandatory && windows.mandatory_ignores());
        let opening = |windows: &Windows| match windows.state(zone, now) {
            Opening::Open => None,
            closed @ Opening::Closed { opens } => {
                Some((opens, Why::WindowClosed(closed.in_words(&windows.zone(zone)))))
            }
        };
        both.into_iter().flatten().filter(waits).filter_map(opening).max_by_key(|(opens, _)| *opens)
    }

    /// Why the rollout makes no offers at all.
    fn held(&self) -> Option<Verdict<'static>> {
        let rollout = &self.rollout;
        let waits = |why, until| Some(Verdict::Waiting { why, until });
        match rollout.status {
            Status::Active | Status::Completed => None,
            Status::Pending if rollout.approval == Approval::Waiting => waits(Why::AwaitsApproval, None),
            Status::Pending => waits(Why::NotStarted(rollout.scheduled_for), rollout.scheduled_for),
            Status::Paused => waits(Why::Paused(rollout.detail.clone()), None),
            Status::Cancelled => Some(Verdict::Nothing(Why::Cancelled)),
        }
    }
}

/// The wait before try number `tries`, counted from the end of the one before: doubles each time.
fn wait(backoff: Duration, tries: u32) -> TimeDelta {
    let factor = 1i32.checked_shl(tries.saturating_sub(2).min(30)).unwrap_or(i32::MAX);
    let first = TimeDelta::from_std(backoff).unwrap_or(MAX_BACKOFF);
    first.checked_mul(factor).map_or(MAX_BACKOFF, |wait| wait.min(MAX_BACKOFF))
}

#[cfg(test)]
mod tests;
