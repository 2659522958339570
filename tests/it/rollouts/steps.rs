//! Rollouts with steps: they go on by themselves, and stop when printers fail.

use paperminder_ota::simulate::{Behaviour, Fate};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    HOUR, MINUTE, QUIET, below, clocked, in_steps, known, online, pass, path, printers, says, tells, to_all,
};
use crate::support::{SOON, Server};

#[sqlx::test]
async fn a_template_takes_the_release_to_everyone_step_by_step(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 30, "1.0.0", Fate::Install)).await;
    let body = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "template": "fast"});
    let rollout = server.rollout(body).await;
    says(&rollout, json!({"template": "fast", "step": 1, "rollout_percentage": 10, "total_targets": 30}));
    says(
        &rollout["steps"][0],
        json!({"percentage": 10, "soak": "10m", "failure_threshold": 3, "min_sample": 100, "first": 200}),
    );
    let path = path(&rollout);
    for (step, percentage, until) in [(1, 10, "12:10"), (2, 50, "12:20")] {
        let expected = below(&fleet, percentage);
        let rollout = server.wait(&path, |rollout| rollout["confirmed_count"] == expected).await;
        says(&rollout, json!({"step": step, "rollout_percentage": percentage, "status": "active"}));
        assert_eq!(rollout["waiting_for"], format!("It soaks until 2026-03-04 {until} UTC."));
        clock.advance(10 * MINUTE - MINUTE / 60);
        pass(&server).await;
        tokio::time::sleep(QUIET).await;
        says(&server.get(&path).await.expect(200), json!({"step": step, "confirmed_count": expected}));
        clock.advance(MINUTE / 60);
        server.wait(&path, |rollout| rollout["step"] == step + 1).await;
    }
    let done = |rollout: &Value| rollout["status"] == "completed" && rollout["confirmed_count"] == 30;
    let rollout = server.wait(&path, done).await;
    says(&rollout, json!({"step": 3, "rollout_percentage": 100, "waiting_for": null}));
    assert_eq!(fleet.stop().await.double_offers, 0);
    server.stop().await;
}

#[sqlx::test]
async fn failures_pause_it_before_more_than_the_first_few_are_hurt(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 20, "1.0.0", Fate::FailDownload)).await;
    let steps = json!([{"percentage": 99, "min_sample": 4, "first": 4, "failure_threshold": 10}, {"percentage": 100}]);
    let mut body = in_steps("1.5.0", steps);
    body["max_attempts"] = json!(1);
    let path = path(&server.rollout(body).await);
    let rollout = server.wait(&path, |rollout| rollout["status"] == "paused").await;
    says(&rollout, json!({"status_reason": "failures", "step": 1}));
    let detail = rollout["status_detail"].as_str().unwrap();
    assert!(detail.ends_with("in step 1 (99 %), above its failure_threshold of 10 %."), "{detail}");
    tokio::time::sleep(QUIET).await;
    let hurt = fleet.snapshot().offers;
    assert!((1..=4).contains(&hurt), "{hurt} printers were hurt");
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn whoever_resumes_it_has_seen_the_failures(pool: PgPool) {
    let (server, clock) = clocked(pool, &[("RETRY_BACKOFF_SECONDS", "60")]).await;
    server.release("1.5.0", "stable").await;
    let mut all = printers(&server, 0, 12, "1.0.0", Fate::Install);
    for printer in &mut all {
        printer.behaviour = Behaviour::Script(vec![Fate::FailDownload]);
    }
    let fleet = known(&server, all).await;
    let steps = json!([{"percentage": 100, "min_sample": 3, "first": 3, "failure_threshold": 20}]);
    let path = path(&server.rollout(in_steps("1.5.0", steps)).await);
    let mut pauses = 0;
    while fleet.snapshot().offers < 12 {
        server.wait(&path, |rollout| rollout["status"] == "paused").await;
        pauses += 1;
        let resumed = server.patch(&path, &json!({"status": "active"})).await.expect(200);
        says(&resumed, json!({"status": "active", "status_reason": null, "status_detail": null, "step": 1}));
        assert!(pauses < 20, "it comes forward");
    }
    // The twelfth may be offered before the third resume was looked at: that stage's pause is still to come.
    assert!(pauses >= 3, "each stage is judged by itself, and three fail in each: {pauses}");
    server.wait(&path, |rollout| rollout["status"] == "paused" || rollout["in_flight_count"] == 0).await;
    tokio::time::sleep(QUIET).await;
    clock.advance(2 * MINUTE);
    server.patch(&path, &json!({"status": "active"})).await.expect(200);
    server.wait(&path, |rollout| rollout["confirmed_count"] == 12).await;
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn an_operator_takes_the_next_step_but_not_a_percentage(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fleet = known(&server, printers(&server, 0, 20, "1.0.0", Fate::Install)).await;
    let steps =
        json!([{"percentage": 20, "soak": "24h"}, {"percentage": 60, "soak": "24h"}, {"percentage": 100}]);
    let path = path(&server.rollout(in_steps("1.5.0", steps)).await);
    let advance = format!("{path}/advance");
    server.wait(&path, |rollout| rollout["confirmed_count"] == below(&fleet, 20)).await;
    tells(&server.patch(&path, &json!({"rollout_percentage": 50})).await.expect(409), "POST …/advance");
    let next = server.send(server.request(reqwest::Method::POST, &advance)).await.expect(200);
    says(&next, json!({"step": 2, "rollout_percentage": 60, "status": "active"}));
    server.wait(&path, |rollout| rollout["confirmed_count"] == below(&fleet, 60)).await;
    server.patch(&path, &json!({"status": "paused"})).await.expect(200);
    tells(&server.post(&advance, &json!({})).await.expect(409), "is paused; make it active first");
    server.patch(&path, &json!({"status": "active"})).await.expect(200);
    server.post(&advance, &json!({})).await.expect(200);
    server.wait(&path, |rollout| rollout["confirmed_count"] == 20).await;
    tells(&server.post(&advance, &json!({})).await.expect(409), "last step");
    let plain = super::path(&server.rollout(to_all("1.5.0", json!({}))).await);
    tells(&server.post(&format!("{plain}/advance"), &json!({})).await.expect(409), "has no steps");
    server.post("/api/rollouts/99/advance", &json!({})).await.expect(404);
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn a_step_waits_until_enough_have_proved_themselves(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let mut printer = online(&server, server.printer(1)).await;
    let steps = json!([{"percentage": 99, "soak": "1h", "min_sample": 0}, {"percentage": 100}]);
    let mut body = in_steps("1.5.0", steps);
    (body["confirm_within"], body["stuck_after"]) = (json!("1d"), json!("2d"));
    let path = path(&server.rollout(body).await);
    printer.next_offer(SOON).await.unwrap();
    printer.send_json(&json!({"kind": "firmware_complete", "version": "1.5.0"})).await.unwrap();
    server.wait(&path, |rollout| rollout["completed_count"] == 1).await;
    clock.advance(2 * HOUR);
    pass(&server).await;
    let rollout = server.get(&path).await.expect(200);
    says(
        &rollout,
        json!({"step": 1, "waiting_for": "0 of 1 offered printers have proved themselves; 95 % must have."}),
    );
    printer.drop_hard();
    online(&server, super::on(server.printer(1), "1.5.0")).await;
    server.wait(&path, |rollout| rollout["step"] == 2).await;
    server.stop().await;
}
