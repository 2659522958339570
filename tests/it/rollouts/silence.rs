//! A bricked printer reports nothing, so silence counts.

use paperminder_ota::simulate::Fate;
use serde_json::json;
use sqlx::PgPool;

use super::{MINUTE, QUIET, clocked, in_steps, known, pass, path, printers, says, to_all};
use crate::support::SOON;

/// Whose socket ended, and for whom that is written.
const GONE: &str = "/api/printers?online=false";

#[sqlx::test]
async fn printers_that_fall_silent_pause_a_step_long_before_they_are_given_up(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 10, "1.0.0", Fate::Brick)).await;
    let steps = json!([{"percentage": 100, "first": 3, "min_sample": 3}]);
    let mut body = in_steps("1.5.0", steps);
    (body["confirm_within"], body["stuck_after"]) = (json!("15m"), json!("2h"));
    let path = path(&server.rollout(body).await);
    fleet.wait_until(SOON, |fleet| fleet.bricked == 3).await.unwrap();
    server.wait(GONE, |list| list["total"] == 3).await;
    clock.advance(15 * MINUTE);
    pass(&server).await;
    tokio::time::sleep(QUIET).await;
    says(&server.get(&path).await.expect(200), json!({"status": "active", "status_reason": null}));
    clock.advance(MINUTE);
    let rollout = server.wait(&path, |rollout| rollout["status"] == "paused").await;
    says(
        &rollout,
        json!({"status_reason": "failures", "failed_count": 0,
            "status_detail": "3 of 3 printers failed, 3 of them by their silence in step 1 (100 %), above its failure_threshold of 5 %."}),
    );
    assert_eq!(fleet.snapshot().offers, 3, "the other seven are whole");
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn a_rollout_has_its_own_patience_with_silence(pool: PgPool) {
    let (server, clock) = clocked(pool, &[("STUCK_AFTER_SECONDS", "10")]).await;
    server.release("1.5.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 1, "1.0.0", Fate::Brick)).await;
    let body = to_all("1.5.0", json!({"stuck_after": "20m", "max_attempts": 1}));
    let rollout = server.rollout(body).await;
    says(&rollout, json!({"stuck_after": "20m", "max_attempts": 1, "confirm_within": "10m"}));
    fleet.wait_until(SOON, |fleet| fleet.bricked == 1).await.unwrap();
    server.wait(GONE, |list| list["total"] == 1).await;
    clock.advance(19 * MINUTE);
    tokio::time::sleep(3 * QUIET).await;
    says(&server.get(&path(&rollout)).await.expect(200), json!({"failed_count": 0}));
    clock.advance(2 * MINUTE);
    let rollout = server.wait(&path(&rollout), |rollout| rollout["failed_count"] == 1).await;
    says(&rollout["targets"][0], json!({"status": "failed", "reason": "timeout"}));
    fleet.stop().await;
    server.stop().await;
}
