//! The same parts at once: engines, stewards, printers and an operator, as they run in production, and in between
//! somebody who compares what the tables say at one moment.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paperminder_ota::app;
use paperminder_ota::clock::Clock;
use paperminder_ota::firmware::{self, Amendment, Selector};
use paperminder_ota::ids::{Handle, PrinterRef};
use paperminder_ota::jobs;
use paperminder_ota::push::{self, Hint};
use paperminder_ota::rollouts::{self, Change, Force, Rollout, Status};
use paperminder_ota::state::AppState;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngSeed, TestRunner};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::check;
use super::fleet::{Device, Written};
use super::operations::{self, About, Outcome, PRINTERS, RELEASES, Runs, Said, VERSIONS};
use super::reference::Memory;
use super::rows::{Rows, version};
use super::world::{Ground, clock};
use crate::support::config;

/// How long it goes on.
const LASTS: Duration = Duration::from_secs(5);
/// The clock that the replicas go by is so much faster than ours.
const FASTER: u32 = 600;
/// Rollouts at the start.
const ROLLOUTS: usize = 5;

/// Rollouts whose pause or cancel was answered, and that nobody is about to resume.
type Closed = Arc<Mutex<HashSet<Uuid>>>;

#[sqlx::test]
async fn everything_at_once_keeps_the_invariants(pool: PgPool) {
    let config = config(&pool, "http://127.0.0.1:1", Ground::settings());
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
        runtime.unwrap().block_on(async { race(&Ground::new(config).await).await });
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

/// Chance, the same in every run; what the machine makes of it is not.
struct Chance(TestRunner);

impl Chance {
    fn new(seed: u64) -> Self {
        let config = proptest::test_runner::Config { rng_seed: RngSeed::Fixed(seed), ..Default::default() };
        Self(TestRunner::new(config))
    }

    fn of<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}

async fn race(ground: &Ground) {
    let clock = clock();
    ground.clear(&clock).await;
    let mut running = JoinSet::new();
    let mut apps = Vec::new();
    for _ in 0..2 {
        let (app, ready) =
            app::assemble(&ground.config, ground.pool.clone(), ground.store.clone(), clock.clone()).unwrap();
        let stop = app.shutdown.hard.clone();
        running.spawn(app.engine.clone().run(ready, ground.listen(), stop.clone()));
        let (steward, pool, time) = (app.steward.clone(), app.pool.clone(), clock.clone());
        running.spawn(async move { steward.run(pool, time, stop).await });
        apps.push(app);
    }
    let mut chance = Chance::new(3);
    for _ in 0..ROLLOUTS {
        let wanted = chance.of(operations::rollout()).wanted(clock.now());
        if let Ok(rollout) = rollouts::create(&ground.pool, wanted, 3, clock.now()).await {
            apps[0].engine.changed(&rollout).await;
        }
    }
    let closed = Closed::default();
    let ends = Instant::now() + LASTS;
    let mut busy = JoinSet::new();
    for index in 0..PRINTERS {
        busy.spawn(printer(index, apps.clone(), closed.clone(), ends));
    }
    busy.spawn(operator(apps.clone(), closed.clone(), ends));
    busy.spawn(time_passes(apps[1].clone(), ends));
    let mut moments = 0;
    while Instant::now() < ends {
        moment(&ground.pool, &clock).await;
        moments += 1;
    }
    while let Some(done) = busy.join_next().await {
        done.unwrap();
    }
    let rows = moment(&ground.pool, &clock).await;
    apps.iter().for_each(|app| app.shutdown.hard.cancel());
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&ground.pool)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0, "nobody waits for one another");
    assert!(moments > 10 && rows.updates.len() > 20, "{moments} moments, {} attempts", rows.updates.len());
}

/// Compares what the tables say at one moment.
async fn moment(pool: &PgPool, clock: &Clock) -> Rows {
    let rows = Rows::read(pool).await;
    let mut memory = Memory::default();
    // Nothing follows an attempt that was the last possible, so only an operator can have made it count no more.
    for update in rows.updates.iter().filter(|update| update.status == "failed" && !update.last) {
        let rollout = rows.rollouts.iter().find(|rollout| Some(rollout.id.0) == update.rollout_id);
        if rollout.is_some_and(|rollout| update.tries.unsigned_abs() >= rollout.max_attempts) {
            memory.forgiven.insert(update.id);
        }
    }
    check::state(&rows, &memory, clock.now()).unwrap();
    rows
}

async fn printer(index: u8, apps: Vec<AppState>, closed: Closed, ends: Instant) {
    let mut chance = Chance::new(100 + u64::from(index));
    let mut device = Device::new(index, &chance.of(operations::printer()));
    while Instant::now() < ends {
        if device.sockets.len() < 1 + usize::from(chance.of(0..4u8) == 0) {
            device.connect(&apps[chance.of(0..2usize)]).await;
        }
        let Some(socket) = device.sockets.last_mut() else { continue };
        let patience = Duration::from_millis(chance.of(1..60u64));
        let Ok(Some(out)) = timeout(patience, socket.queue.recv()).await else {
            if chance.of(0..4u8) == 0 {
                device.lose(chance.of(0..2u8) == 0, chance.of(0..2u8) == 0).await;
            }
            continue;
        };
        let check = |frame: &push::Frame| {
            assert!(!closed.lock().unwrap().contains(&frame.rollout), "an offer left after the answer");
        };
        match socket.write(out, check).await {
            Written::Offer(frame) => device.sees(&frame),
            Written::Withdrawn => continue,
            Written::Replaced => {
                device.lose(true, false).await;
                continue;
            }
        }
        let outcome = chance.of(operations::outcome());
        match outcome {
            Outcome::Fails => device.report(true, Said::Failed, About::Offered).await,
            Outcome::Declines => device.report(true, Said::Declined, About::Offered).await,
            Outcome::Completes => device.report(true, Said::Complete, About::Nothing).await,
            Outcome::RollsBack => device.report(true, Said::Progress(50), About::Nothing).await,
            Outcome::Installs | Outcome::Bricks => {}
        }
        if matches!(outcome, Outcome::Fails | Outcome::Declines) {
            continue;
        }
        device.lose(true, true).await;
        match outcome {
            Outcome::Bricks => sleep(Duration::from_millis(chance.of(100..1000u64))).await,
            // Flashed back now and then, or there would soon be nothing to do.
            Outcome::Installs | Outcome::Completes if chance.of(0..3u8) > 0 => device.boot(Runs::Offered),
            _ => device.boot(Runs::Other(VERSIONS[chance.of(0..VERSIONS.len())])),
        }
    }
    while !device.sockets.is_empty() {
        device.lose(true, true).await;
    }
}

async fn operator(apps: Vec<AppState>, closed: Closed, ends: Instant) {
    let mut chance = Chance::new(7);
    while Instant::now() < ends {
        sleep(Duration::from_millis(chance.of(1..30u64))).await;
        let app = &apps[chance.of(0..2usize)];
        let rows = Rows::read(&app.pool).await;
        let rollout = &rows.rollouts[chance.of(0..rows.rollouts.len())];
        let (handle, now) = (Handle::Number(rollout.number), app.clock.now());
        let change = |status, percentage| {
            rollouts::change(&app.pool, handle, Change { status, percentage, if_revision: None }, now)
        };
        match chance.of(0..12u8) {
            0..3 => note(&apps, &closed, change(Some(Status::Paused), None).await).await,
            3..7 => {
                closed.lock().unwrap().remove(&rollout.id.0);
                note(&apps, &closed, change(Some(Status::Active), None).await).await;
            }
            7 => note(&apps, &closed, change(None, Some(chance.of(0..=100u8))).await).await,
            8 => drop(rollouts::retry_failed(&app.pool, handle).await),
            9 => drop(rollouts::advance(&app.pool, handle, now).await),
            10 => {
                let printer = PrinterRef(rows.printers[chance.of(0..rows.printers.len())].id);
                let version = version(VERSIONS[chance.of(0..VERSIONS.len())]);
                let _ = rollouts::force(
                    &app.pool,
                    printer,
                    Force { version, channel: None, allow_downgrade: true },
                    now,
                )
                .await;
            }
            _ => {
                let (at, channel, platform, ..) = RELEASES[chance.of(0..RELEASES.len())];
                let by = Selector { version: version(at), channel: Some(channel), platform };
                let wanted = Amendment { deprecated: Some(chance.of(0..3u8) == 0), ..Amendment::default() };
                firmware::amend(&app.pool, &by, wanted, now).await.unwrap();
            }
        }
    }
}

/// A change is answered once every replica has taken note of it.
async fn note(apps: &[AppState], closed: &Closed, changed: Result<Rollout, rollouts::Error>) {
    let Ok(rollout) = changed else { return };
    for app in apps {
        app.engine.changed(&rollout).await;
    }
    if !rollout.status.offers() {
        closed.lock().unwrap().insert(rollout.id.0);
    }
}

/// The clock, and what goes by it.
async fn time_passes(app: AppState, ends: Instant) {
    const TICK: Duration = Duration::from_millis(40);
    while Instant::now() < ends {
        sleep(TICK).await;
        app.clock.advance(TICK * FASTER);
        let mut conn = app.pool.acquire().await.unwrap();
        push::notify(&mut conn, Hint::Everything).await.unwrap();
        rollouts::fold(&mut conn).await.unwrap();
        drop(conn);
        jobs::expire(&app).await.unwrap();
    }
}
