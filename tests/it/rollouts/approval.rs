//! Rollouts that wait for a second person.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{HOUR, QUIET, clocked, online, pass, path, says, tells, to_all};
use crate::support::{SOON, Server};

fn asks(changes: Value) -> Value {
    let mut body = to_all("1.5.0", json!({"requires_approval": true}));
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

#[sqlx::test]
async fn it_starts_when_somebody_agrees_and_not_before(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = online(&server, server.printer(1)).await;
    let rollout = server.rollout(asks(json!({}))).await;
    says(
        &rollout,
        json!({"status": "pending", "approval": "waiting", "approval_at": null, "started_at": null}),
    );
    let path = path(&rollout);
    tells(&server.patch(&path, &json!({"status": "active"})).await.expect(409), "waits for a second person");
    assert!(printer.next_offer(QUIET).await.is_err());
    let why = server.get("/api/printers/1/explain").await.expect(200);
    says(&why, json!({"outcome": "waiting", "reason": "awaits_approval"}));
    let approve = format!("{path}/approve");
    let approved = server.post(&approve, &json!({"comment": "tested on my desk"})).await.expect(200);
    says(
        &approved,
        json!({"status": "active", "approval": "approved", "approval_comment": "tested on my desk"}),
    );
    assert!(approved["approval_at"].is_string() && approved["started_at"].is_string(), "{approved}");
    printer.next_offer(SOON).await.unwrap();
    tells(&server.post(&approve, &json!({})).await.expect(409), "approved already");
    tells(&server.post(&format!("{path}/deny"), &json!({})).await.expect(409), "approved already");
    server.stop().await;
}

#[sqlx::test]
async fn a_denial_is_final(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let path = path(&server.rollout(asks(json!({}))).await);
    let denied =
        server.post(&format!("{path}/deny"), &json!({"comment": "not on a Friday"})).await.expect(200);
    says(
        &denied,
        json!({"status": "cancelled", "approval": "denied", "status_reason": "denied", "status_detail": "not on a Friday"}),
    );
    tells(
        &server.post(&format!("{path}/approve"), &json!({})).await.expect(409),
        "denied, and that is final",
    );
    tells(&server.patch(&path, &json!({"status": "active"})).await.expect(409), "final");
    server.stop().await;
}

#[sqlx::test]
async fn a_scheduled_one_starts_at_its_time_but_never_without_a_word(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    server.release("1.6.0", "stable").await;
    let later = json!({"rollout_type": "scheduled", "scheduled_for": "2026-03-04T13:00:00Z"});
    let early = path(&server.rollout(asks(later.clone())).await);
    let mut body = asks(later);
    body["firmware_version"] = json!("1.6.0");
    let late = path(&server.rollout(body).await);
    let approved = server.post(&format!("{early}/approve"), &json!({})).await.expect(200);
    says(&approved, json!({"status": "pending", "approval": "approved"}));
    clock.advance(HOUR);
    server.wait(&early, |rollout| rollout["status"] == "active").await;
    pass(&server).await;
    says(&server.get(&late).await.expect(200), json!({"status": "pending", "approval": "waiting"}));
    let approved = server.post(&format!("{late}/approve"), &json!({})).await.expect(200);
    says(&approved, json!({"status": "active"}));
    server.stop().await;
}

#[sqlx::test]
async fn what_needs_no_word_or_is_gone_takes_none(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    tells(&server.post("/api/rollouts/1/approve", &json!({})).await.expect(409), "needs no approval");
    server.post("/api/rollouts/9/deny", &json!({})).await.expect(404);
    let long = json!({"comment": "x".repeat(1001)});
    let waiting = path(&server.rollout(asks(json!({}))).await);
    let problem = server.post(&format!("{waiting}/approve"), &long).await.expect(422);
    assert_eq!(problem["errors"][0]["field"], "comment");
    server.patch(&waiting, &json!({"status": "cancelled"})).await.expect(200);
    for word in ["approve", "deny"] {
        tells(&server.post(&format!("{waiting}/{word}"), &json!({})).await.expect(409), "cancelled");
    }
    says(
        &server.get(&waiting).await.expect(200),
        json!({"approval": "waiting", "status_reason": "operator"}),
    );
    server.stop().await;
}
