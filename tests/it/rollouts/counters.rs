//! Counters and the resting state.

use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions, Printer};
use serde_json::json;
use sqlx::PgPool;

use super::{check_sum, fleet, path};
use crate::support::{SOON, Server};

#[sqlx::test]
async fn every_printer_counts_once_by_its_last_attempt(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fates = [
        vec![Fate::Install],
        vec![Fate::Decline],
        vec![Fate::FailDownload, Fate::Install],
        vec![Fate::Corrupt, Fate::RollBack, Fate::Install],
        vec![Fate::FailDownload],
        vec![Fate::Install],
    ];
    let mut printers: Vec<_> = (0..)
        .zip(&fates)
        .map(|(i, fates)| {
            let mut printer = if i % 2 == 0 { server.printer(i) } else { server.device(i) };
            printer.behaviour = match fates.as_slice() {
                [only] => Behaviour::Always(*only),
                script => Behaviour::Script(script.to_vec()),
            };
            printer
        })
        .collect();
    // These can never be served, and keep nothing from completing.
    let mut newer = server.printer(10);
    newer.firmware_version = "2.0.0".into();
    let mut off = server.printer(11);
    off.auto_update = false;
    let mut foreign = server.printer(12);
    foreign.identity.platform = Some("esp32".into());
    printers.extend([newer, off, foreign]);
    let fleet = Fleet::start(FleetOptions::from(printers)).unwrap();
    fleet.wait_until(SOON, |fleet| fleet.subscribes >= 9).await.unwrap();
    let path = path(
        &server
            .rollout(
                json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}),
            )
            .await,
    );
    let rollout = server
        .wait(&path, |rollout| {
            check_sum(rollout);
            rollout["status"] == "completed" && rollout["confirmed_count"] == 4
        })
        .await;
    let counts = ["total_targets", "completed_count", "failed_count", "declined_count", "pending_count"]
        .map(|name| rollout[name].as_i64().unwrap());
    assert_eq!(counts, [6, 4, 1, 1, 0]);
    assert_eq!(
        rollout["excluded"],
        json!({"auto_update_off": 1, "no_release_for_platform": 1, "not_older": 1})
    );
    assert_eq!(rollout["targets_total"], 6);
    let failed = server.get(&format!("{path}?target_status=failed")).await.expect(200);
    assert_eq!((&failed["targets_total"], &failed["targets"][0]["attempt"]), (&json!(1), &json!(3)));
    let release = server.get("/api/firmware/1.5.0").await.expect(200);
    assert_eq!(
        (&release["success_count"], release["failure_count"].as_i64().unwrap() >= 6),
        (&json!(4), true),
        "{release}"
    );
    assert_eq!(fleet.stop().await.double_offers, 0);
    server.stop().await;
}

#[sqlx::test]
async fn a_completed_rollout_wakes_for_a_printer_that_appears_later(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fleet = fleet(&server, 3).await;
    let path = path(&server.rollout(json!({"firmware_version": "1.5.0", "target": {"channels": ["stable"]}, "rollout_type": "immediate"})).await);
    server.wait(&path, |rollout| rollout["status"] == "completed").await;
    let mut late = Printer::online(server.printer(100)).await.unwrap();
    late.next_offer(SOON).await.unwrap();
    let rollout = server.wait(&path, |rollout| rollout["status"] == "active").await;
    assert_eq!((&rollout["total_targets"], &rollout["pending_count"]), (&json!(4), &json!(1)));
    drop(fleet);
    server.stop().await;
}

#[sqlx::test]
async fn a_rollout_without_a_printer_is_not_completed(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let rollout = server.rollout(json!({"firmware_version": "1.5.0", "target": {"channels": ["beta"]}, "rollout_type": "immediate"})).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let rollout = server.get(&path(&rollout)).await.expect(200);
    assert_eq!((&rollout["status"], &rollout["total_targets"]), (&json!("active"), &json!(0)));
    server.stop().await;
}

#[sqlx::test]
async fn of_two_rollouts_the_higher_version_is_offered(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.9.0", "stable").await;
    server.release("1.10.0", "stable").await;
    for version in ["1.10.0", "1.9.0"] {
        server
            .rollout(
                json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "immediate"}),
            )
            .await;
    }
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    assert_eq!(&*printer.next_offer(SOON).await.unwrap().version, "1.10.0");
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_gets_the_release_of_its_own_channel(pool: PgPool) {
    let server = Server::start(pool).await;
    let (stable, beta) = (server.release("1.5.0", "stable").await, server.release("1.5.0", "beta").await);
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    for (channel, release) in [("stable", &stable), ("beta", &beta), ("canary", &stable)] {
        let mut options = server.printer(channel.len() as u64);
        options.identity.channel = channel.into();
        let mut printer = Printer::online(options).await.unwrap();
        assert_eq!(
            printer.next_offer(SOON).await.unwrap().md5.as_deref(),
            release["md5"].as_str(),
            "{channel}"
        );
    }
    server.stop().await;
}
