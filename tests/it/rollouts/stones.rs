//! Stepping stones: a printer below `min_upgrade_version` first gets what it can take.

use paperminder_ota::simulate::Fate;
use paperminder_ota::simulate::image::esp8266_image;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{check_sum, known, on, path, printers, says, to_all, was_here};
use crate::support::{SOON, Server};

/// A release that can only be taken from a version on.
async fn release_from(server: &Server, version: &str, least: &str, mandatory: bool) {
    let seed = version.bytes().fold(1u64, |seed, byte| seed * 31 + u64::from(byte));
    let mandatory = mandatory.to_string();
    let fields = [("version", version), ("min_upgrade_version", least), ("mandatory", &mandatory)];
    server.upload_bytes(esp8266_image(20 << 10, seed), &fields).await.expect(201);
}

/// The versions that a printer was offered, the first one first.
fn way(updates: &Value) -> Vec<&str> {
    let updates = updates["updates"].as_array().unwrap().iter().rev();
    updates.map(|update| update["firmware_version"].as_str().unwrap()).collect()
}

#[sqlx::test]
async fn a_printer_goes_over_as_many_stones_as_it_takes_and_counts_once(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.1.0", "stable").await;
    server.release("1.2.0", "stable").await;
    release_from(&server, "1.5.0", "1.2.0", false).await;
    release_from(&server, "2.0.0", "1.5.0", false).await;
    let mut all = printers(&server, 0, 4, "1.0.0", Fate::Install);
    all.push(on(server.printer(4), "1.5.0"));
    let fleet = known(&server, all).await;
    let path = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    let done = |rollout: &Value| {
        check_sum(rollout);
        assert_eq!(rollout["total_targets"], 5, "each counts once, wherever it is: {rollout}");
        rollout["status"] == "completed" && rollout["confirmed_count"] == 5
    };
    let rollout = server.wait(&path, done).await;
    says(&rollout, json!({"completed_count": 5, "failed_count": 0, "excluded": {}, "targets_total": 5}));
    for printer in fleet.printers() {
        let updates = server.get(&format!("/api/printers/{}/updates", printer.id())).await.expect(200);
        let far = printer.id() == fleet.printers()[4].id();
        assert_eq!(way(&updates), if far { &["2.0.0"][..] } else { &["1.2.0", "1.5.0", "2.0.0"] });
        for update in updates["updates"].as_array().unwrap() {
            says(update, json!({"rollout_number": 1, "status": "completed", "open": false}));
        }
    }
    assert_eq!(fleet.stop().await.double_offers, 0);
    server.stop().await;
}

#[sqlx::test]
async fn a_stone_on_the_way_completes_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    release_from(&server, "2.0.0", "1.5.0", false).await;
    let (options, printer) = was_here(&server, server.printer(1)).await;
    let rollout = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    let why = server.get(&format!("{printer}/explain")).await.expect(200);
    says(&why, json!({"outcome": "offer", "rollout": 1, "reason": null}));
    says(&why["rollouts"][0], json!({"offers_version": "1.5.0", "firmware_version": "2.0.0"}));
    assert!(why["detail"].as_str().unwrap().contains("stepping stone"), "{why}");

    let mut first = super::online(&server, options.clone()).await;
    assert_eq!(&*first.next_offer(SOON).await.unwrap().version, "1.5.0");
    first.drop_hard();
    let mut second = super::online(&server, on(options, "1.5.0")).await;
    assert_eq!(&*second.next_offer(SOON).await.unwrap().version, "2.0.0");
    let now = server.get(&rollout).await.expect(200);
    says(
        &now,
        json!({"status": "active", "completed_count": 0, "confirmed_count": 0, "pending_count": 1, "total_targets": 1}),
    );
    server.stop().await;
}

#[sqlx::test]
async fn a_stone_that_fails_is_tried_again_like_the_release(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    release_from(&server, "2.0.0", "1.5.0", false).await;
    let fleet = known(&server, printers(&server, 0, 2, "1.0.0", Fate::FailDownload)).await;
    let path = path(&server.rollout(to_all("2.0.0", json!({"max_attempts": 2}))).await);
    let rollout = server.wait(&path, |rollout| rollout["failed_count"] == 2).await;
    check_sum(&rollout);
    assert_eq!(fleet.stop().await.offers, 4);
    server.stop().await;
}

#[sqlx::test]
async fn where_no_stone_lies_the_printer_is_excluded(pool: PgPool) {
    let server = Server::start(pool).await;
    // On beta, or itself out of reach.
    server.release("1.5.0", "beta").await;
    release_from(&server, "1.6.0", "1.5.0", false).await;
    release_from(&server, "2.0.0", "1.5.0", false).await;
    let fleet = known(&server, vec![server.printer(1)]).await;
    let path = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    tokio::time::sleep(super::QUIET).await;
    says(
        &server.get(&path).await.expect(200),
        json!({"total_targets": 0, "status": "active", "excluded": {"below_min_upgrade_version": 1}}),
    );
    server.release("1.5.0", "stable").await;
    fleet.wait_until(SOON, |fleet| fleet.running("2.0.0") == 1).await.unwrap();
    fleet.stop().await;
    server.stop().await;
}
