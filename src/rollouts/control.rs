//! What an operator does to a rollout: pausing, resuming, cancelling, the percentage, the next step, an approval, another
//! try for what failed, undoing it all.

use serde_json::json;
use sqlx::PgPool;

use super::judge::StatusReason;
use super::plan::Approval;
use super::{Error, Rollout, RolloutType, Status, db, rollback};
use crate::audit;
use crate::auth::{ANONYMOUS, Caller};
use crate::clock::Time;
use crate::ids::Handle;
use crate::push::{self, Hint};
use crate::updates;
use crate::version::Version;

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
            let stays = matches!(next.status, Status::Pending | Status::Cancelled);
            if self.approval == Approval::Waiting && !stays {
                let why = "waits for a second person: POST …/approve";
                return Err(Error::Conflict(format!("Rollout {} {why}.", self.number)));
            }
            if next.status != self.status {
                next.turned(self, now);
            }
        }
        if let Some(percentage) = change.percentage.filter(|percentage| *percentage != self.percentage) {
            if self.status == Status::Cancelled {
                return Err(Error::Conflict(format!(
                    "Rollout {} was cancelled, and that is final; create a new one.",
                    self.number
                )));
            }
            if self.steps.is_some() {
                let why = "follows its steps; POST …/advance takes the next one";
                return Err(Error::Conflict(format!("Rollout {} {why}.", self.number)));
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
        let narrowed = (self.status.offers() && !next.status.offers()) || next.percentage < self.percentage;
        next.epoch += i64::from(narrowed);
        next.revision += 1;
        next.updated_at = now;
        Ok(next)
    }
}

impl Rollout {
    /// What follows from a new status that an operator asked for.
    fn turned(&mut self, old: &Self, now: Time) {
        (self.reason, self.detail) = match self.status {
            Status::Paused | Status::Cancelled => (Some(StatusReason::Operator), None),
            _ => (None, None),
        };
        if !self.status.offers() {
            return;
        }
        self.started_at = old.started_at.or(Some(now));
        self.stage_started_at = self.stage_started_at.or(Some(now));
        match old.reason {
            // Whoever goes on after too many failures has seen them: what comes is judged by itself.
            Some(StatusReason::Failures) => {
                self.begin_stage(now);
                self.judged_from = self.stage;
            }
            Some(StatusReason::Ended) => self.ends_at = None,
            _ => {}
        }
    }
}

/// Changes a rollout behind its row lock: `how` says what it becomes, or why it cannot be.
async fn apply(
    pool: &PgPool,
    caller: &Caller,
    handle: Handle,
    now: Time,
    how: impl FnOnce(&mut Rollout) -> Result<(), String>,
) -> Result<Rollout, Error> {
    let mut tx = caller.begin(pool).await?;
    let mut rollout = db::find(&mut tx, &caller.scope, handle, true).await?;
    how(&mut rollout).map_err(Error::Conflict)?;
    rollout.revision += 1;
    rollout.updated_at = now;
    db::update(&mut tx, &rollout).await?;
    push::notify(&mut tx, Hint::Rollout(rollout.id.0)).await?;
    tx.commit().await?;
    Ok(rollout)
}

/// Takes the next step now, whatever the current one is waiting for.
pub async fn advance(pool: &PgPool, caller: &Caller, handle: Handle, now: Time) -> Result<Rollout, Error> {
    let next = |rollout: &mut Rollout| {
        let number = rollout.number;
        if rollout.steps.is_none() {
            return Err(format!("Rollout {number} has no steps; change rollout_percentage instead."));
        }
        if rollout.is_last_step() {
            return Err(format!("Rollout {number} is in its last step."));
        }
        if !rollout.status.offers() {
            return Err(format!("Rollout {number} is {}; make it active first.", rollout.status));
        }
        *rollout = Rollout { revision: rollout.revision, ..rollout.advanced(now) };
        Ok(())
    };
    apply(pool, caller, handle, now, next).await
}

/// What a second person says about a rollout that waits for it. Agreement starts it, unless it is scheduled for later.
pub async fn approve(
    pool: &PgPool,
    caller: &Caller,
    handle: Handle,
    agreed: bool,
    comment: Option<String>,
    now: Time,
) -> Result<Rollout, Error> {
    let decided = |rollout: &mut Rollout| {
        if rollout.approval != Approval::Waiting {
            let why = match rollout.approval {
                Approval::NotRequired => "needs no approval",
                Approval::Approved => "was approved already",
                Approval::Denied | Approval::Waiting => "was denied, and that is final; create a new one",
            };
            return Err(format!("Rollout {} {why}.", rollout.number));
        }
        if rollout.status == Status::Cancelled {
            let why = "was cancelled, and that is final; create a new one";
            return Err(format!("Rollout {} {why}.", rollout.number));
        }
        // Without authentication everybody has the same name.
        let made_it =
            rollout.creator.as_deref() == Some(&caller.actor.identity) && &*caller.actor.name != ANONYMOUS;
        if agreed && made_it {
            return Err(format!("Rollout {} was made by you, and waits for somebody else.", rollout.number));
        }
        rollout.approval = if agreed { Approval::Approved } else { Approval::Denied };
        rollout.approval_at = Some(now);
        if !agreed {
            rollout.status = Status::Cancelled;
            (rollout.reason, rollout.detail) = (Some(StatusReason::Denied), comment.clone());
            rollout.epoch += 1;
        } else if rollout.status == Status::Pending && rollout.scheduled_for.is_none_or(|at| at <= now) {
            rollout.status = Status::Active;
            rollout.started_at = Some(now);
            rollout.stage_started_at = Some(now);
        }
        rollout.approval_comment = comment;
        Ok(())
    };
    apply(pool, caller, handle, now, decided).await
}

/// Forgives the failures of printers whose tries are used up, so that they are tried again. Returns how many.
pub async fn retry_failed(pool: &PgPool, caller: &Caller, handle: Handle) -> Result<(Rollout, u64), Error> {
    let mut tx = caller.begin(pool).await?;
    let rollout = db::find(&mut tx, &caller.scope, handle, true).await?;
    if rollout.status == Status::Cancelled {
        let why = "was cancelled, and that is final; create a new one";
        return Err(Error::Conflict(format!("Rollout {} {why}.", rollout.number)));
    }
    let forgiven = updates::forgive(&mut tx, rollout.id, rollout.max_attempts).await?;
    push::notify(&mut tx, Hint::Forgiven(rollout.id.0)).await?;
    let (id, number, reach) = (rollout.id.to_string(), rollout.number.to_string(), &rollout.reach);
    let lists = [reach.user_ids.as_deref(), reach.channels.as_deref(), reach.platforms.as_deref()];
    audit::note(&mut tx, "rollout.retried", (&id, &number), json!({"printers": forgiven}), lists).await?;
    tx.commit().await?;
    Ok((rollout, forgiven))
}

/// Cancels a rollout, and makes those that bring back the printers that took it: each to the release it had, or all to
/// a named one.
pub async fn undo(
    pool: &PgPool,
    caller: &Caller,
    handle: Handle,
    to: Option<Version>,
    now: Time,
) -> Result<(Rollout, Vec<Rollout>), Error> {
    let mut tx = caller.begin(pool).await?;
    let mut rollout = db::find(&mut tx, &caller.scope, handle, true).await?;
    // By somebody, or by its own `abort_on`.
    let back = db::undone_by(&mut tx, rollout.id).await?;
    if rollout.reason == Some(StatusReason::RolledBack) || !back.is_empty() {
        let by: Vec<_> = back.iter().map(ToString::to_string).collect();
        let by = if by.is_empty() { String::new() } else { format!(", by rollout {}", by.join(", ")) };
        return Err(Error::Conflict(format!("Rollout {} was rolled back already{by}.", rollout.number)));
    }
    if let Some(version) = &to
        && !super::create::stands(&mut tx, &caller.scope, version).await?
    {
        return Err(Error::FirmwareNotFound(format!("there is no release {version} to go back to")));
    }
    if rollout.status != Status::Cancelled {
        rollout.status = Status::Cancelled;
        rollout.epoch += 1;
    }
    let text = to.map(|version| version.to_string());
    let ways = rollback::ways(&mut tx, rollout.id, text.as_deref()).await?;
    rollout.reason = Some(StatusReason::RolledBack);
    rollout.detail = ways.warning();
    rollout.revision += 1;
    rollout.updated_at = now;
    db::update(&mut tx, &rollout).await?;
    let back = rollback::create(&mut tx, &rollout, ways, &caller.actor.name, now).await?;
    push::notify(&mut tx, Hint::Rollout(rollout.id.0)).await?;
    tx.commit().await?;
    Ok((rollout, back))
}

/// Applies a change. No offer is claimed under the old state once this returns; frames already claimed are stopped by
/// the fence.
pub async fn change(
    pool: &PgPool,
    caller: &Caller,
    handle: Handle,
    change: Change,
    now: Time,
) -> Result<Rollout, Error> {
    let mut tx = caller.begin(pool).await?;
    let old = db::find(&mut tx, &caller.scope, handle, true).await?;
    let new = old.changed(change, now)?;
    if new.revision != old.revision {
        db::update(&mut tx, &new).await?;
        push::notify(&mut tx, Hint::Rollout(new.id.0)).await?;
    }
    tx.commit().await?;
    Ok(new)
}

/// Pauses every rollout that makes offers or is about to by itself, as after a restore: what was paused or cancelled since the
/// backup would otherwise go on. Returns their numbers. Those that wait for an approval wait on.
pub async fn hold(pool: &PgPool, caller: &Caller, now: Time) -> Result<Vec<i64>, Error> {
    let numbers = db::moving(&mut *pool.acquire().await?).await?;
    for number in &numbers {
        let paused = Change { status: Some(Status::Paused), ..Change::default() };
        change(pool, caller, Handle::Number(*number), paused, now).await?;
    }
    Ok(numbers)
}

/// Deletes a rollout of which nothing is open. Its updates stay readable.
pub async fn delete(pool: &PgPool, caller: &Caller, handle: Handle, now: Time) -> Result<Rollout, Error> {
    let mut tx = caller.begin(pool).await?;
    let rollout = db::find(&mut tx, &caller.scope, handle, true).await?;
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
