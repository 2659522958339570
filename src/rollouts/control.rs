//! `PATCH` and `DELETE /api/rollouts/{id}`: pausing, resuming, cancelling, the percentage.

use sqlx::PgPool;

use super::{Error, Rollout, RolloutType, Status, db};
use crate::clock::Time;
use crate::ids::Handle;
use crate::push::{self, Hint};
use crate::updates;

/// What an operator wants changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Active, paused or cancelled.
    pub status: Option<Status>,
    /// 0 to 100.
    pub percentage: Option<u8>,
    /// Only when the rollout is still at this revision.
    pub if_revision: Option<i64>,
}

impl Rollout {
    /// The rollout after the change, or why it cannot be. Pure.
    fn changed(&self, change: Change, now: Time) -> Result<Self, Error> {
        if change.if_revision.is_some_and(|revision| revision != self.revision) {
            return Err(Error::Stale(self.revision));
        }
        let mut next = self.clone();
        if let Some(wanted) = change.status {
            let due = self.started_at.is_some() || self.scheduled_for.is_none_or(|at| at <= now);
            let refused = |why| {
                Error::Conflict(format!(
                    "Rollout {} is {} and cannot become {wanted}: {why}.",
                    self.number, self.status
                ))
            };
            next.status = self.status.on_request(wanted, due).map_err(refused)?;
        }
        if let Some(percentage) = change.percentage.filter(|percentage| *percentage != self.percentage) {
            if self.status == Status::Cancelled {
                return Err(Error::Conflict(format!(
                    "Rollout {} was cancelled, and that is final; create a new one.",
                    self.number
                )));
            }
            if self.rollout_type == RolloutType::Immediate {
                let why = "is immediate and always at 100 percent; create a gradual one instead";
                return Err(Error::Conflict(format!("Rollout {} {why}.", self.number)));
            }
            next.percentage = percentage;
        }
        if (next.status, next.percentage) == (self.status, self.percentage) {
            return Ok(next);
        }
        if next.status.offers() {
            next.started_at = self.started_at.or(Some(now));
        }
        let narrowed = (self.status.offers() && !next.status.offers()) || next.percentage < self.percentage;
        next.epoch += i64::from(narrowed);
        next.revision += 1;
        next.updated_at = now;
        Ok(next)
    }
}

/// Applies a change. No offer is claimed under the old state once this returns; frames already claimed are stopped by
/// the fence.
pub async fn change(pool: &PgPool, handle: Handle, change: Change, now: Time) -> Result<Rollout, Error> {
    let mut tx = pool.begin().await?;
    let old = db::find(&mut tx, handle, true).await?;
    let new = old.changed(change, now)?;
    if new.revision != old.revision {
        db::update(&mut tx, &new).await?;
        push::notify(&mut tx, Hint::Rollout(new.id.0)).await?;
    }
    tx.commit().await?;
    Ok(new)
}

/// Deletes a rollout of which nothing is open. Its updates stay readable.
pub async fn delete(pool: &PgPool, handle: Handle, now: Time) -> Result<Rollout, Error> {
    let mut tx = pool.begin().await?;
    let rollout = db::find(&mut tx, handle, true).await?;
    let open = updates::has_open(&mut tx, rollout.id).await?;
    if open > 0 {
        return Err(Error::Conflict(format!(
            "Rollout {} has {open} open updates; cancel it, and delete it when these have ended.",
            rollout.number
        )));
    }
    db::hide(&mut tx, rollout.id, now).await?;
    push::notify(&mut tx, Hint::Rollout(rollout.id.0)).await?;
    tx.commit().await?;
    Ok(Rollout { epoch: rollout.epoch + 1, status: Status::Cancelled, ..rollout })
}
