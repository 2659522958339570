//! The engine: looks at the printers on this replica's sockets and decides what each is to get.
//!
//! It takes no input but hints. Every turn compares what should be with what is: after a hint, after a printer became
//! ready, and on a timer. Whatever it missed or could not do is done by the next turn: work is forgotten only when the
//! turn that did it succeeded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::PgPool;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::known::Known;
use super::weigh::{Left, Turn};
use super::{Offering, Plan, Rollout, Steward, db, limits};
use crate::clock::{Clock, Time};
use crate::ids::{PrinterRef, ReplicaId, RolloutId, UpdateId, UserId};
use crate::printers::{self, Owner};
use crate::push::{self, Fence, Hint, Hub, Line};
use crate::storage::Delivery;
use crate::telemetry::metrics;
use crate::updates;

/// Printers that one statement claims offers for.
const BATCH: usize = 1000;
/// Batches under way at once.
const AHEAD: usize = 2;
/// Printers that may wait for a look; beyond it the next scan finds them.
const READY: usize = 20_000;
/// Longest time between two scans while a rollout makes offers, or will at a time that is known.
const SCAN: Duration = Duration::from_secs(5);
/// The same while there is nothing to do. The guard notices within seconds what was not notified.
const REST: Duration = Duration::from_secs(30);
/// Replicas that started together scan at different moments: each takes up to so much of the time off.
const JITTER: f64 = 0.2;
/// How often what is remembered about open updates is read again, whatever was heard.
const REFRESH: Duration = Duration::from_secs(30);
/// How often replicas that have not taken note are looked for.
const GLANCE: Duration = Duration::from_millis(20);
/// Wait after a turn that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest turn. One that hangs, on a database that went silent, is given up and repeated.
const TURN: Duration = Duration::from_secs(60);

pub(super) type PrinterLine = Arc<Line<Known>>;

/// The engine of one replica.
pub struct Engine {
    pub(super) pool: PgPool,
    pub(super) replica: ReplicaId,
    pub(super) hub: Arc<Hub<Known>>,
    pub(super) fence: Fence,
    pub(super) delivery: Delivery,
    pub(super) base_url: Arc<str>,
    pub(super) max_url_length: u32,
    pub(super) steward: Arc<Steward>,
    clock: Clock,
    pub(super) backoff: Duration,
    ready: mpsc::Sender<PrinterRef>,
    pub(super) nudge: Notify,
}

/// What an engine is made of.
pub struct Parts {
    /// PostgreSQL.
    pub pool: PgPool,
    /// This process.
    pub replica: ReplicaId,
    /// The sockets of this replica.
    pub hub: Arc<Hub<Known>>,
    /// The last check before an offer leaves.
    pub fence: Fence,
    /// How printers get images.
    pub delivery: Delivery,
    /// This server as others reach it, for links.
    pub base_url: Arc<str>,
    /// Longest URL for a printer that does not say what it takes, in characters.
    pub max_url_length: u32,
    /// Looks after rollouts.
    pub steward: Arc<Steward>,
    /// Time.
    pub clock: Clock,
    /// Wait before a second try.
    pub backoff: Duration,
}

/// What is to be done. It stays until a turn succeeded.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// These printers' rows may differ from what is remembered.
    pub printers: HashSet<PrinterRef>,
    /// Those of every printer with an open update may.
    pub everything: bool,
    /// Rollouts may have changed, or somebody may be due: look at everyone.
    pub scan: bool,
    /// The sockets of these printers may have become old ones.
    pub part: HashSet<PrinterRef>,
    /// Any socket may.
    pub part_any: bool,
}

/// What the gate of forced updates is called: they have no rollout.
pub(super) const FORCED: Uuid = Uuid::nil();

impl Engine {
    /// An engine, and the queue that [`run`](Self::run) reads.
    pub fn new(parts: Parts) -> (Arc<Self>, mpsc::Receiver<PrinterRef>) {
        let (ready, queue) = mpsc::channel(READY);
        let Parts { pool, replica, hub, fence, delivery, base_url, max_url_length, steward, clock, backoff } =
            parts;
        let nudge = Notify::new();
        let engine = Self {
            pool,
            replica,
            hub,
            fence,
            delivery,
            base_url,
            max_url_length,
            steward,
            clock,
            backoff,
            ready,
            nudge,
        };
        (Arc::new(engine), queue)
    }

    /// The printers here that a rollout's last attempt failed with.
    fn failed_by(&self, rollout: RolloutId) -> Vec<PrinterRef> {
        let failed = |line: &&PrinterLine| {
            line.state()
                .remembered()
                .past
                .get(&rollout)
                .is_some_and(|past| past.status == updates::Status::Failed)
        };
        self.hub.all().iter().filter(failed).map(|line| line.printer).collect()
    }

    /// A printer has no open update any more, or just connected.
    pub fn look_at(&self, printer: PrinterRef) {
        if self.ready.try_send(printer).is_err() {
            self.nudge.notify_one();
        }
    }

    /// An operator changed a rollout. When this returns, nothing of it leaves this replica that may not.
    pub async fn changed(&self, rollout: &Rollout) {
        self.fence.set(rollout.id.0, rollout.epoch, rollout.status.offers()).await;
        self.steward.moved(rollout.id);
        self.nudge.notify_one();
    }

    /// Waits until no living replica sends what was forbidden by a commit before this. One that hangs is forgotten when
    /// its lease runs out, or when its own fence is not believed any more.
    pub async fn everywhere(&self, rollout: &Rollout) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        let since = printers::moment(&mut *self.pool.acquire().await?).await?;
        if printers::unaware(&mut *self.pool.acquire().await?, self.replica, since).await? > 0 {
            // What was asked for may have been so already, and told to nobody.
            push::notify(&mut *self.pool.acquire().await?, Hint::Rollout(rollout.id.0)).await?;
        }
        while printers::unaware(&mut *self.pool.acquire().await?, self.replica, since).await? > 0 {
            if began.elapsed() > push::BELIEVED + GLANCE {
                tracing::warn!(
                    "a replica lives and does not take note of changes; it sends nothing meanwhile"
                );
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Works until `stop`.
    pub async fn run(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<PrinterRef>,
        mut hints: broadcast::Receiver<Hint>,
        stop: CancellationToken,
    ) {
        // Forced updates have no rollout that could be narrowed.
        self.fence.set(FORCED, 0, true).await;
        let mut plan = Plan::default();
        let mut work = Work { everything: true, ..Work::default() };
        let (mut next, mut refreshed) = (Instant::now(), Instant::now());
        // Who never manages a turn shows an old time too.
        metrics::turned(self.clock.now());
        loop {
            let mut ready = Vec::new();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                hint = hints.recv() => match hint {
                    Ok(hint) => self.heed(hint, &mut work),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.heed(Hint::Everything, &mut work),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = self.nudge.notified() => work.scan = true,
                () = tokio::time::sleep_until(next.into()) => work.scan = true,
                _ = queue.recv_many(&mut ready, BATCH) => work.printers.extend(ready),
            }
            work.everything |= refreshed.elapsed() > REFRESH;
            match timeout(TURN, self.turn(&mut plan, &work)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(until) => {
                    metrics::turned(self.clock.now());
                    let due = Instant::now() + until;
                    next = if work.scan { due } else { next.min(due) };
                    if work.everything {
                        refreshed = Instant::now();
                    }
                    work = Work::default();
                }
                Err(error) => {
                    tracing::warn!(%error, "a turn of the engine failed and will be repeated");
                    metrics::engine_error();
                    next = Instant::now() + PAUSE;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// What a hint asks for.
    pub fn heed(&self, hint: Hint, work: &mut Work) {
        match hint {
            Hint::Printer(id) => drop(work.printers.insert(PrinterRef(id))),
            Hint::Rollout(_) | Hint::Releases => work.scan = true,
            Hint::Forgiven(id) => work.printers.extend(self.failed_by(RolloutId(id))),
            // Notifications may be lost, so nothing that is remembered can be trusted.
            Hint::Part(id) => drop(work.part.insert(PrinterRef(id))),
            Hint::Everything => (work.scan, work.everything, work.part_any) = (true, true, true),
        }
    }

    /// One look at every printer on this replica's sockets, as the timer gives it.
    pub async fn scan(&self) -> Result<(), sqlx::Error> {
        let work = Work { scan: true, everything: true, ..Work::default() };
        self.turn(&mut Plan::default(), &work).await.map(drop)
    }

    /// One turn. Returns the time until the next one is due.
    pub async fn turn(&self, plan: &mut Plan, work: &Work) -> Result<Duration, sqlx::Error> {
        let now = self.clock.now();
        let mut due = None;
        if work.everything {
            plan.owners = Arc::new(printers::owners(&mut *self.pool.acquire().await?).await?);
        }
        if work.scan {
            (*plan, due) = self.look_ahead(plan.owners.clone(), now).await?;
            metrics::scanned(plan.offerings().len());
        }
        let mut left = Left::of(plan);
        let named = work.printers.iter().filter_map(|printer| self.hub.get(*printer));
        let all = if work.scan || work.everything { self.hub.all() } else { Vec::new() };
        let open = all.iter().filter(|line| {
            work.everything
                && !work.printers.contains(&line.printer)
                && line.state().remembered().open.is_some()
        });
        let stale: Vec<_> = named.chain(open.cloned()).collect();
        // Whoever just came may have been parted with before its line was here.
        let parted = work.part.iter().chain(&work.printers).filter_map(|printer| self.hub.get(*printer));
        let parted: Vec<_> = if work.part_any { self.hub.all() } else { parted.collect() };
        self.part_with_old(&parted).await?;
        self.refresh(&stale).await?;
        let lines = if work.scan { all } else { stale };
        // The next claim is on its way while what the last one granted is being sent, and one that fails does not end
        // the others in the middle.
        let (mut offers, mut failed) = (FuturesUnordered::new(), None);
        for chunk in lines.chunks(BATCH) {
            if offers.len() == AHEAD {
                failed = failed.or(offers.next().await.and_then(Result::err));
            }
            let turn = self.weigh(plan, &mut left, chunk, now);
            due = [due, turn.until].into_iter().flatten().min();
            offers.push(self.carry_out(turn, now));
        }
        while let Some(offered) = offers.next().await {
            failed = failed.or(offered.err());
        }
        if let Some(error) = failed {
            return Err(error);
        }
        left.note(plan);
        // An offer may have met a row that somebody was changing, and an open update be forced, of no rollout.
        let is_open = |line: &PrinterLine| line.state().remembered().open.is_some();
        let rests = due.is_none() && plan.offerings().is_empty() && !lines.iter().any(is_open);
        let most = if rests { REST } else { SCAN };
        let share = (self.replica.0.as_u128() % 1000) as f64 / 1000.0;
        let most = most.mul_f64(1.0 - JITTER * share);
        let wait = due.map_or(most, |due| (due - self.clock.now()).to_std().unwrap_or_default().min(most));
        Ok(wait.max(Duration::from_millis(10)))
    }

    /// Offers what was decided, and frees who waits for nothing.
    async fn carry_out(&self, turn: Turn, now: Time) -> Result<(), sqlx::Error> {
        self.offer(turn.proposals, now).await?;
        self.release(turn.stranded, now).await
    }

    /// Starts what is due, and reads the plan. Returns when the next start is due as well.
    async fn look_ahead(
        &self,
        owners: Arc<HashMap<UserId, Owner>>,
        now: Time,
    ) -> Result<(Plan, Option<Time>), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        for started in db::start_due(&mut tx, now).await? {
            push::notify(&mut tx, Hint::Rollout(started)).await?;
            self.steward.moved(RolloutId(started));
            tracing::info!(rollout = %started, "a scheduled rollout started");
        }
        tx.commit().await?;
        self.renew_fence(false).await?;
        let mut tx = self.pool.begin().await?;
        super::tally::snapshot(&mut tx).await?;
        let rollouts = db::offering(&mut tx).await?;
        // What was begun since the fence was renewed.
        self.fence.set_all(rollouts.iter().map(|rollout| (rollout.id.0, rollout.epoch, true))).await;
        let mut slots = limits::outlook(&mut tx, &rollouts, now).await?;
        let offering = |rollout: Rollout| Offering { slots: slots.remove(&rollout.id), rollout };
        let offerings = rollouts.into_iter().map(offering).collect();
        let plan = Plan::new(offerings, db::catalog(&mut tx).await?, owners);
        let due = db::next_due(&mut tx).await?;
        tx.rollback().await?;
        Ok((plan, due))
    }

    /// Frees printers from offers that they never saw and that will not go out again.
    async fn release(&self, stranded: Vec<(PrinterLine, UpdateId)>, now: Time) -> Result<(), sqlx::Error> {
        if stranded.is_empty() {
            return Ok(());
        }
        let (lines, ids): (Vec<_>, Vec<_>) = stranded.into_iter().unzip();
        let recalled = updates::recall(&mut *self.pool.acquire().await?, &ids, now).await?;
        if recalled > 0 {
            for line in &lines {
                self.look_at(line.printer);
            }
        }
        Ok(())
    }

    /// Reads again what is remembered about these printers. What changed in memory meanwhile is newer than what was
    /// read, and stays.
    pub(super) async fn refresh(&self, lines: &[PrinterLine]) -> Result<(), sqlx::Error> {
        for chunk in lines.chunks(BATCH) {
            let seen: Vec<_> = chunk.iter().map(|line| line.state().generation()).collect();
            let printers: Vec<_> = chunk.iter().map(|line| line.printer).collect();
            let mut fresh = updates::remembered(&mut *self.pool.acquire().await?, &printers).await?;
            for (line, seen) in chunk.iter().zip(seen) {
                line.state().renew(seen, fresh.remove(&line.printer).unwrap_or_default());
            }
        }
        Ok(())
    }
}
