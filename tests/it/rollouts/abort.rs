//! `abort_on`: a rollout that gives up by itself, and what it does then.

use paperminder_ota::simulate::{Fate, Fleet};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{QUIET, known, path, printers, says, tells, to_all};
use crate::support::{SOON, Server};

/// Five printers take the release, then five come that cannot. Returns both and the rollout as it stopped.
async fn half_fails(server: &Server, rule: Value) -> (Fleet, Fleet, Value) {
    server.release("1.0.0", "stable").await;
    server.release("1.5.0", "stable").await;
    let good = known(server, printers(server, 0, 5, "1.0.0", Fate::Install)).await;
    let body = to_all("1.5.0", json!({"abort_on": rule, "max_attempts": 1}));
    let path = path(&server.rollout(body).await);
    server.wait(&path, |rollout| rollout["confirmed_count"] == 5).await;
    let bad = known(server, printers(server, 100, 5, "1.0.0", Fate::FailDownload)).await;
    let stopped = |rollout: &Value| rollout["status"] == "paused" || rollout["status"] == "cancelled";
    let rollout = server.wait(&path, stopped).await;
    says(&rollout, json!({"status_reason": "failures", "confirmed_count": 5}));
    let detail = rollout["status_detail"].as_str().unwrap();
    assert!(detail.ends_with("printers failed, above the 20 % of abort_on."), "{detail}");
    (good, bad, rollout)
}

fn rule(action: &str) -> Value {
    json!({"failure_rate": 20, "min_sample": 5, "action": action})
}

#[sqlx::test]
async fn pausing_keeps_what_was_reached(pool: PgPool) {
    let server = Server::start(pool).await;
    let (good, bad, rollout) = half_fails(&server, json!({"failure_rate": 20, "min_sample": 5})).await;
    says(&rollout, json!({"status": "paused"}));
    assert_eq!(rollout["abort_on"]["action"], "pause", "unless given");
    let late = known(&server, printers(&server, 50, 1, "1.0.0", Fate::Install)).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!((good.snapshot().running("1.5.0"), late.snapshot().offers), (5, 0));
    // Whoever goes on has seen them: old failures alone do not stop it again.
    server.patch(&path(&rollout), &json!({"status": "active"})).await.expect(200);
    late.wait_until(SOON, |late| late.running("1.5.0") == 1).await.unwrap();
    tokio::time::sleep(QUIET).await;
    let rollout = server.get(&path(&rollout)).await.expect(200);
    assert!(rollout["status"] == "active" || rollout["status"] == "completed", "{rollout}");
    for fleet in [good, bad, late] {
        fleet.stop().await;
    }
    server.stop().await;
}

#[sqlx::test]
async fn cancelling_is_final_and_moves_nobody(pool: PgPool) {
    let server = Server::start(pool).await;
    let (good, bad, rollout) = half_fails(&server, rule("cancel")).await;
    says(&rollout, json!({"status": "cancelled"}));
    tells(&server.patch(&path(&rollout), &json!({"status": "active"})).await.expect(409), "final");
    tokio::time::sleep(QUIET).await;
    assert_eq!(good.stop().await.running("1.5.0"), 5);
    assert_eq!(server.get("/api/rollouts").await.expect(200)["total"], 1);
    bad.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn rolling_back_brings_home_who_took_it(pool: PgPool) {
    let server = Server::start(pool).await;
    let (good, bad, rollout) = half_fails(&server, rule("rollback")).await;
    // Somebody who presses the button meanwhile does not make it twice.
    let again = server.post(&format!("{}/rollback", path(&rollout)), &json!({})).await.expect(409);
    tells(&again, "was rolled back already, by rollout 2.");
    says(&rollout, json!({"status": "cancelled"}));
    let back = server.wait("/api/rollouts/2", |back| back["confirmed_count"] == 5).await;
    says(
        &back,
        json!({"firmware_version": "1.0.0", "rolls_back": rollout["id"], "status_detail": "It undoes rollout 1."}),
    );
    assert_eq!((good.stop().await.running("1.0.0"), bad.stop().await.running("1.0.0")), (5, 5));
    server.stop().await;
}

#[sqlx::test]
async fn whoever_cannot_be_brought_home_is_named(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let good = known(&server, printers(&server, 0, 5, "1.0.0", Fate::Install)).await;
    let body = to_all("1.5.0", json!({"abort_on": rule("rollback"), "max_attempts": 1}));
    let path = path(&server.rollout(body).await);
    server.wait(&path, |rollout| rollout["confirmed_count"] == 5).await;
    let bad = known(&server, printers(&server, 100, 5, "1.0.0", Fate::FailDownload)).await;
    let rollout = server.wait(&path, |rollout| rollout["status"] == "cancelled").await;
    let detail = rollout["status_detail"].as_str().unwrap();
    assert!(
        detail.contains("above the 20 % of abort_on. Printers that had 1.0.0 stay where they are"),
        "{detail}"
    );
    assert_eq!(server.get("/api/rollouts").await.expect(200)["total"], 1);
    assert_eq!(good.stop().await.running("1.5.0"), 5);
    bad.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn a_named_version_that_was_withdrawn_meanwhile_is_told(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("0.9.0", "stable").await;
    let mut rule = rule("rollback");
    rule["to_version"] = json!("0.9.0");
    server.release("1.5.0", "stable").await;
    let path = path(&server.rollout(to_all("1.5.0", json!({"abort_on": rule, "max_attempts": 1}))).await);
    server.patch("/api/firmware/0.9.0", &json!({"deprecated": true})).await.expect(200);
    let bad = known(&server, printers(&server, 100, 5, "1.0.0", Fate::FailDownload)).await;
    let rollout = server.wait(&path, |rollout| rollout["status"] == "cancelled").await;
    let detail = rollout["status_detail"].as_str().unwrap();
    assert!(
        detail.contains("Nobody is brought back: 0.9.0 is no release any more, or was withdrawn."),
        "{detail}"
    );
    bad.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn rolling_back_to_a_named_version_brings_all_there(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("0.9.0", "stable").await;
    let mut rule = rule("rollback");
    rule["to_version"] = json!("0.9.0");
    let (good, bad, _) = half_fails(&server, rule).await;
    good.wait_until(SOON, |good| good.running("0.9.0") == 5).await.unwrap();
    good.stop().await;
    assert_eq!(bad.stop().await.running("1.0.0"), 5, "who never took it stays");
    server.stop().await;
}

#[sqlx::test]
async fn a_version_to_go_back_to_must_be_there(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut rule = rule("rollback");
    rule["to_version"] = json!("0.9.0");
    let body = to_all("1.5.0", json!({"abort_on": rule}));
    tells(&server.post("/api/rollouts", &body).await.expect(404), "there is no release 0.9.0");
    server.release("0.9.0", "beta").await;
    server.rollout(body).await;
    server.stop().await;
}

#[sqlx::test]
async fn too_few_outcomes_are_no_reason(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 3, "1.0.0", Fate::FailDownload)).await;
    // Three of at least twenty are fifteen percent, even if all others went well.
    let rule = json!({"failure_rate": 15, "min_sample": 20});
    let path = path(&server.rollout(to_all("1.5.0", json!({"abort_on": rule, "max_attempts": 1}))).await);
    server.wait(&path, |rollout| rollout["failed_count"] == 3).await;
    tokio::time::sleep(QUIET).await;
    says(&server.get(&path).await.expect(200), json!({"status": "completed", "status_reason": null}));
    fleet.stop().await;
    let more = known(&server, printers(&server, 10, 1, "1.0.0", Fate::FailDownload)).await;
    server.wait(&path, |rollout| rollout["status"] == "paused").await;
    more.stop().await;
    server.stop().await;
}
