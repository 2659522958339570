//! What printers say, taken in: each socket's task hands it over and waits, and it is written many at a time.
//!
//! Progress is the exception: it has a lane of its own, in which the last word of each attempt counts, and which is
//! written now and then. Nobody waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::report::{self, Outcome, Progress};
use super::settle::{Back, settle};
use super::{Remembered, db, offer};
use crate::clock::{Clock, Time};
use crate::config::PrinterAuth;
use crate::db::batch::{Batches, Write};
use crate::ids::{PrinterRef, ReplicaId, RolloutId, UpdateId};
use crate::printers::{self, Arrival, Subscribed};

/// Attempts whose progress one statement writes.
const PROGRESS: usize = 2000;
/// A subscribe message that waited longer for the database is not written any more: its printer may have been elsewhere
/// since, and would be taken back to what it ran then. It says it again on a new socket.
const STALE: Duration = Duration::from_secs(10);

/// The last word of each attempt that is not written yet.
type Lane = Arc<Mutex<HashMap<UpdateId, Progress>>>;

/// The ways in. Clones share them.
#[derive(Clone)]
pub struct Intake {
    arrivals: Batches<Arrivals>,
    outcomes: Batches<Outcomes>,
    ends: Batches<Ends>,
    withdrawals: Batches<Withdrawals>,
    lane: Lane,
    pool: PgPool,
    clock: Clock,
}

/// What a subscribe message changed.
#[derive(Debug)]
pub struct Welcome {
    /// The printer, as it is from now on.
    pub printer: Subscribed,
    /// What is known about its updates.
    pub remembered: Remembered,
    /// The rollout whose counters moved.
    pub touched: Option<RolloutId>,
}

/// What became of a subscribe message.
#[derive(Debug)]
pub enum Arrived {
    /// The printer's row, and what its version proves about its open update.
    Welcome(Box<Welcome>),
    /// A newer socket of the printer is somewhere, or may be.
    Outdated,
    /// The printer, or the key that it shows, is not let in.
    Refused,
}

/// What an outcome changed.
#[derive(Debug)]
pub struct Noted {
    /// Whether it did: not when the attempt was closed, or further on.
    pub changed: bool,
    /// What is known about the printer's updates from now on.
    pub remembered: Remembered,
}

/// A socket that ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Whose.
    pub printer: PrinterRef,
    /// Its number.
    pub connection: i64,
    /// The update that the printer took, if letting go of the socket means that it took one.
    pub taken: Option<UpdateId>,
    /// The update whose offer was not written any more.
    pub waiting: Option<UpdateId>,
}

impl Intake {
    /// Starts the workers, which end with `stop`.
    pub fn start(
        pool: &PgPool,
        replica: ReplicaId,
        policy: PrinterAuth,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Self {
        let (pool, clock, lane) = (pool.clone(), clock.clone(), Lane::default());
        Self {
            arrivals: Batches::start(
                Arrivals { policy, pool: pool.clone(), clock: clock.clone(), replica },
                stop.clone(),
            ),
            outcomes: Batches::start(
                Outcomes { pool: pool.clone(), clock: clock.clone(), lane: lane.clone() },
                stop.clone(),
            ),
            ends: Batches::start(Ends { pool: pool.clone(), clock: clock.clone() }, stop.clone()),
            withdrawals: Batches::start(Withdrawals { pool: pool.clone() }, stop.clone()),
            lane,
            pool,
            clock,
        }
    }

    /// Lets a printer in and writes its row, or not. None: the process ends, or the database refused.
    pub async fn arrival(&self, arrival: Arrival) -> Option<Arrived> {
        self.arrivals.write((Instant::now(), arrival)).await
    }

    /// How an attempt went. None: the process ends, or the database refused.
    pub async fn outcome(&self, printer: PrinterRef, update: UpdateId, outcome: Outcome) -> Option<Noted> {
        self.outcomes.write((printer, update, outcome)).await
    }

    /// A socket ended.
    pub async fn end(&self, end: End) {
        self.ends.write(end).await;
    }

    /// An offer did not leave. What is known about the printer's updates from now on; none when the process ends, or the
    /// database refused.
    pub async fn withdraw(&self, printer: PrinterRef, update: UpdateId) -> Option<Remembered> {
        self.withdrawals.write((printer, update)).await
    }

    /// How far a printer is. One word an attempt waits, so it takes no more room than there are sockets.
    pub fn progress(&self, update: UpdateId, mut progress: Progress) {
        let mut lane = held(&self.lane);
        let earlier = lane.remove(&update).and_then(|earlier| earlier.status);
        progress.status = progress.status.or(earlier);
        lane.insert(update, progress);
    }

    /// Writes the lane down. What the database does not take, or what somebody is changing, stays in it, unless there is
    /// newer.
    pub async fn flush(&self) -> Result<(), sqlx::Error> {
        let mut all: Vec<_> = std::mem::take(&mut *held(&self.lane)).into_iter().collect();
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(PROGRESS));
            let written =
                async { report::progress(&mut *self.pool.acquire().await?, &all, self.clock.now()).await };
            match written.await {
                Ok(busy) => self.keep(all.into_iter().filter(|(update, _)| busy.contains(update))),
                Err(error) => {
                    self.keep(all.into_iter().chain(rest));
                    return Err(error);
                }
            }
            all = rest;
        }
        Ok(())
    }

    fn keep(&self, words: impl Iterator<Item = (UpdateId, Progress)>) {
        let mut lane = held(&self.lane);
        for (update, progress) in words {
            lane.entry(update).or_insert(progress);
        }
    }
}

fn held(lane: &Lane) -> MutexGuard<'_, HashMap<UpdateId, Progress>> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Arrivals {
    policy: PrinterAuth,
    pool: PgPool,
    clock: Clock,
    replica: ReplicaId,
}

impl Arrivals {
    /// Takes out those that are not let in, and says of each whether it was. Who says on the same socket again who it is,
    /// is in.
    async fn judge(
        &self,
        conn: &mut PgConnection,
        arrivals: &mut Vec<Arrival>,
        now: Time,
    ) -> Result<Vec<bool>, sqlx::Error> {
        let strangers: Vec<_> =
            arrivals.iter().filter(|arrival| arrival.connection.is_none()).cloned().collect();
        let mut verdicts = printers::admit(conn, self.policy, &strangers, now).await?.into_iter();
        let mut refused = Vec::with_capacity(arrivals.len());
        arrivals.retain_mut(|arrival| {
            let verdict = match arrival.connection {
                Some(_) => Some(arrival.shared_key),
                None => verdicts.next().flatten(),
            };
            refused.push(verdict.is_none());
            arrival.shared_key = verdict.unwrap_or_default();
            verdict.is_some()
        });
        Ok(refused)
    }
}

impl Write for Arrivals {
    /// With the moment at which it came.
    type Item = (Instant, Arrival);
    type Done = Arrived;
    const NAME: &'static str = "subscribes";

    async fn write(&self, items: &[Self::Item]) -> Result<Vec<Arrived>, sqlx::Error> {
        let now = self.clock.now();
        let mut tx = self.pool.begin().await?;
        // Looked at now, because the wait for the database is over.
        let fresh: Vec<_> = items.iter().map(|(came, _)| came.elapsed() < STALE).collect();
        let arrivals = items.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
        let mut arrivals: Vec<_> = arrivals.map(|((_, arrival), _)| arrival.clone()).collect();
        let refused = self.judge(&mut tx, &mut arrivals, now).await?;
        let printers = printers::subscribe(&mut tx, &arrivals, self.replica, now).await?;
        let back: Vec<_> = arrivals
            .iter()
            .zip(&printers)
            .filter_map(|(arrival, printer)| {
                let printer = printer.as_ref()?.facts.printer;
                Some(Back { printer, runs: &arrival.said.version, same_socket: arrival.connection.is_some() })
            })
            .collect();
        let mut settled = settle(&mut tx, &back, now).await?.into_iter();
        tx.commit().await?;
        let mut welcome = |mut printer: Subscribed| {
            let settled = settled.next().unwrap_or_default();
            if let Some((installed, previous)) = settled.installed {
                printer.facts.cohort.installed = Some(installed);
                printer.facts.previous = Some(previous);
            }
            Welcome { printer, remembered: settled.remembered, touched: settled.touched }
        };
        let mut written = printers.into_iter().map(|printer| {
            printer.map_or(Arrived::Outdated, |printer| Arrived::Welcome(Box::new(welcome(printer))))
        });
        let mut refused = refused.into_iter();
        let arrived = |fresh| match fresh {
            false => Arrived::Outdated,
            true if refused.next() == Some(true) => Arrived::Refused,
            true => written.next().unwrap_or(Arrived::Outdated),
        };
        Ok(fresh.into_iter().map(arrived).collect())
    }
}

struct Outcomes {
    pool: PgPool,
    clock: Clock,
    lane: Lane,
}

impl Write for Outcomes {
    type Item = (PrinterRef, UpdateId, Outcome);
    type Done = Noted;
    const NAME: &'static str = "outcomes";

    async fn write(&self, items: &[Self::Item]) -> Result<Vec<Noted>, sqlx::Error> {
        let now = self.clock.now();
        let mut tx = self.pool.begin().await?;
        let printers: Vec<_> = items.iter().map(|(printer, ..)| *printer).collect();
        printers::hold(&mut tx, &printers).await?;
        let outcomes: Vec<_> = {
            let lane = held(&self.lane);
            items.iter().map(|(_, update, outcome)| (*update, outcome, lane.get(update).cloned())).collect()
        };
        let changed = report::report(&mut tx, &outcomes, now).await?;
        let fresh = db::remembered(&mut tx, &printers).await?;
        tx.commit().await?;
        let noted = |(printer, update, _): &Self::Item| Noted {
            changed: changed.contains(update),
            remembered: fresh.get(printer).cloned().unwrap_or_default(),
        };
        Ok(items.iter().map(noted).collect())
    }
}

struct Withdrawals {
    pool: PgPool,
}

impl Write for Withdrawals {
    type Item = (PrinterRef, UpdateId);
    type Done = Remembered;
    const NAME: &'static str = "withdrawals";

    async fn write(&self, items: &[Self::Item]) -> Result<Vec<Remembered>, sqlx::Error> {
        let (printers, updates): (Vec<_>, Vec<_>) = items.iter().copied().unzip();
        let mut tx = self.pool.begin().await?;
        offer::withdraw(&mut tx, &updates).await?;
        let fresh = db::remembered(&mut tx, &printers).await?;
        tx.commit().await?;
        Ok(printers.iter().map(|printer| fresh.get(printer).cloned().unwrap_or_default()).collect())
    }
}

struct Ends {
    pool: PgPool,
    clock: Clock,
}

impl Write for Ends {
    type Item = End;
    type Done = ();
    const NAME: &'static str = "ends";

    /// In one transaction, because of a printer whose newer socket is here already nothing is known any more.
    async fn write(&self, ends: &[End]) -> Result<Vec<()>, sqlx::Error> {
        let now = self.clock.now();
        let mut tx = self.pool.begin().await?;
        let sockets: Vec<_> = ends.iter().map(|end| (end.printer, end.connection)).collect();
        let newest = printers::disconnected(&mut tx, &sockets, now).await?;
        let ended = || ends.iter().filter(|end| newest.contains(&end.printer));
        let taken: Vec<_> = ended().filter_map(|end| end.taken).collect();
        if !taken.is_empty() {
            report::socket_lost(&mut tx, &taken, now).await?;
        }
        let waiting: Vec<_> = ended().filter_map(|end| end.waiting).collect();
        if !waiting.is_empty() {
            offer::withdraw(&mut tx, &waiting).await?;
        }
        tx.commit().await?;
        Ok(vec![(); ends.len()])
    }
}
