//! `POST …/retry-failed`: another try for printers that failed for good.

use paperminder_ota::simulate::{Behaviour, Fate};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{QUIET, check_sum, known, path, printers, says, tells, to_all};
use crate::support::Server;

#[sqlx::test]
async fn who_failed_for_good_is_tried_again_and_counts_once(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut all = printers(&server, 0, 4, "1.0.0", Fate::Install);
    for printer in &mut all[..3] {
        printer.behaviour = Behaviour::Script(vec![Fate::FailDownload, Fate::FailDownload]);
    }
    let fleet = known(&server, all).await;
    let path = path(&server.rollout(to_all("1.5.0", json!({"max_attempts": 2}))).await);
    let failed = |rollout: &Value| {
        rollout["failed_count"] == 3 && rollout["confirmed_count"] == 1 && rollout["status"] == "completed"
    };
    server.wait(&path, failed).await;
    let retry = format!("{path}/retry-failed");
    let answer = server.post(&retry, &json!({})).await.expect(200);
    assert_eq!(answer["retried"], 3);
    says(&answer["rollout"], json!({"number": 1, "failed_count": 0, "total_targets": 4}));
    let done = |rollout: &Value| {
        check_sum(rollout);
        assert_eq!(rollout["total_targets"], 4);
        rollout["confirmed_count"] == 4 && rollout["status"] == "completed"
    };
    let rollout = server.wait(&path, done).await;
    assert_eq!(rollout["targets_total"], 4);
    let updates =
        server.get(&format!("/api/printers/{}/updates", fleet.printers()[0].id())).await.expect(200);
    let attempts: Vec<_> = updates["updates"].as_array().unwrap().iter().map(|one| &one["attempt"]).collect();
    assert_eq!(attempts, [3, 2, 1], "its history stays");
    assert_eq!(server.post(&retry, &json!({})).await.expect(200)["retried"], 0);
    assert_eq!(fleet.stop().await.offers, 1 + 3 * 3);
    server.stop().await;
}

#[sqlx::test]
async fn a_paused_one_tries_again_when_it_is_resumed_and_a_cancelled_one_never(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut all = printers(&server, 0, 2, "1.0.0", Fate::Install);
    for printer in &mut all {
        printer.behaviour = Behaviour::Script(vec![Fate::FailDownload]);
    }
    let fleet = known(&server, all).await;
    let path = path(&server.rollout(to_all("1.5.0", json!({"max_attempts": 1}))).await);
    server.wait(&path, |rollout| rollout["failed_count"] == 2).await;
    server.patch(&path, &json!({"status": "paused"})).await.expect(200);
    let retry = format!("{path}/retry-failed");
    assert_eq!(server.post(&retry, &json!({})).await.expect(200)["retried"], 2);
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().offers, 2);
    server.patch(&path, &json!({"status": "active"})).await.expect(200);
    server.wait(&path, |rollout| rollout["confirmed_count"] == 2).await;
    server.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
    tells(&server.post(&retry, &json!({})).await.expect(409), "final");
    server.post("/api/rollouts/9/retry-failed", &json!({})).await.expect(404);
    fleet.stop().await;
    server.stop().await;
}
