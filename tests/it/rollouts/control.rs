//! Percentages, pausing, resuming, cancelling, schedules.

use std::collections::HashSet;
use std::time::Duration;

use chrono::TimeDelta;
use paperminder_ota::clock::Clock;
use paperminder_ota::simulate::{EventKind, Fleet, Printer};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;

use super::{below, check_sum, fleet, path};
use crate::support::{SOON, Server};

/// Long enough for anything that was on its way.
const QUIET: Duration = Duration::from_millis(600);

/// Every printer of the fleet has read what the server wrote to it until now: it answers in the order in which it reads.
async fn read_on(fleet: &Fleet) {
    let mut events = fleet.events();
    let mut marked = HashSet::new();
    for printer in fleet.printers() {
        printer.send_raw("this is no JSON").await.unwrap();
        marked.insert(printer.id().clone());
    }
    while !marked.is_empty() {
        let event = timeout(SOON, events.recv()).await.unwrap_or_else(|_| panic!("no answer to {marked:?}"));
        let event = event.unwrap();
        if matches!(&event.kind, EventKind::Status { code, .. } if code == "malformed_json") {
            marked.remove(&event.printer_id);
        }
    }
}

#[sqlx::test]
async fn a_gradual_rollout_reaches_exactly_the_buckets_below_its_percentage(pool: PgPool) {
    let server = Server::start(pool).await;
    let fleet = fleet(&server, 40).await;
    server.release("1.5.0", "stable").await;
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": 0});
    let path = path(&server.rollout(wanted).await);
    for percentage in [0u8, 20, 60, 100] {
        server.patch(&path, &json!({"rollout_percentage": percentage})).await.expect(200);
        let expected = below(&fleet, percentage);
        let rollout = server.wait(&path, |rollout| rollout["confirmed_count"] == expected).await;
        check_sum(&rollout);
        assert_eq!(rollout["total_targets"], 40);
        tokio::time::sleep(QUIET).await;
        assert_eq!(fleet.snapshot().running("1.5.0"), expected, "at {percentage} %");
    }
    server.wait(&path, |rollout| rollout["status"] == "completed").await;
    server.stop().await;
}

#[sqlx::test]
async fn lowering_the_percentage_takes_no_open_update_away(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": 100});
    let path = path(&server.rollout(wanted).await);
    printer.next_offer(SOON).await.unwrap();
    server.patch(&path, &json!({"rollout_percentage": 0})).await.expect(200);
    printer.send_json(&json!({"kind": "firmware_complete", "version": "1.5.0"})).await.unwrap();
    server.wait(&path, |rollout| rollout["completed_count"] == 1).await;
    server.stop().await;
}

#[sqlx::test]
async fn nothing_leaves_after_a_pause_was_answered_and_a_resume_sends_it(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fleet = fleet(&server, 60).await;
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": 0});
    let path = path(&server.rollout(wanted).await);
    let mut stopped_in_the_middle = 0;
    for percentage in (5..=100).step_by(5) {
        server.patch(&path, &json!({"rollout_percentage": percentage})).await.expect(200);
        tokio::time::sleep(Duration::from_millis(percentage % 7)).await;
        server.patch(&path, &json!({"status": "paused"})).await.expect(200);
        // What was written before the answer may still be in a socket's buffer.
        read_on(&fleet).await;
        let offers = fleet.snapshot().offers;
        tokio::time::sleep(Duration::from_millis(200)).await;
        read_on(&fleet).await;
        assert_eq!(fleet.snapshot().offers, offers, "an offer left after the pause was answered");
        stopped_in_the_middle +=
            usize::from(offers < below(&fleet, u8::try_from(percentage).unwrap()) as u64);
        server.patch(&path, &json!({"status": "active"})).await.expect(200);
    }
    let all =
        |rollout: &serde_json::Value| rollout["status"] == "completed" && rollout["confirmed_count"] == 60;
    server.wait(&path, all).await;
    println!("{stopped_in_the_middle} of 20 pauses came before all offers had left");
    let fleet = fleet.stop().await;
    assert_eq!((fleet.offers, fleet.double_offers), (60, 0), "every printer was offered it once");
    server.stop().await;
}

#[sqlx::test]
async fn a_cancelled_rollout_offers_nothing_any_more_and_stays_cancelled(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let rollout = server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let cancelled = server.patch(&path(&rollout), &json!({"status": "cancelled"})).await.expect(200);
    assert_eq!(cancelled["status"], "cancelled");
    let fleet = fleet(&server, 5).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().offers, 0);
    for body in [json!({"status": "active"}), json!({"status": "paused"}), json!({"rollout_percentage": 50})]
    {
        let refused = server.patch(&path(&rollout), &body).await.expect(409);
        assert_eq!(refused["type"], "/docs/problems/rollout-conflict");
        assert!(refused["detail"].as_str().unwrap().contains("final"), "{refused}");
    }
    server.patch(&path(&rollout), &json!({"status": "cancelled"})).await.expect(200);
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_that_never_saw_the_offer_of_a_cancelled_rollout_is_free_for_the_next(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.release("1.6.0", "stable").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let first = server
        .rollout(json!({"firmware_version": "1.6.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    printer.next_offer(SOON).await.unwrap();
    server.patch(&path(&first), &json!({"status": "cancelled"})).await.expect(200);
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    // As if this process had died: the socket's end was never seen.
    let mut back = Printer::online(server.printer(1)).await.unwrap();
    assert_eq!(&*back.next_offer(SOON).await.unwrap().version, "1.5.0");
    let updates = server.get("/api/printers/1/updates").await.expect(200);
    assert_eq!(
        (&updates["updates"][1]["status"], &updates["updates"][1]["reason"]),
        (&json!("cancelled"), &json!("withdrawn"))
    );
    server.stop().await;
}

#[sqlx::test]
async fn a_scheduled_rollout_starts_by_itself_on_time(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let at = Clock::system().now() + TimeDelta::milliseconds(1500);
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "scheduled", "scheduled_for": at.to_rfc3339()});
    let rollout = server.rollout(wanted).await;
    assert_eq!(rollout["status"], "pending");
    printer.next_offer(SOON).await.unwrap();
    let late = Clock::system().now() - at;
    // Sooner than any scan that knows of no schedule.
    assert!(late >= TimeDelta::zero() && late < TimeDelta::seconds(4), "{late}");
    let rollout = server.get(&path(&rollout)).await.expect(200);
    assert_eq!((&rollout["status"], rollout["started_at"].is_string()), (&json!("active"), true));
    server.stop().await;
}

#[sqlx::test]
async fn a_moment_that_has_passed_starts_at_once_and_a_held_schedule_waits_again(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let scheduled = |at: &str| json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "scheduled", "scheduled_for": at});
    assert_eq!(server.rollout(scheduled("2025-01-20T02:00:00Z")).await["status"], "active");
    let later = server.rollout(scheduled("2999-01-20T02:00:00Z")).await;
    for (asked, becomes) in [("paused", "paused"), ("active", "pending"), ("active", "active")] {
        assert_eq!(
            server.patch(&path(&later), &json!({"status": asked})).await.expect(200)["status"],
            becomes
        );
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_rollout_that_is_not_to_start_waits_for_the_word(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate", "start": false});
    let rollout = server.rollout(wanted).await;
    assert_eq!(rollout["status"], "pending");
    assert!(printer.next_offer(QUIET).await.is_err());
    server.patch(&path(&rollout), &json!({"status": "active"})).await.expect(200);
    printer.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn a_rollout_with_open_updates_cannot_be_deleted_and_a_deleted_one_leaves_its_history(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let path = path(
        &server
            .rollout(
                json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}),
            )
            .await,
    );
    printer.next_offer(SOON).await.unwrap();
    assert_eq!(server.delete(&path).await.expect(409)["type"], "/docs/problems/rollout-conflict");
    // Before the report, which the next try may follow at once.
    server.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
    printer.send_json(&json!({"kind": "firmware_failed", "error": "x"})).await.unwrap();
    server
        .wait("/api/printers/1/updates", |list| {
            list["updates"].as_array().is_some_and(|all| all.iter().all(|update| update["open"] == false))
        })
        .await;
    assert_eq!(server.delete(&path).await.status, 204);
    assert_eq!(server.get(&path).await.expect(404)["type"], "/docs/problems/rollout-not-found");
    assert_eq!(server.get("/api/rollouts").await.expect(200)["total"], 0);
    assert_eq!(server.get("/api/printers/1/updates").await.expect(200)["updates"][0]["rollout_number"], 1);
    server.stop().await;
}

#[sqlx::test]
async fn whoever_decided_on_an_old_state_is_told_so(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": 10});
    let path = path(&server.rollout(wanted).await);
    let tag = server.get(&path).await.headers["etag"].to_str().unwrap().to_owned();
    let patch = async |tag: &str, percentage: u8| {
        let request = server.request(reqwest::Method::PATCH, &path).header("if-match", tag);
        server.send(request.json(&json!({"rollout_percentage": percentage}))).await
    };
    patch(&tag, 20).await.expect(200);
    assert_eq!(patch(&tag, 30).await.expect(412)["type"], "/docs/problems/precondition-failed");
    let fresh = server.get(&path).await;
    assert_eq!(fresh.body["rollout_percentage"], 20);
    let tag = fresh.headers["etag"].to_str().unwrap();
    let again = server.send(server.request(reqwest::Method::GET, &path).header("if-none-match", tag)).await;
    assert_eq!(again.status, 304);
    server.stop().await;
}
