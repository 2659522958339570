//! The same parts at once: engines, stewards, printers and an operator, as they run in production, and in between
//! somebody who compares what the tables say at one moment.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paperminder_ota::app;
use paperminder_ota::auth::Caller;
use paperminder_ota::clock::Clock;
use paperminder_ota::firmware::{self, Amendment, Selector};
use paperminder_ota::ids::{Handle, PrinterRef, UpdateId};
use paperminder_ota::jobs;
use paperminder_ota::printers;
use paperminder_ota::push::{self, Hint};
use paperminder_ota::rollouts::{self, Change, Force, Plan, Rollout, Status, Work};
use paperminder_ota::state::AppState;
use paperminder_ota::updates;
use paperminder_ota::words::{Channel, Platform};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngSeed, TestRunner};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::check;
use super::fleet::{Device, Written};
use super::operations::{
    self, About, Outcome, PrinterSpec, RELEASES, Runs, Said, Spread, TargetSpec, VERSIONS,
};
use super::reference::Memory;
use super::rows::{Rows, version};
use super::world::{Ground, clock};
use crate::support::config;

/// How long it goes on.
const LASTS: Duration = Duration::from_secs(5);
/// The clock that the replicas go by is so much faster than ours.
const FASTER: u32 = 600;
/// Rollouts at the start.
const ROLLOUTS: u32 = 5;
/// Of these, the limited ones.
const LIMITED: u32 = 3;
const PRINTERS: u8 = 24;
/// Printers of which there are two that say they are the same, and what they run differs.
const TWINS: u8 = 8;

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

/// What a printer reports and what it says at its next subscribe are two transactions; the census counts both together.
#[sqlx::test]
async fn a_report_and_a_subscribe_at_the_same_moment_are_both_counted(pool: PgPool) {
    let config = config(&pool, "http://127.0.0.1:1", Ground::settings());
    let ground = Ground::new(config).await;
    for outcome in
        [updates::Outcome::Complete, updates::Outcome::Failed { error: None }, updates::Outcome::Declined]
    {
        let clock = clock();
        ground.clear(&clock).await;
        let parts = app::assemble(&ground.config, ground.pool.clone(), ground.store.clone(), clock.clone());
        let app = parts.unwrap().0;
        create(&app, &mut Chance::new(1), true).await;
        let spec = PrinterSpec {
            platform: Platform::Esp8266,
            channel: Channel::Stable,
            auto_update: true,
            runs: "1.0.5",
        };
        let mut device = Device::new(0, &spec);
        device.connect(&app).await;
        let work = Work { scan: true, ..Work::default() };
        app.engine.turn(&mut Plan::default(), &work).await.unwrap();
        let rows = Rows::read(&ground.pool).await;
        let (update, printer) = (rows.updates[0].id, rows.updates[0].printer);

        let mut tx = ground.pool.begin().await.unwrap();
        printers::hold(&mut tx, &[PrinterRef(printer)]).await.unwrap();
        let outcomes = [(UpdateId(update), &outcome, None)];
        let changed = updates::report(&mut tx, &outcomes, clock.now()).await.unwrap();
        assert!(changed.contains(&UpdateId(update)));
        device.boot(Runs::Other("1.1.0"));
        let elsewhere = app.clone();
        let subscribing = tokio::spawn(async move { device.connect(&elsewhere).await });
        sleep(Duration::from_millis(100)).await;
        tx.commit().await.unwrap();
        subscribing.await.unwrap();
        moment(&ground.pool, &clock).await;
    }
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
    for index in 0..ROLLOUTS {
        create(&apps[0], &mut chance, index < LIMITED).await;
    }
    let closed = Closed::default();
    let ends = Instant::now() + LASTS;
    let mut busy = JoinSet::new();
    for index in (0..PRINTERS).chain(0..TWINS) {
        let seed = 100 + busy.len() as u64;
        busy.spawn(printer(index, seed, apps.clone(), closed.clone(), ends));
    }
    busy.spawn(operator(apps.clone(), closed.clone(), ends));
    busy.spawn(time_passes(apps[1].clone(), ends));
    let mut moments = 0;
    while Instant::now() < ends {
        sleep(Duration::from_millis(30)).await;
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
    assert!(moments > 5 && rows.updates.len() > 5, "{moments} moments, {} attempts", rows.updates.len());
}

/// A rollout; a limited one is for everyone, so that each replica would like to offer more than it may.
async fn create(app: &AppState, chance: &mut Chance, limited: bool) {
    let mut spec = chance.of(operations::rollout());
    if limited {
        spec.max_in_flight = Some(chance.of(1..4u32));
        (spec.spread, spec.target, spec.channel) = (Spread::Immediate, TargetSpec::everyone(), None);
        (spec.allow_downgrade, spec.abort_on, spec.ends_in) = (true, None, None);
    }
    let now = app.clock.now();
    if let Ok(rollout) = rollouts::create(&app.pool, &Caller::admin("test"), spec.wanted(now), 3, now).await {
        app.engine.changed(&rollout).await;
    }
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

async fn printer(index: u8, seed: u64, apps: Vec<AppState>, closed: Closed, ends: Instant) {
    let mut chance = Chance::new(seed);
    let mut device = Device::new(index, &chance.of(operations::printer()));
    while Instant::now() < ends {
        if device.sockets.len() < 1 + usize::from(chance.of(0..10u8) == 0) {
            device.connect(&apps[chance.of(0..2usize)]).await;
        }
        let Some(socket) = device.sockets.last_mut() else { continue };
        let patience = Duration::from_millis(chance.of(20..200u64));
        let Ok(Some(out)) = timeout(patience, socket.queue.recv()).await else {
            if chance.of(0..8u8) == 0 {
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
        let newest = sqlx::query_as(
            "select id, number from update_rollouts where status <> 'cancelled' order by number desc limit 5",
        );
        let newest: Vec<(Uuid, i64)> = newest.fetch_all(&app.pool).await.unwrap();
        let Some((id, number)) = newest.get(chance.of(0..ROLLOUTS as usize)).copied() else {
            create(app, &mut chance, true).await;
            continue;
        };
        let (handle, now) = (Handle::Number(number), app.clock.now());
        let tester = Caller::admin("test");
        let change = |status, percentage| {
            rollouts::change(
                &app.pool,
                &tester,
                handle,
                Change { status, percentage, if_revision: None },
                now,
            )
        };
        match chance.of(0..16u8) {
            0..2 => note(&apps, &closed, change(Some(Status::Paused), None).await).await,
            2..7 => {
                closed.lock().unwrap().remove(&id);
                note(&apps, &closed, change(Some(Status::Active), None).await).await;
            }
            7 => note(&apps, &closed, change(None, Some(chance.of(0..=100u8))).await).await,
            8 => drop(rollouts::retry_failed(&app.pool, &Caller::admin("test"), handle).await),
            9 => drop(rollouts::advance(&app.pool, &Caller::admin("test"), handle, now).await),
            10 => {
                let any = sqlx::query_scalar("select id from printers order by random() limit 1");
                let Some(printer) = any.fetch_optional(&app.pool).await.unwrap().map(PrinterRef) else {
                    continue;
                };
                let version = version(VERSIONS[chance.of(0..VERSIONS.len())]);
                let _ = rollouts::force(
                    &app.pool,
                    &Caller::admin("test"),
                    printer,
                    Force { version, channel: None, allow_downgrade: true },
                    now,
                )
                .await;
            }
            11..14 => {
                note(&apps, &closed, change(Some(Status::Cancelled), None).await).await;
                let limited = chance.of(0..3u8) > 0;
                create(app, &mut chance, limited).await;
            }
            _ => {
                let (at, channel, platform, ..) = RELEASES[chance.of(0..RELEASES.len())];
                let by = Selector { version: version(at), channel: Some(channel), platform };
                let wanted = Amendment { deprecated: Some(chance.of(0..3u8) == 0), ..Amendment::default() };
                firmware::amend(&app.pool, &Caller::admin("test"), &by, wanted, now).await.unwrap();
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
