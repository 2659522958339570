//! Down to an older version: only when the rollout says so, or when what a printer runs was withdrawn.

use paperminder_ota::simulate::Fate;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{QUIET, known, on, path, printers, says, to_all};
use crate::support::{SOON, Server};

#[sqlx::test]
async fn allow_downgrade_takes_everybody_to_the_version(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let versions = ["1.0.0", "1.5.0", "1.6.0-rc.1", "2.0.0"];
    let all = (0..).zip(versions).map(|(index, version)| on(server.printer(index), version)).collect();
    let fleet = known(&server, all).await;
    let up = path(&server.rollout(to_all("1.5.0", json!({}))).await);
    server.wait(&up, |rollout| rollout["confirmed_count"] == 1).await;
    tokio::time::sleep(QUIET).await;
    says(
        &server.get(&up).await.expect(200),
        json!({"total_targets": 1, "excluded": {"not_older": 2, "runs_it": 1}}),
    );
    let down = server.rollout(to_all("1.5.0", json!({"allow_downgrade": true}))).await;
    says(&down, json!({"allow_downgrade": true, "total_targets": 2, "excluded": {"runs_it": 2}}));
    let done = |rollout: &Value| rollout["status"] == "completed" && rollout["confirmed_count"] == 2;
    server.wait(&path(&down), done).await;
    let fleet = fleet.stop().await;
    assert_eq!((fleet.running("1.5.0"), fleet.offers, fleet.double_offers), (4, 3, 0));
    server.stop().await;
}

#[sqlx::test]
async fn a_deprecated_release_lets_its_printers_go_down(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.release("2.0.0", "stable").await;
    // One got 2.0.0 from a rollout, one came with it, and one has what this server never had.
    let fleet = known(
        &server,
        vec![server.device(0), on(server.printer(1), "2.0.0"), on(server.printer(2), "2.1.0")],
    )
    .await;
    let up = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    server.wait(&up, |rollout| rollout["confirmed_count"] == 1).await;
    let down = path(&server.rollout(to_all("1.5.0", json!({}))).await);
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().running("1.5.0"), 0);
    server.patch("/api/firmware/2.0.0?channel=stable", &json!({"deprecated": true})).await.expect(200);
    server.wait(&down, |rollout| rollout["confirmed_count"] == 2).await;
    tokio::time::sleep(QUIET).await;
    let fleet = fleet.stop().await;
    assert_eq!((fleet.running("1.5.0"), fleet.running("2.1.0")), (2, 1));
    server.stop().await;
}

#[sqlx::test]
async fn a_cancelled_rollout_lets_the_printers_that_it_updated_go_down_at_once(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.release("2.0.0", "stable").await;
    let mut all = printers(&server, 0, 4, "1.0.0", Fate::Install);
    all.push(on(server.printer(4), "2.0.0"));
    let fleet = known(&server, all).await;
    let bad = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    server.wait(&bad, |rollout| rollout["confirmed_count"] == 4).await;
    let good = path(&server.rollout(to_all("1.5.0", json!({}))).await);
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().running("1.5.0"), 0, "2.0.0 stands");
    server.patch(&bad, &json!({"status": "cancelled"})).await.expect(200);
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") == 4).await.unwrap();
    server.wait(&good, |rollout| rollout["confirmed_count"] == 4 && rollout["status"] == "completed").await;
    assert_eq!(fleet.stop().await.running("2.0.0"), 1, "who had it from elsewhere keeps it");
    server.stop().await;
}

#[sqlx::test]
async fn a_paused_rollout_withdraws_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.release("2.0.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 2, "1.0.0", Fate::Install)).await;
    let held = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    server.wait(&held, |rollout| rollout["confirmed_count"] == 2).await;
    server.patch(&held, &json!({"status": "paused"})).await.expect(200);
    server.rollout(to_all("1.5.0", json!({}))).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.stop().await.running("2.0.0"), 2);
    server.stop().await;
}
