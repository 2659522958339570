//! The steward: lets rollouts rest and wakes them, advances their steps, pauses and aborts them. A reconciler: it takes
//! no input but which rollouts had news, and every replica may run it, since every write is decided behind the row lock.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::judge::{self, Standing, StatusReason, Verdict, judge};
use super::plan::{AbortAction, AbortRule};
use super::{Rollout, Status, census, count, db, rollback};
use crate::clock::{Clock, Time};
use crate::ids::{PrinterRef, RolloutId};
use crate::push::{self, Hint};

/// How long news are gathered before they are looked at: at most 20 looks a second, whatever the rate of reports.
const GATHER: Duration = Duration::from_millis(50);
/// How often rollouts that run by themselves are looked at, whatever was heard: soaks end and printers fall silent
/// without news.
const TICK: Duration = Duration::from_secs(1);
/// Ticks until every rollout that makes offers is looked at, resting ones too.
const SAFETY_NET: u32 = 10;
/// Longest look. One that hangs is given up and repeated.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gathers which rollouts had news, and sees to them.
#[derive(Debug, Default)]
pub struct Steward {
    news: Mutex<HashSet<RolloutId>>,
    /// Printers whose update ended without a word on their line, which may be any replica's.
    ended: Mutex<HashSet<PrinterRef>>,
    wake: Notify,
}

impl Steward {
    /// Something of this rollout moved.
    pub fn moved(&self, rollout: RolloutId) {
        held(&self.news).insert(rollout);
        self.wake.notify_one();
    }

    /// The update of this printer ended while its line heard nothing of it. Whichever replica has that is told soon.
    pub fn ended(&self, printer: PrinterRef, rollout: Option<RolloutId>) {
        held(&self.ended).insert(printer);
        held(&self.news).extend(rollout);
        self.wake.notify_one();
    }

    /// Which rollouts had news since this was asked last.
    pub fn news(&self) -> HashSet<RolloutId> {
        std::mem::take(&mut *held(&self.news))
    }

    async fn tell(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let ended = std::mem::take(&mut *held(&self.ended));
        if ended.is_empty() {
            return Ok(());
        }
        let hints = ended.iter().map(|printer| Hint::Printer(printer.0));
        let told = async { push::notify_all(&mut *pool.acquire().await?, hints).await }.await;
        if told.is_err() {
            held(&self.ended).extend(ended);
        }
        told
    }

    /// Works until `stop`, then once more.
    pub async fn run(&self, pool: PgPool, clock: Clock, stop: CancellationToken) {
        let mut timer = tokio::time::interval(TICK);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            let mut depth = Depth::News;
            tokio::select! {
                () = stop.cancelled() => {}
                _ = timer.tick() => {
                    depth = if ticks.is_multiple_of(SAFETY_NET) { Depth::All } else { Depth::Running };
                    ticks = ticks.wrapping_add(1);
                }
                () = self.wake.notified() => tokio::time::sleep(GATHER).await,
            }
            let news = self.news();
            let look = async {
                self.tell(&pool).await?;
                look(&pool, &news, depth, clock.now()).await
            };
            if let Err(error) = timeout(PATIENCE, look).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                tracing::warn!(%error, "rollouts could not be looked after and will be later");
                held(&self.news).extend(news);
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }
}

fn held<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which rollouts are looked at besides those that had news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// No others.
    News,
    /// Those that may go on or stop by themselves.
    Running,
    /// All that make offers.
    All,
}

/// Looks after these rollouts and, by `depth`, others.
pub async fn look(
    pool: &PgPool,
    news: &HashSet<RolloutId>,
    depth: Depth,
    now: Time,
) -> Result<(), sqlx::Error> {
    if depth == Depth::News && news.is_empty() {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    super::tally::snapshot(&mut tx).await?;
    let all = db::offering(&mut tx).await?.into_iter();
    let wanted = |rollout: &Rollout| match depth {
        Depth::All => true,
        Depth::Running => rollout.runs_by_itself(),
        Depth::News => false,
    };
    let rollouts: Vec<_> = all.filter(|rollout| wanted(rollout) || news.contains(&rollout.id)).collect();
    let counters = count(&mut tx, &rollouts).await?;
    let mut verdicts = Vec::new();
    for rollout in &rollouts {
        let Some(counters) = counters.get(&rollout.id) else { continue };
        let rests = counters.pending == 0 && counters.total > 0;
        // Nobody was a target: neither completed nor woken.
        let rest = match rollout.status {
            Status::Active if rests => Some(Status::Completed),
            Status::Completed if counters.pending > 0 => Some(Status::Active),
            _ => None,
        };
        let verdict = verdict(&mut tx, rollout, now).await?;
        let freed =
            rollout.is_limited() && counters.pending > counters.in_flight && news.contains(&rollout.id);
        verdicts.push((rollout.clone(), rest, verdict, freed));
    }
    tx.rollback().await?;
    let mut places = None;
    for (rollout, rest, verdict, freed) in verdicts {
        match verdict {
            Verdict::Stay(_) => {}
            Verdict::Advance | Verdict::Stop(..) => {
                carry_out(pool, &rollout, now).await?;
                continue;
            }
        }
        if let Some(rest) = rest {
            db::rest(&mut *pool.acquire().await?, &rollout, rest, now).await?;
        }
        places = places.or(freed.then_some(rollout.id.0));
    }
    // Places became free, and the printers that wait for them may be on any replica, which then looks at all rollouts.
    if let Some(rollout) = places {
        push::notify(&mut *pool.acquire().await?, Hint::Rollout(rollout)).await?;
    }
    Ok(())
}

/// How a rollout stands, and what that means for it.
async fn verdict(conn: &mut PgConnection, rollout: &Rollout, now: Time) -> Result<Verdict, sqlx::Error> {
    if rollout.steps.is_none() && rollout.abort_on.is_none() {
        return Ok(judge(rollout, &Standing::default(), &Standing::default(), false, now));
    }
    let mut attempted = census::attempted(conn, &[rollout.id]).await?.remove(&rollout.id).unwrap_or_default();
    attempted.retain(|group| !(rollout.own_keys_only && group.shared));
    let silent = db::silent(conn, rollout, now - rollout.confirm_within.delta()).await?;
    let stand = |stages: &dyn Fn(i32) -> bool| {
        let silent = silent.iter().filter(|(stage, _)| stages(*stage)).map(|(_, count)| count).sum();
        Standing { silent, ..census::standing(&attempted, stages) }
    };
    let stage = stand(&|stage| stage == rollout.stage);
    let all = stand(&|stage| stage >= rollout.judged_from);
    let first = judge(rollout, &stage, &all, false, now);
    // Only a step that would go on with fewer outcomes than it should have has to know whether more can come.
    if matches!(first, Verdict::Stay(Some(_))) && judge(rollout, &stage, &all, true, now) == Verdict::Advance
    {
        let (catalog, untried) = (db::catalog(conn).await?, db::untried(conn, rollout.id).await?);
        let may_follow = |cohort| rollout.target.admits(cohort) && catalog.pick(rollout, cohort).is_ok();
        let exhausted = !untried.iter().any(may_follow);
        return Ok(judge(rollout, &stage, &all, exhausted, now));
    }
    Ok(first)
}

/// Judges again behind the row lock, and does what the verdict says.
async fn carry_out(pool: &PgPool, rollout: &Rollout, now: Time) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    let Some(rollout) = db::lock(&mut tx, &[rollout.id.0]).await?.into_iter().next() else { return Ok(()) };
    let mut next = match verdict(&mut tx, &rollout, now).await? {
        Verdict::Stay(_) => return Ok(()),
        Verdict::Advance => rollout.advanced(now),
        Verdict::Stop(action, reason, detail) => {
            tracing::warn!(rollout = rollout.number, %action, %detail, "a rollout stopped by itself");
            rollout.stopped(action, reason, detail, now)
        }
    };
    let undoes = |rule: &&AbortRule| {
        let by_rule = next.status == Status::Cancelled && next.reason == Some(StatusReason::Failures);
        by_rule && rule.action == AbortAction::Rollback
    };
    let ways = match next.abort_on.as_ref().filter(undoes) {
        Some(rule) => Some(rollback::ways(&mut tx, next.id, rule.to_version.as_deref()).await?),
        None => None,
    };
    if let Some(warning) = ways.as_ref().and_then(rollback::Ways::warning) {
        let why = next.detail.take().unwrap_or_default();
        next.detail = Some(format!("{why} {warning}"));
    }
    db::update(&mut tx, &next).await?;
    if let Some(ways) = ways {
        rollback::create(&mut tx, &next, ways, "server", now).await?;
    }
    push::notify(&mut tx, Hint::Rollout(next.id.0)).await?;
    tx.commit().await?;
    if next.step > rollout.step {
        tracing::info!(
            rollout = next.number,
            step = next.step + 1,
            percentage = next.percentage,
            "a rollout went on to its next step"
        );
    }
    Ok(())
}

impl Rollout {
    fn runs_by_itself(&self) -> bool {
        self.steps.is_some() || self.abort_on.is_some() || self.ends_at.is_some()
    }

    /// In its next step. Must have one.
    pub(super) fn advanced(&self, now: Time) -> Self {
        let mut next = self.clone();
        next.step += 1;
        next.percentage = next.current_step().map_or(next.percentage, |step| step.percentage);
        next.begin_stage(now);
        next.revision += 1;
        next.updated_at = now;
        next
    }

    fn stopped(&self, action: AbortAction, reason: judge::StatusReason, detail: String, now: Time) -> Self {
        let mut next = self.clone();
        next.status = match action {
            AbortAction::Pause => Status::Paused,
            AbortAction::Cancel | AbortAction::Rollback => Status::Cancelled,
        };
        next.reason = Some(reason);
        next.detail = Some(detail);
        next.epoch += 1;
        next.revision += 1;
        next.updated_at = now;
        next
    }
}

/// What a rollout's step is waiting for, in words; for people who look at it.
pub async fn waiting_for(
    conn: &mut PgConnection,
    rollout: &Rollout,
    now: Time,
) -> Result<Option<String>, sqlx::Error> {
    match verdict(conn, rollout, now).await? {
        Verdict::Stay(why) => Ok(why),
        Verdict::Advance => Ok(Some("It is about to go on to the next step.".into())),
        Verdict::Stop(_, _, detail) => Ok(Some(detail)),
    }
}
