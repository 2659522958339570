//! Times: when a rollout ends, and when maintenance windows let it in.

use paperminder_ota::simulate::image::esp8266_image;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{HOUR, MINUTE, QUIET, clocked, online, pass, path, says, tells, to_all};
use crate::support::SOON;

fn until_one(on_end: &str) -> Value {
    to_all("1.5.0", json!({"ends_at": "2026-03-04T13:00:00Z", "on_end": on_end}))
}

#[sqlx::test]
async fn at_its_end_it_stops_and_may_be_taken_up_again(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let path = path(&server.rollout(until_one("stop")).await);
    let mut early = online(&server, server.printer(1)).await;
    early.next_offer(SOON).await.unwrap();
    clock.advance(HOUR - MINUTE / 60);
    pass(&server).await;
    says(&server.get(&path).await.expect(200), json!({"status": "active"}));
    clock.advance(MINUTE / 60);
    let ended = server.wait(&path, |rollout| rollout["status"] == "paused").await;
    says(&ended, json!({"status_reason": "ended", "status_detail": "Its time is over (ends_at)."}));
    let mut late = online(&server, server.printer(2)).await;
    assert!(late.next_offer(QUIET).await.is_err());
    // What was under way goes on.
    early.send_json(&json!({"kind": "firmware_complete", "version": "1.5.0"})).await.unwrap();
    server.wait(&path, |rollout| rollout["completed_count"] == 1).await;
    let resumed = server.patch(&path, &json!({"status": "active"})).await.expect(200);
    says(&resumed, json!({"status": "active", "ends_at": null, "status_reason": null}));
    late.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn at_its_end_it_is_cancelled_if_that_was_said(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let path = path(&server.rollout(until_one("cancel")).await);
    clock.advance(HOUR);
    let ended = server.wait(&path, |rollout| rollout["status"] == "cancelled").await;
    says(&ended, json!({"status_reason": "ended", "on_end": "cancel"}));
    tells(&server.patch(&path, &json!({"status": "active"})).await.expect(409), "final");
    server.stop().await;
}

fn at_night(changes: Value) -> Value {
    let mut windows = json!({"weekly": [{"from": "02:00", "to": "05:00"}]});
    windows.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    windows
}

#[sqlx::test]
async fn offers_wait_for_the_window_of_the_rollout(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let mut printer = online(&server, server.printer(1)).await;
    let rollout = server.rollout(to_all("1.5.0", json!({"windows": at_night(json!({}))}))).await;
    says(&rollout, json!({"status": "active", "total_targets": 1, "pending_count": 1}));
    assert!(printer.next_offer(QUIET).await.is_err(), "it is noon");
    let why = server.get("/api/printers/1/explain").await.expect(200);
    says(&why, json!({"outcome": "waiting", "reason": "window_closed", "until": "2026-03-05T02:00:00Z"}));
    clock.advance(14 * HOUR - MINUTE);
    pass(&server).await;
    assert!(printer.next_offer(QUIET).await.is_err(), "it is 1:59");
    clock.advance(MINUTE);
    printer.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn the_printers_own_clock_and_its_owners_windows_count(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    // At noon in UTC it is nine in the evening in Tokyo.
    let mut tokyo = server.printer(1);
    tokyo.identity.extra.insert("time_zone".into(), json!("Asia/Tokyo"));
    let (mut tokyo, mut other) = (online(&server, tokyo).await, online(&server, server.printer(2)).await);
    let request = server.request(reqwest::Method::PUT, "/api/users/demo");
    server.send(request.json(&json!({"windows": at_night(json!({}))}))).await.expect(200);
    server.rollout(to_all("1.5.0", json!({}))).await;
    assert!(tokyo.next_offer(QUIET).await.is_err() && other.next_offer(QUIET).await.is_err());
    clock.advance(5 * HOUR);
    tokyo.next_offer(SOON).await.unwrap();
    assert!(other.next_offer(QUIET).await.is_err());
    clock.advance(9 * HOUR);
    other.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn a_mandatory_release_goes_past_windows_that_say_so(pool: PgPool) {
    let (server, _clock) = clocked(pool, &[]).await;
    let fields = [("version", "1.5.0"), ("mandatory", "true")];
    server.upload_bytes(esp8266_image(20 << 10, 15), &fields).await.expect(201);
    let mut printer = online(&server, server.printer(1)).await;
    let waits = path(&server.rollout(to_all("1.5.0", json!({"windows": at_night(json!({}))}))).await);
    assert!(printer.next_offer(QUIET).await.is_err());
    server.patch(&waits, &json!({"status": "cancelled"})).await.expect(200);
    let windows = at_night(json!({"mandatory_ignores": true}));
    server.rollout(to_all("1.5.0", json!({"windows": windows}))).await;
    printer.next_offer(SOON).await.unwrap();
    server.stop().await;
}
