//! Replicas that die, and replicas that are replaced.

use std::time::Duration;

use paperminder_ota::simulate::{
    Behaviour, Error, Fate, Fleet, FleetOptions, Printer, PrinterOptions, Summary,
};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use super::history::Change;
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
    let rollout = world.rollout_to_most(&world.base(0), "1.5.0", &fleet, IN_FLIGHT).await;
    let watch = world.watch(&fleet, Some((world.base(2), rollout)));
    for (replica, percent) in [(0, 10), (1, 50), (2, 90)] {
        let enough = |fleet: &Summary| fleet.running("1.5.0") as u64 * 100 >= percent * PRINTERS;
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
    world.to_the_others(&world.base(1), rollout).await;
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
    let rollout = world.rollout_to_most(&world.base(0), "1.5.0", &fleet, IN_FLIGHT).await;
    let watch = world.watch(&fleet, Some((world.base(2), rollout)));
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
    world.to_the_others(&world.base(1), rollout).await;
    world.rests(&world.base(1), rollout, PRINTERS).await;
    drop(watch);
    let fleet = fleet.stop().await;
    assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    let history = world.history().await;
    check(&history);
    check_end(&history, "1.5.0", PRINTERS as usize);
    world.end().await;
}

/// A close of ours and a report of the printer's may pass each other on their way.
#[sqlx::test]
async fn what_a_printer_says_before_it_reads_the_close_is_written_down(pool: PgPool) {
    let mut world = World::of(&pool, 1, &[]).await;
    let here = world.base(0);
    world.release(&here, "1.5.0").await;
    let mut printer = Printer::online(world.printer(0)).await.unwrap();
    world.rollout(&here, "1.5.0", json!({})).await;
    printer.next_offer(SOON).await.unwrap();
    let replica = world.replicas[0].take().unwrap();
    replica.ask_to_end();
    // The close is here by then, and nobody has read it.
    sleep(Duration::from_millis(700)).await;
    printer.send_json(&json!({"kind": "firmware_failed", "error": "no"})).await.unwrap();
    let end = printer.next_message(SOON).await;
    assert!(matches!(end, Err(Error::Closed { code: Some(1001), .. })), "{end:?}");
    assert!(replica.ended().await.success());
    drop(printer);
    let history = world.history().await;
    check(&history);
    let failed = history.changes().filter(|(_, change)| {
        matches!(change, Change::Update(_, Some(update)) if update.status == "failed" && !update.open)
    });
    assert_eq!(failed.count(), 1, "the report is lost");
}
