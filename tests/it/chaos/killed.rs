//! Replicas that die, and replicas that are replaced.

use std::time::Duration;

use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions, PrinterOptions};
use serde_json::json;
use sqlx::PgPool;

use super::rules::{check, check_end};
use super::world::{REST, World};
use crate::support::SOON;

const PRINTERS: u64 = 60;
/// So that a rollout lasts for some seconds.
const IN_FLIGHT: u64 = 12;

/// Every fourth breaks off its first download, and reports it.
fn printer(world: &World, index: u64) -> PrinterOptions {
    let fails = if index.is_multiple_of(4) { vec![Fate::FailDownload] } else { Vec::new() };
    PrinterOptions {
        slow_bytes_per_second: Some(200 << 10),
        reports_failure: true,
        behaviour: Behaviour::Script(fails),
        ..world.printer(index)
    }
}

#[sqlx::test]
async fn a_replica_is_killed_at_10_50_and_90_percent_of_a_rollout(pool: PgPool) {
    let mut world = World::of(&pool, 3, &[]).await;
    world.release(&world.base(0), "1.5.0").await;
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| printer(&world, index))).unwrap();
    world.connected(&fleet, PRINTERS).await;
    let rollout = world.rollout(&world.base(0), "1.5.0", json!({"max_in_flight": IN_FLIGHT})).await;
    let watch = world.watch(&fleet, None);
    for (replica, percent) in [(0, 10), (1, 50), (2, 90)] {
        let enough = |fleet: &paperminder_ota::simulate::Summary| {
            fleet.running("1.5.0") as u64 * 100 >= percent * PRINTERS
        };
        fleet.wait_until(REST, enough).await.unwrap();
        let died = world.now();
        world.replicas[replica].take().unwrap().kill().await;
        assert!(
            fleet.snapshot().running("1.5.0") < PRINTERS as usize,
            "it was killed too late to prove anything"
        );
        world.start(replica, &[]).await;
        world.fault(&format!("replica {replica} was killed at {percent} %"), died);
    }
    world.rests(&world.base(1), rollout, PRINTERS).await;
    drop(watch);
    let fleet = fleet.stop().await;
    assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    let history = world.history().await;
    check(&history);
    check_end(&history, "1.5.0", PRINTERS as usize);
    world.end().await;
}

#[sqlx::test]
async fn replicas_are_replaced_one_after_another_under_load(pool: PgPool) {
    let settings = [("DRAIN_SECONDS", "1")];
    let mut world = World::of(&pool, 3, &settings).await;
    world.release(&world.base(0), "1.5.0").await;
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| printer(&world, index))).unwrap();
    world.connected(&fleet, PRINTERS).await;
    let rollout = world.rollout(&world.base(0), "1.5.0", json!({"max_in_flight": IN_FLIGHT})).await;
    let watch = world.watch(&fleet, None);
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") > 2).await.unwrap();
    for replica in 0..3 {
        assert!(
            fleet.snapshot().running("1.5.0") < PRINTERS as usize,
            "it was replaced too late to prove anything"
        );
        let asked = world.now();
        let old = world.replicas[replica].take().unwrap();
        old.ask_to_end();
        world.balancer.shun(replica);
        world.start(replica, &settings).await;
        let status = old.ended().await;
        assert!(status.success(), "replica {replica}: {status}");
        world.fault(&format!("replica {replica} was replaced"), asked);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.rests(&world.base(1), rollout, PRINTERS).await;
    drop(watch);
    let fleet = fleet.stop().await;
    assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    let history = world.history().await;
    check(&history);
    check_end(&history, "1.5.0", PRINTERS as usize);
    world.end().await;
}
