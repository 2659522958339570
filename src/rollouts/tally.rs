//! Counters: the census, judged by the same function that decides.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use super::census::{self, Attempted, State};
use super::{Catalog, Rollout, db};
use crate::ids::RolloutId;
use crate::printers::Cohort;

/// How far a rollout is. completed + failed + declined + pending = total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Printers that it can serve, and all that it has an update for.
    pub total: i64,
    /// Of these, those that reported or proved success.
    pub completed: i64,
    /// Of the completed, those that came back on the new version.
    pub confirmed: i64,
    /// Those whose tries are used up.
    pub failed: i64,
    /// Those that said no.
    pub declined: i64,
    /// All others.
    pub pending: i64,
    /// Of the pending, those with an open update.
    pub in_flight: i64,
    /// Printers of the target that it cannot serve, by reason.
    pub excluded: BTreeMap<String, i64>,
}

impl Counters {
    /// Counts `population`, the printers that the rollout names, and those of them and others that it has an attempt
    /// with. A printer counts once, by its last attempt; as failed only when its tries are used up or it cannot be
    /// tried again. Pure.
    fn of(
        rollout: &Rollout,
        catalog: &Catalog,
        population: &[(Cohort, i64)],
        attempted: &[Attempted],
    ) -> Self {
        let mut counters = Self::default();
        for (cohort, count) in population {
            counters.untried(rollout, catalog, cohort, *count);
        }
        for Attempted { named, cohort, state, count, .. } in attempted {
            if *named {
                counters.untried(rollout, catalog, cohort, -count);
            }
            let again = || *named && rollout.target.admits(cohort) && catalog.pick(rollout, cohort).is_ok();
            let field = match state {
                State::Open => {
                    counters.in_flight += count;
                    &mut counters.pending
                }
                State::Completed => &mut counters.completed,
                State::Confirmed => {
                    counters.confirmed += count;
                    &mut counters.completed
                }
                State::Declined => &mut counters.declined,
                State::Failed if again() => &mut counters.pending,
                State::Failed | State::UsedUp => &mut counters.failed,
            };
            *field += count;
            counters.total += count;
        }
        counters.excluded.retain(|_, count| *count != 0);
        counters
    }

    fn untried(&mut self, rollout: &Rollout, catalog: &Catalog, cohort: &Cohort, count: i64) {
        if !rollout.target.admits(cohort) {
            return;
        }
        match catalog.pick(rollout, cohort) {
            Ok(_) => {
                self.pending += count;
                self.total += count;
            }
            Err(why) => *self.excluded.entry(why.code().to_owned()).or_default() += count,
        }
    }
}

/// Counts these rollouts. Costs the same for ten printers and ten million, but for those that are named in lists.
///
/// The connection should be in a transaction that reads one snapshot when writers are at work; see [`snapshot`].
pub async fn count(
    conn: &mut PgConnection,
    rollouts: &[Rollout],
) -> Result<HashMap<RolloutId, Counters>, sqlx::Error> {
    if rollouts.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = rollouts.iter().map(|rollout| rollout.id).collect();
    let catalog = db::catalog(&mut *conn).await?;
    let fleet = match rollouts.iter().any(|rollout| rollout.target.is_open()) {
        true => census::fleet(&mut *conn).await?,
        false => Vec::new(),
    };
    let attempted = census::attempted(&mut *conn, &ids).await?;
    let mut counters = HashMap::new();
    for rollout in rollouts {
        let attempted = attempted.get(&rollout.id).map_or(&[][..], Vec::as_slice);
        let of = if rollout.target.is_open() {
            Counters::of(rollout, &catalog, &fleet, attempted)
        } else {
            let named = census::named(&mut *conn, rollout).await?;
            Counters::of(rollout, &catalog, &named, attempted)
        };
        counters.insert(rollout.id, of);
    }
    Ok(counters)
}

/// Makes all that a transaction reads one moment. Call it first.
pub async fn snapshot(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(conn).await?;
    Ok(())
}
