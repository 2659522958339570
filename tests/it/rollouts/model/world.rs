//! Two replicas on one database, their printers, and what each operation means to them. Nothing runs by itself.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use paperminder_ota::app;
use paperminder_ota::auth::Caller;
use paperminder_ota::clock::Clock;
use paperminder_ota::config::Config;
use paperminder_ota::firmware::{self, Amendment, Selector};
use paperminder_ota::ids::{Handle, PrinterRef};
use paperminder_ota::jobs;
use paperminder_ota::push::{self, Hint};
use paperminder_ota::rollouts::{self, Change, Depth, Force, Plan, Rollout, Status, Work, look};
use paperminder_ota::state::AppState;
use paperminder_ota::storage::Store;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::check::{self, Checked};
use super::fleet::Device;
use super::operations::{About, Operation, Outcome, PrinterSpec, RELEASES, RolloutSpec, Runs, Said, Turn};
use super::reference::Memory;
use super::rows::{Rows, version};
use crate::support::SOON;

/// What outlives a case.
pub struct Ground {
    pub pool: PgPool,
    pub config: Config,
    pub store: Store,
    hints: broadcast::Sender<Hint>,
    stop: CancellationToken,
}

/// Most rollouts of a case; beyond it counting everything after every step takes long and finds nothing new.
const ROLLOUTS: usize = 6;
/// Rounds within which a fleet that behaves is done: each printer of the most limited rollout has one to itself.
const REST: usize = 40;
/// Looks of the steward after which nothing is left to do.
const LOOKS: usize = 4;
const DAY: u64 = 24 * 3600;
/// The first try that fails is followed by the second after this.
const BACKOFF: &str = "20";

impl Ground {
    /// On a migrated database.
    pub async fn new(config: Config) -> Self {
        let options = app::database(&config.database).await.unwrap();
        // Whoever waits for a connection on a busy machine is no fault of what is tried here.
        let pool = PgPoolOptions::new()
            .max_connections(config.database_max_connections)
            .acquire_timeout(SOON)
            .connect_lazy_with(options);
        let (hints, mut heard) = broadcast::channel(10_000);
        let stop = CancellationToken::new();
        tokio::spawn(push::listen(config.database.clone(), hints.clone(), stop.clone()));
        assert_eq!(heard.recv().await, Ok(Hint::Everything), "the listener stands");
        let store = Store::connect(&config.storage).await;
        Self { pool, config, store, hints, stop }
    }

    /// Hints as they come.
    pub fn listen(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    /// Settings of both replicas.
    pub fn settings() -> &'static [(&'static str, &'static str)] {
        &[("DELIVERY", "link"), ("RETRY_BACKOFF_SECONDS", BACKOFF), ("DATABASE_MAX_CONNECTIONS", "16")]
    }

    /// An empty database but for the releases.
    pub async fn clear(&self, clock: &Clock) {
        sqlx::query("truncate update_history, update_rollouts, printers, census, firmware_versions cascade")
            .execute(&self.pool)
            .await
            .unwrap();
        for (at, channel, platform, mandatory, least) in RELEASES {
            let id = Uuid::now_v7();
            sqlx::query(
                "insert into firmware_versions (id, version, version_key, channel, platform, object_key, file_size, md5_checksum, \
                 sha256_checksum, mandatory, min_upgrade_version, min_upgrade_version_key, released_at) \
                 values ($1, $2, $3, $4, $5, $6, 1, repeat('0', 32), repeat('0', 64), $7, $8, $9, $10)",
            )
            .bind(id)
            .bind(at)
            .bind(version(at).key())
            .bind(channel.as_str())
            .bind(platform.as_str())
            .bind(format!("firmware/{id}/image.bin"))
            .bind(mandatory)
            .bind(least)
            .bind(least.map(|least| version(least).key()))
            .bind(clock.now())
            .execute(&self.pool)
            .await
            .unwrap();
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A clock that only the test moves.
pub fn clock() -> Clock {
    Clock::manual("2026-01-01T12:00:00Z".parse().unwrap())
}

struct Replica {
    app: AppState,
    ready: mpsc::Receiver<PrinterRef>,
    plan: Plan,
    work: Work,
    /// Hints on their way.
    hints: VecDeque<Hint>,
}

pub struct World {
    pool: PgPool,
    clock: Clock,
    replicas: Vec<Replica>,
    devices: Vec<Device>,
    hints: broadcast::Receiver<Hint>,
    memory: Memory,
    /// Rollouts whose pause, cancel or deletion was answered.
    closed: HashSet<Uuid>,
    rows: Rows,
}

impl World {
    pub async fn new(ground: &Ground, printers: &[PrinterSpec]) -> Self {
        let clock = clock();
        ground.clear(&clock).await;
        let mut replicas = Vec::new();
        for _ in 0..2 {
            let parts =
                app::assemble(&ground.config, ground.pool.clone(), ground.store.clone(), clock.clone());
            let (app, ready) = parts.unwrap();
            // As the engine's loop does before its first turn.
            app.fence.set(Uuid::nil(), 0, true).await;
            let work = Work { everything: true, ..Work::default() };
            replicas.push(Replica { app, ready, plan: Plan::default(), work, hints: VecDeque::new() });
        }
        let devices = (0..).zip(printers).map(|(index, spec)| Device::new(index, spec)).collect();
        Self {
            pool: ground.pool.clone(),
            clock,
            replicas,
            devices,
            hints: ground.listen(),
            memory: Memory::default(),
            closed: HashSet::new(),
            rows: Rows::read(&ground.pool).await,
        }
    }

    /// One operation, and all that must hold then.
    pub async fn step(&mut self, operation: &Operation) -> Checked {
        self.act(operation).await?;
        self.holds().await
    }

    async fn holds(&mut self) -> Checked {
        self.hear().await;
        let rows = Rows::read(&self.pool).await;
        let fresh = self.replicas.iter().all(|replica| replica.hints.is_empty());
        let before = std::mem::replace(&mut self.rows, rows);
        check::state(&self.rows, &self.memory, self.clock.now())?;
        check::transition(&before, &self.rows, &self.memory, fresh)
    }

    /// Waits for the hints of what was committed so far.
    async fn hear(&mut self) {
        let mark = Uuid::now_v7();
        push::notify(&mut self.pool.acquire().await.unwrap(), Hint::Rollout(mark)).await.unwrap();
        loop {
            match self.hints.recv().await.unwrap() {
                Hint::Rollout(id) if id == mark => return,
                hint => self.replicas.iter_mut().for_each(|replica| replica.hints.push_back(hint)),
            }
        }
    }

    async fn turn(&mut self, index: usize, why: Turn) {
        let replica = &mut self.replicas[index];
        while let Ok(printer) = replica.ready.try_recv() {
            replica.work.printers.insert(printer);
        }
        if !matches!(why, Turn::Ready) {
            for hint in replica.hints.drain(..) {
                replica.app.engine.heed(hint, &mut replica.work);
            }
        }
        if matches!(why, Turn::Timer) {
            (replica.work.scan, replica.work.everything) = (true, true);
        }
        let work = std::mem::take(&mut replica.work);
        replica.app.engine.turn(&mut replica.plan, &work).await.unwrap();
    }

    async fn deliver(&mut self, printer: usize) -> Checked {
        let frames = self.devices[printer].deliver().await;
        if !frames.is_empty() {
            let rows = Rows::read(&self.pool).await;
            for frame in frames {
                check::may_leave(&self.closed, &rows, frame.update)?;
                self.memory.written.insert(frame.update);
            }
        }
        Ok(())
    }

    async fn connect(&mut self, printer: u8, replica: usize, runs: Runs) {
        let device = &mut self.devices[usize::from(printer)];
        device.boot(runs);
        device.connect(&self.replicas[replica].app).await;
    }

    /// Of the rollouts that were not deleted.
    fn nth(&self, nth: u8) -> Option<Rollout> {
        let count = self.rows.rollouts.len();
        (count > 0).then(|| self.rows.rollouts[usize::from(nth) % count].clone())
    }

    /// What the handlers do once a rollout was changed: the fence here, and everywhere else before the answer.
    async fn changed(&mut self, at: usize, rollout: &Rollout) {
        self.replicas[at].app.engine.changed(rollout).await;
        self.replicas[at].work.scan = true;
        self.hear().await;
        self.turn(1 - at, Turn::Heard).await;
        // One that is pending may start by itself.
        if matches!(rollout.status, Status::Paused | Status::Cancelled) {
            self.closed.insert(rollout.id.0);
        } else {
            self.closed.remove(&rollout.id.0);
        }
    }

    async fn status(&mut self, at: usize, nth: u8, status: Option<Status>, percentage: Option<u8>) {
        let Some(rollout) = self.nth(nth) else { return };
        let wanted = Change { status, percentage, if_revision: None };
        if let Ok(rollout) =
            rollouts::change(&self.pool, &Caller::admin("test"), handle(&rollout), wanted, self.clock.now())
                .await
        {
            self.changed(at, &rollout).await;
        }
    }

    async fn act(&mut self, operation: &Operation) -> Checked {
        let now = self.clock.now();
        match operation {
            Operation::Connect(printer, replica, runs) => self.connect(*printer, *replica, *runs).await,
            Operation::Again(printer, runs) => {
                let device = &mut self.devices[usize::from(*printer)];
                device.boot(*runs);
                device.subscribe_again().await;
            }
            Operation::Mind(printer, channel, auto_update) => {
                let device = &mut self.devices[usize::from(*printer)];
                (device.channel, device.auto_update) = (*channel, *auto_update);
            }
            Operation::Report(printer, newest, said, about) => {
                self.devices[usize::from(*printer)].report(*newest, *said, *about).await;
            }
            Operation::Lose(printer, newest, let_go) => {
                self.devices[usize::from(*printer)].lose(*newest, *let_go).await;
            }
            Operation::Deliver(printer) => self.deliver(usize::from(*printer)).await?,
            Operation::Stuck(printer) => self.stuck(usize::from(*printer)).await,
            Operation::Course(printer, replica, outcome) => self.course(*printer, *replica, *outcome).await?,
            Operation::Create(at, spec) => self.create(*at, spec).await,
            Operation::Pause(at, nth) => self.status(*at, *nth, Some(Status::Paused), None).await,
            Operation::Resume(at, nth) => self.status(*at, *nth, Some(Status::Active), None).await,
            Operation::Cancel(at, nth) => self.status(*at, *nth, Some(Status::Cancelled), None).await,
            Operation::Percentage(at, nth, to) => self.status(*at, *nth, None, Some(*to)).await,
            Operation::Advance(at, nth) => {
                if let Some(rollout) = self.nth(*nth)
                    && let Ok(rollout) =
                        rollouts::advance(&self.pool, &Caller::admin("test"), handle(&rollout), now).await
                {
                    self.changed(*at, &rollout).await;
                }
            }
            Operation::Retry(at, nth) => self.retry(*at, *nth).await?,
            Operation::Undo(at, nth, to) => {
                if let Some(rollout) = self.nth(*nth)
                    && let Ok((rollout, back)) = rollouts::undo(
                        &self.pool,
                        &Caller::admin("test"),
                        handle(&rollout),
                        to.map(version),
                        now,
                    )
                    .await
                {
                    self.changed(*at, &rollout).await;
                    for back in back {
                        self.changed(*at, &back).await;
                    }
                }
            }
            Operation::Delete(at, nth) => {
                if let Some(rollout) = self.nth(*nth)
                    && let Ok(rollout) =
                        rollouts::delete(&self.pool, &Caller::admin("test"), handle(&rollout), now).await
                {
                    self.changed(*at, &rollout).await;
                }
            }
            Operation::Force(printer, to, allow_downgrade) => {
                let id = &self.devices[usize::from(*printer)].id;
                if let Some(row) = self.rows.printers.iter().find(|row| row.printer_id == *id) {
                    let wanted =
                        Force { version: version(to), channel: None, allow_downgrade: *allow_downgrade };
                    let _ =
                        rollouts::force(&self.pool, &Caller::admin("test"), PrinterRef(row.id), wanted, now)
                            .await;
                }
            }
            Operation::Amend(release, deprecated) => {
                let (at, channel, platform, ..) = RELEASES[*release];
                let by = Selector { version: version(at), channel: Some(channel), platform };
                let wanted = Amendment { deprecated: Some(*deprecated), ..Amendment::default() };
                firmware::amend(&self.pool, &Caller::admin("test"), &by, wanted, now).await.unwrap();
                self.hear().await;
                self.turn(0, Turn::Heard).await;
                self.turn(1, Turn::Heard).await;
            }
            Operation::Pass(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
            Operation::Turn(replica, why) => self.turn(*replica, *why).await,
            Operation::Look(all) => self.look(*all).await?,
            Operation::Expire(replica) => jobs::expire(&self.replicas[*replica].app).await.unwrap(),
            Operation::Fold => {
                rollouts::fold(&mut self.pool.acquire().await.unwrap()).await.unwrap();
            }
        }
        Ok(())
    }

    /// Writing to the newest socket fails.
    async fn stuck(&mut self, printer: usize) {
        let device = &mut self.devices[printer];
        if let Some(socket) = device.sockets.last_mut()
            && socket.queue.try_recv().is_ok()
        {
            device.lose(true, false).await;
        }
    }

    async fn course(&mut self, printer: u8, replica: usize, outcome: Outcome) -> Checked {
        let index = usize::from(printer);
        if self.devices[index].sockets.is_empty() {
            self.connect(printer, replica, Runs::Same).await;
            return Ok(());
        }
        self.deliver(index).await?;
        let device = &mut self.devices[index];
        match outcome {
            Outcome::Installs => {}
            Outcome::Completes => {
                device.report(true, Said::Progress(50), About::Nothing).await;
                device.report(true, Said::Complete, About::Offered).await;
            }
            Outcome::Fails => {
                device.report(true, Said::Failed, About::Offered).await;
                return Ok(());
            }
            Outcome::Declines => {
                device.report(true, Said::Declined, About::Offered).await;
                return Ok(());
            }
            Outcome::RollsBack | Outcome::Bricks => {
                device.report(true, Said::Progress(10), About::Nothing).await;
            }
        }
        device.lose(true, true).await;
        match outcome {
            Outcome::Installs | Outcome::Completes => self.connect(printer, replica, Runs::Offered).await,
            Outcome::RollsBack => self.connect(printer, replica, Runs::Same).await,
            _ => {}
        }
        Ok(())
    }

    async fn create(&mut self, at: usize, spec: &RolloutSpec) {
        let wanted = spec.wanted(self.clock.now());
        if self.rows.rollouts.len() < ROLLOUTS
            && let Ok(rollout) =
                rollouts::create(&self.pool, &Caller::admin("test"), wanted, 3, self.clock.now()).await
        {
            self.replicas[at].app.engine.changed(&rollout).await;
            self.replicas[at].work.scan = true;
        }
    }

    async fn retry(&mut self, at: usize, nth: u8) -> Checked {
        let Some(rollout) = self.nth(nth) else { return Ok(()) };
        let lasts = self.rows.printers.iter();
        let lasts = lasts.filter_map(|printer| self.rows.last(&self.memory, rollout.id.0, printer.id));
        let used_up = |update: &&super::rows::UpdateRow| {
            update.status == "failed" && update.tries.unsigned_abs() >= rollout.max_attempts
        };
        let used_up: Vec<_> = lasts.filter(used_up).map(|update| update.id).collect();
        if let Ok((rollout, forgiven)) =
            rollouts::retry_failed(&self.pool, &Caller::admin("test"), handle(&rollout)).await
        {
            check::ensure!(forgiven == used_up.len() as u64, "{forgiven} forgiven instead of {used_up:?}");
            self.memory.forgiven.extend(used_up);
            self.replicas[at].app.steward.moved(rollout.id);
        }
        Ok(())
    }

    /// Everybody behaves from here on, and time passes: what may be offered is taken, and nobody stays pending.
    pub async fn comes_to_rest(&mut self) -> Checked {
        for _ in 0..REST {
            self.clock.advance(Duration::from_secs(DAY));
            for printer in 0..self.devices.len() {
                if self.devices[printer].sockets.is_empty() {
                    self.devices[printer].connect(&self.replicas[printer % 2].app).await;
                }
            }
            for replica in 0..2 {
                jobs::expire(&self.replicas[replica].app).await.unwrap();
                self.turn(replica, Turn::Timer).await;
            }
            self.holds().await?;
            for printer in 0..self.devices.len() {
                self.deliver(printer).await?;
                let device = &mut self.devices[printer];
                if device.offered.is_some() {
                    device.lose(true, true).await;
                    device.boot(Runs::Offered);
                    device.connect(&self.replicas[printer % 2].app).await;
                }
            }
            self.step(&Operation::Look(true)).await?;
            if self.waits().is_none() {
                return Ok(());
            }
        }
        let rollout = self.waits();
        Err(format!(
            "nobody would have to wait, but {:?} of {rollout:?}",
            rollout.map(|of| &self.rows.counters[&of.id])
        ))
    }

    /// A rollout that could serve everyone and yet has somebody pending.
    fn waits(&self) -> Option<&Rollout> {
        let serves_all = |rollout: &&Rollout| {
            rollout.status.offers() && rollout.percentage == 100 && rollout.steps.is_none()
        };
        self.rows
            .rollouts
            .iter()
            .filter(serves_all)
            .find(|rollout| self.rows.counters[&rollout.id].pending > 0)
    }

    async fn look(&mut self, all: bool) -> Checked {
        let mut news = HashSet::new();
        for replica in &self.replicas {
            news.extend(replica.app.steward.news());
        }
        let depth = if all { Depth::All } else { Depth::News };
        look(&self.pool, &news, depth, self.clock.now()).await.unwrap();
        if all {
            // A look may take one step of a rollout, and only the one after the last lets it rest.
            for _ in 0..LOOKS {
                look(&self.pool, &news, depth, self.clock.now()).await.unwrap();
            }
            check::rested(&Rows::read(&self.pool).await)?;
        }
        Ok(())
    }
}

fn handle(rollout: &Rollout) -> Handle {
    Handle::Number(rollout.number)
}
