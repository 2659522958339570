//! How many offers a rollout may make now: `max_in_flight`, `rate_per_minute`, and the first few of a step.
//!
//! They hold exactly, across any number of replicas, because [`grant`] counts only after it holds the rollout's row, in a
//! statement of its own: one that waited for the lock would count what was true before it.

use std::collections::HashMap;

use chrono::TimeDelta;
use sqlx::PgConnection;
use uuid::Uuid;

use super::census::{self, Attempted, State};
use super::{Limit, Rollout, db};
use crate::clock::Time;
use crate::ids::RolloutId;
use crate::updates::Claim;

/// What limits are judged by.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Open updates.
    open: i64,
    /// Confirmed printers.
    confirmed: i64,
    /// Offers within the last minute.
    offered: i64,
    /// Of the stage: open or failed printers.
    unproved: i64,
    /// Of the stage: confirmed printers.
    proved: i64,
}

impl Use {
    fn of(rollout: &Rollout, attempted: &[Attempted], offered: i64) -> Self {
        let mut used = Self { offered, ..Self::default() };
        for group in attempted {
            let here = group.stage == rollout.stage;
            match group.state {
                State::Open | State::Completed => {
                    used.open += group.count;
                    used.unproved += if here { group.count } else { 0 };
                }
                State::Confirmed => {
                    used.confirmed += group.count;
                    used.proved += if here { group.count } else { 0 };
                }
                State::Failed | State::UsedUp => used.unproved += if here { group.count } else { 0 },
                State::Declined => {}
            }
        }
        used
    }
}

/// Offers that may be made now, and by which limit; none: unbounded. Pure.
fn slots(rollout: &Rollout, used: &Use) -> Option<(u32, Limit)> {
    let in_flight = rollout.max_in_flight.map(|most| (i64::from(most) - used.open, Limit::InFlight));
    let rate = rollout.rate.map(|rate| (i64::from(rate.after(used.confirmed)) - used.offered, Limit::Rate));
    // With each printer that proves itself another two may follow; one that failed never frees its place.
    let first = rollout
        .current_step()
        .map(|step| (i64::from(step.first) + used.proved - used.unproved, Limit::FirstFew));
    let narrowest = [in_flight, rate, first].into_iter().flatten().min_by_key(|(left, _)| *left)?;
    Some((u32::try_from(narrowest.0.max(0)).unwrap_or(u32::MAX), narrowest.1))
}

async fn used(
    conn: &mut PgConnection,
    rollout: &Rollout,
    attempted: &HashMap<RolloutId, Vec<Attempted>>,
    now: Time,
) -> Result<Use, sqlx::Error> {
    let offered = match rollout.rate {
        Some(_) => db::offered_since(conn, rollout.id, now - TimeDelta::minutes(1)).await?,
        None => 0,
    };
    Ok(Use::of(rollout, attempted.get(&rollout.id).map_or(&[], Vec::as_slice), offered))
}

/// What the limits of these rollouts leave at the moment; nothing for those without limits. A hint: only [`grant`] decides.
pub(super) async fn outlook(
    conn: &mut PgConnection,
    rollouts: &[Rollout],
    now: Time,
) -> Result<HashMap<RolloutId, (u32, Limit)>, sqlx::Error> {
    let limited: Vec<_> = rollouts.iter().filter(|rollout| rollout.is_limited()).collect();
    let ids: Vec<_> = limited.iter().map(|rollout| rollout.id).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let attempted = census::attempted(conn, &ids).await?;
    let mut all = HashMap::new();
    for rollout in limited {
        let used = used(conn, rollout, &attempted, now).await?;
        all.extend(slots(rollout, &used).map(|slots| (rollout.id, slots)));
    }
    Ok(all)
}

/// Holds the rollouts of these claims, and others that the transaction will need, and drops the claims that their limits
/// leave no room for.
pub(super) async fn grant(
    conn: &mut PgConnection,
    claims: Vec<Claim>,
    others: impl Iterator<Item = RolloutId>,
    now: Time,
) -> Result<Vec<Claim>, sqlx::Error> {
    let mut ids: Vec<Uuid> = claims.iter().map(|claim| claim.rollout).chain(others).map(|id| id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    let held = db::lock(conn, &ids).await?;
    let mut left = outlook(conn, &held, now).await?;
    let fits = |claim: &Claim| match left.get_mut(&claim.rollout) {
        None => true,
        Some((0, _)) => false,
        Some((slots, _)) => {
            *slots -= 1;
            true
        }
    };
    Ok(claims.into_iter().filter(fits).collect())
}
