//! A replica that stands still for longer than its lease, in the worst of moments, and wakes up.

use std::time::{Duration, Instant};

use paperminder_ota::simulate::{Fleet, FleetOptions, PrinterOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use super::rules::{About, check, check_end};
use super::story;
use super::world::World;
use crate::support::SOON;
use crate::support::process::{database_url, server_url};
use crate::support::proxy::{Proxy, Target};

const PRINTERS: u64 = 45;
/// How long it stands still: four leases.
const FROZEN: Duration = Duration::from_secs(60);
/// The longest that anything may take meanwhile: a lease, and a busy machine.
const LEASE: Duration = Duration::from_secs(20);

/// Somebody began a transaction, holds a rollout or printers, and says nothing more.
const HOLDS: &str = "select exists (select 1 from pg_stat_activity a join pg_locks l using (pid) \
    where a.datname = current_database() and a.state = 'idle in transaction' and now() - a.state_change > interval '250 ms' \
      and l.relation in ('update_rollouts'::regclass, 'printers'::regclass) and l.mode = 'RowShareLock')";

#[sqlx::test]
async fn a_replica_that_was_frozen_for_a_minute_does_no_harm_when_it_wakes(pool: PgPool) {
    let wire = Proxy::start(Target::database(&pool)).await;
    let mut world = World::new(database_url(&pool), server_url(&pool).await, 3).await;
    world.start(0, &[]).await;
    world.start(1, &[("DATABASE_URL", &wire.database_url(&pool))]).await;
    world.start(2, &[]).await;
    let here = world.base(0);
    for version in ["1.5.0", "1.6.0"] {
        world.release(&here, version).await;
    }
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| PrinterOptions {
        slow_bytes_per_second: Some(200 << 10),
        ..world.printer(index)
    }))
    .unwrap();
    world.connected(&fleet, PRINTERS).await;
    let rollout = world.rollout_to_most(&here, "1.5.0", &fleet, 3).await;
    let watch = world.watch(&fleet, Some((here.clone(), rollout)));

    // It stops while it holds something: the database hears nothing more of a transaction that it began.
    let deadline = Instant::now() + SOON;
    loop {
        wire.mute();
        sleep(Duration::from_millis(300)).await;
        if sqlx::query_scalar(HOLDS).fetch_one(&pool).await.unwrap() {
            break;
        }
        wire.mend();
        assert!(Instant::now() < deadline, "it never holds anything");
        sleep(Duration::from_millis(50)).await;
    }
    let from = world.now();
    world.replica(1).freeze();
    let frozen = Instant::now();
    world.balancer.strand(1);
    assert!(fleet.snapshot().running("1.5.0") < PRINTERS as usize, "too late to prove anything");

    let took = world.ask(&here, rollout, "cancelled").await;
    println!("a cancel was answered after {took:?}");
    assert!(took < LEASE, "{took:?}");
    fleet.wait_until(SOON, |fleet| fleet.online >= PRINTERS - 3).await.unwrap();
    let next = world.rollout(&world.base(2), "1.6.0", json!({})).await;
    world.rests(&here, next, PRINTERS).await;
    let online = async || world.get(0, "/api/printers?online=true").await["total"].as_u64().unwrap();
    assert_eq!(online().await, PRINTERS);
    println!("everything is done without it after {:?}", frozen.elapsed());

    sleep(FROZEN.saturating_sub(frozen.elapsed())).await;
    let (before, attempts) = (world.balancer.washed_up().len(), attempts(&pool).await);
    wire.mend();
    world.replica(1).thaw();
    for step in 0..8 {
        sleep(Duration::from_millis(500)).await;
        if step == 3 {
            world.balancer.cut(1);
        }
        if online().await != PRINTERS {
            let gone = world.get(0, "/api/printers?online=false").await["printers"][0]["id"].clone();
            let about = About::Printer(gone.as_str().unwrap().parse().unwrap());
            panic!("those that live elsewhere stay online\n{}", story::of(&world.history().await, &about));
        }
    }
    let written = world.balancer.washed_up().split_off(before);
    assert!(!written.iter().any(|text| text.contains("firmware_update")), "{written:#?}");
    assert_eq!(self::attempts(&pool).await, attempts, "it began nothing");
    world.fault("replica 1 was frozen", from);

    // It is a replica like any other again.
    world.balancer.welcome(1);
    world.release(&here, "1.7.0").await;
    let last = world.rollout(&world.base(1), "1.7.0", json!({})).await;
    world.rests(&here, last, PRINTERS).await;
    drop(watch);
    let fleet = fleet.stop().await;
    assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    let history = world.history().await;
    check(&history);
    check_end(&history, "1.7.0", PRINTERS as usize);
    world.end().await;
}

async fn attempts(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from update_history").fetch_one(pool).await.unwrap()
}
