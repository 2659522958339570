//! The engine: looks at the printers on this replica's sockets, claims offers in batches, hands them to the sockets.
//!
//! It takes no input but hints. Every turn compares what should be with what is: after a hint, after a printer became
//! ready, and on a timer. Whatever it missed or could not do is done by the next turn.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::db::{self, Outlook};
use super::{Decision, Plan, ReleaseBrief, Rollout, Tally, decide};
use crate::clock::{Clock, Time};
use crate::ids::{PrinterRef, RolloutId, UpdateId};
use crate::printers::Facts;
use crate::push::{self, Fence, Frame, Hint, Hub, Line, Out};
use crate::storage::{Delivery, ObjectKey};
use crate::telemetry::metrics;
use crate::updates::{self, Claim, Open, Remembered};

/// Printers that one statement claims offers for.
const BATCH: usize = 1000;
/// Printers that may wait for a look; beyond it the next scan finds them.
const READY: usize = 20_000;
/// Longest time between two scans.
const SCAN: Duration = Duration::from_secs(5);
/// Wait after a turn that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What a line remembers about its printer.
#[derive(Debug)]
pub struct Known {
    /// Who it is and what it runs.
    pub facts: Facts,
    /// Its updates.
    pub remembered: Remembered,
    /// Whether its open offer went out on this socket.
    pub sent: bool,
}

type PrinterLine = Arc<Line<Known>>;

/// The engine of one replica.
pub struct Engine {
    pool: PgPool,
    hub: Arc<Hub<Known>>,
    fence: Fence,
    delivery: Delivery,
    tally: Arc<Tally>,
    clock: Clock,
    backoff: Duration,
    ready: mpsc::Sender<PrinterRef>,
    nudge: Notify,
}

/// `firmware_update`, as short as it can be: many sketches parse into 256 or 512 bytes.
#[derive(Serialize)]
struct FirmwareUpdate<'a> {
    kind: &'static str,
    version: String,
    url: &'a str,
    md5: &'a str,
}

/// What one turn wants to send.
#[derive(Default)]
struct Turn {
    offers: Vec<(PrinterLine, Claim, ReleaseBrief)>,
    again: Vec<(PrinterLine, UpdateId, RolloutId, String, ReleaseBrief)>,
    /// When the next printer is due.
    until: Option<Time>,
}

impl Engine {
    /// An engine, and the queue that [`run`](Self::run) reads.
    pub fn new(
        pool: PgPool,
        hub: Arc<Hub<Known>>,
        fence: Fence,
        delivery: Delivery,
        tally: Arc<Tally>,
        clock: Clock,
        backoff: Duration,
    ) -> (Arc<Self>, mpsc::Receiver<PrinterRef>) {
        let (ready, queue) = mpsc::channel(READY);
        (
            Arc::new(Self { pool, hub, fence, delivery, tally, clock, backoff, ready, nudge: Notify::new() }),
            queue,
        )
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
        self.tally.moved(rollout.id);
        self.nudge.notify_one();
    }

    /// Works until `stop`.
    pub async fn run(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<PrinterRef>,
        mut hints: broadcast::Receiver<Hint>,
        stop: CancellationToken,
    ) {
        let mut plan = Plan::default();
        let mut next = Instant::now();
        loop {
            let (mut ready, mut stale, mut scan) = (Vec::new(), Some(HashSet::new()), false);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                hint = hints.recv() => match hint {
                    Ok(Hint::Printer(id)) => { stale.get_or_insert_default().insert(PrinterRef(id)); }
                    Ok(Hint::Rollout(_)) => scan = true,
                    // Notifications may be lost, so nothing that is remembered can be trusted.
                    Ok(Hint::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => (scan, stale) = (true, None),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = self.nudge.notified() => scan = true,
                () = tokio::time::sleep_until(next.into()) => scan = true,
                _ = queue.recv_many(&mut ready, BATCH) => {}
            }
            let turn = self.turn(&mut plan, ready, stale, scan).await;
            match turn {
                Ok(until) if scan => next = Instant::now() + until,
                Ok(until) => next = next.min(Instant::now() + until),
                Err(error) => {
                    tracing::warn!(%error, "a turn of the engine failed and will be repeated");
                    metrics::engine_error();
                    next = Instant::now() + PAUSE;
                }
            }
        }
    }

    /// One turn. Returns the time until the next one is due.
    async fn turn(
        &self,
        plan: &mut Plan,
        ready: Vec<PrinterRef>,
        stale: Option<HashSet<PrinterRef>>,
        scan: bool,
    ) -> Result<Duration, sqlx::Error> {
        let now = self.clock.now();
        let mut due = None;
        if scan {
            let outlook = self.look_ahead(now).await?;
            (*plan, due) = (outlook.plan, outlook.next_due);
            metrics::scanned(plan.offerings().len());
        }
        let mut lines = match &stale {
            // Whose update is open may have missed its end; the others have nothing to miss.
            None => {
                self.refresh(
                    self.hub
                        .all()
                        .into_iter()
                        .filter(|line| line.state().remembered.open.is_some())
                        .collect(),
                )
                .await?
            }
            Some(stale) => {
                self.refresh(stale.iter().filter_map(|printer| self.hub.get(*printer)).collect()).await?
            }
        };
        if scan {
            lines = self.hub.all();
        } else {
            lines.extend(ready.into_iter().filter_map(|printer| self.hub.get(printer)));
        }
        for chunk in lines.chunks(BATCH) {
            let turn = self.weigh(plan, chunk, now);
            due = [due, turn.until].into_iter().flatten().min();
            self.offer(turn, now).await?;
        }
        let wait = due.map_or(SCAN, |due| (due - self.clock.now()).to_std().unwrap_or_default().min(SCAN));
        Ok(wait.max(Duration::from_millis(10)))
    }

    /// Starts what is due, and reads the plan.
    async fn look_ahead(&self, now: Time) -> Result<Outlook, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        for started in db::start_due(&mut tx, now).await? {
            push::notify(&mut tx, Hint::Rollout(started)).await?;
            self.tally.moved(RolloutId(started));
            tracing::info!(rollout = %started, "a scheduled rollout started");
        }
        tx.commit().await?;
        let also = self.fence.open().await;
        let outlook = db::outlook(&mut *self.pool.acquire().await?, &also).await?;
        self.fence.set_all(outlook.states.iter().copied()).await;
        Ok(outlook)
    }

    /// Decides for each line. Locks one line at a time, briefly.
    fn weigh(&self, plan: &Plan, lines: &[PrinterLine], now: Time) -> Turn {
        let mut turn = Turn::default();
        for line in lines {
            let known = line.state();
            if let Some(open) = &known.remembered.open {
                if !known.sent && open.status == updates::Status::Pending && !open.socket_lost {
                    let offering =
                        plan.offerings().iter().find(|offering| Some(offering.rollout) == open.rollout);
                    let release = offering.and_then(|offering| {
                        offering.releases.iter().find(|release| release.id == open.release)
                    });
                    if let (Some(offering), Some(release)) = (offering, release) {
                        turn.again.push((
                            line.clone(),
                            open.update,
                            offering.rollout,
                            open.version.to_string(),
                            release.clone(),
                        ));
                    }
                }
                continue;
            }
            match decide(plan, &known.facts, &known.remembered.past, self.backoff, now) {
                Decision::Offer { offering, release, attempt } => {
                    let claim = Claim {
                        update: UpdateId::generate(),
                        rollout: offering.rollout,
                        epoch: offering.epoch,
                        printer: line.printer,
                        connection: line.connection,
                        release: release.id,
                        version: offering.version.clone(),
                        from: known.facts.version.clone(),
                        attempt,
                    };
                    turn.offers.push((line.clone(), claim, release.clone()));
                }
                Decision::Waiting { until, .. } => {
                    turn.until = [turn.until, until].into_iter().flatten().min()
                }
                Decision::Nothing(_) => {}
            }
        }
        turn
    }

    /// Claims and sends.
    async fn offer(&self, mut turn: Turn, now: Time) -> Result<(), sqlx::Error> {
        if turn.offers.is_empty() && turn.again.is_empty() {
            return Ok(());
        }
        let urls = self.urls(&turn).await;
        // Without a URL there is nothing to offer; the next scan tries again.
        turn.offers.retain(|(_, _, release)| urls.contains_key(&release.key));
        turn.again.retain(|(.., release)| urls.contains_key(&release.key));

        let started = Instant::now();
        let claims: Vec<_> = turn.offers.iter().map(|(_, claim, _)| claim.clone()).collect();
        let resends: Vec<_> = turn.again.iter().map(|(_, update, ..)| *update).collect();
        let mut tx = self.pool.begin().await?;
        let claimed: HashSet<_> = updates::claim(&mut tx, &claims, now).await?.into_iter().collect();
        let resent: HashMap<_, _> = updates::reoffer(&mut tx, &resends, now).await?.into_iter().collect();
        tx.commit().await?;
        metrics::claimed(started.elapsed());

        let (mut unsent, mut lost) = (Vec::new(), Vec::new());
        for (line, claim, release) in turn.offers {
            if !claimed.contains(&claim.update) {
                lost.push(line);
                continue;
            }
            self.tally.moved(claim.rollout);
            let frame = frame(
                claim.update,
                claim.rollout,
                claim.epoch,
                claim.version.to_string(),
                &release,
                &urls,
                false,
            );
            {
                let mut known = line.state();
                known.sent = true;
                known.remembered.open = Some(open(&claim));
            }
            if !line.send(Out::Offer(frame)) {
                line.state().remembered.open = None;
                unsent.push(claim.update);
            }
        }
        for (line, update, rollout, version, release) in turn.again {
            let Some(epoch) = resent.get(&update) else {
                lost.push(line);
                continue;
            };
            line.state().sent = true;
            if !line.send(Out::Offer(frame(update, rollout, *epoch, version, &release, &urls, true))) {
                line.state().sent = false;
                unsent.push(update);
            }
        }
        if !unsent.is_empty() {
            metrics::offers("withdrawn", unsent.len());
            updates::withdraw(&mut *self.pool.acquire().await?, &unsent).await?;
        }
        // What was not granted was decided on old news about the printer; the next scan decides on fresh ones.
        self.refresh(lost).await?;
        Ok(())
    }

    /// A URL for every release of the turn.
    async fn urls(&self, turn: &Turn) -> HashMap<ObjectKey, Arc<str>> {
        let releases = turn
            .offers
            .iter()
            .map(|(.., release)| release)
            .chain(turn.again.iter().map(|(.., release)| release));
        let mut urls = HashMap::new();
        for release in releases {
            if urls.contains_key(&release.key) {
                continue;
            }
            match self.delivery.url(&release.key).await {
                Ok(url) => drop(urls.insert(release.key.clone(), url)),
                Err(error) => {
                    tracing::error!(key = %release.key, %error, "no download URL can be made, so nothing is offered")
                }
            }
        }
        urls
    }

    /// Reads again what is remembered about these printers, and returns their lines.
    async fn refresh(&self, lines: Vec<PrinterLine>) -> Result<Vec<PrinterLine>, sqlx::Error> {
        for chunk in lines.chunks(BATCH) {
            let printers: Vec<_> = chunk.iter().map(|line| line.printer).collect();
            let mut fresh = updates::remembered(&mut *self.pool.acquire().await?, &printers).await?;
            for line in chunk {
                line.state().renew(fresh.remove(&line.printer).unwrap_or_default());
            }
        }
        Ok(lines)
    }
}

impl Known {
    /// Takes in fresh rows. Whether the open offer went out here stays known as long as it is the same one.
    pub fn renew(&mut self, fresh: Remembered) {
        let same = |open: &Option<Open>| open.as_ref().map(|open| open.update);
        self.sent = self.sent && same(&self.remembered.open) == same(&fresh.open);
        self.remembered = fresh;
    }
}

fn open(claim: &Claim) -> Open {
    Open {
        update: claim.update,
        rollout: Some(claim.rollout),
        status: updates::Status::Pending,
        release: claim.release,
        version: claim.version.clone(),
        from: claim.from.clone(),
        attempt: claim.attempt,
        sends: 1,
        socket_lost: false,
    }
}

fn frame(
    update: UpdateId,
    rollout: RolloutId,
    epoch: i64,
    version: String,
    release: &ReleaseBrief,
    urls: &HashMap<ObjectKey, Arc<str>>,
    again: bool,
) -> Frame {
    let url = urls.get(&release.key).map_or("", |url| url);
    let message = FirmwareUpdate { kind: "firmware_update", version, url, md5: &release.md5 };
    // A struct of strings always serialises.
    let text = serde_json::to_string(&message).unwrap_or_default();
    Frame { text, rollout: rollout.0, epoch, update: update.0, again }
}
