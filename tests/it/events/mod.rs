//! Live events: from every replica, in order, once; and what happens to clients that are away, slow or too many.

mod resume;
mod watcher;

use std::time::Duration;

use paperminder_ota::simulate::Fleet;
use serde_json::{Value, json};
use sqlx::PgPool;

use self::watcher::Watcher;
use crate::support::{SOON, Server};

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[sqlx::test]
async fn what_happens_on_one_replica_is_told_by_another(pool: PgPool) {
    let (here, there) = (Server::start(pool.clone()).await, Server::start(pool).await);
    let mut all = Watcher::open(&there, "", None).await;
    let mut ends = Watcher::open(&there, "?kind=update.ended,rollout", None).await;
    let release = here.release("1.5.0", "stable").await;
    let other = here
        .rollout(json!({"firmware_version": "1.5.0", "target": {"user_ids": ["nobody"]}, "rollout_type": "immediate"}))
        .await;
    let mut of_one = Watcher::open(&there, "?rollout_id=2", None).await;
    here.rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let fleet = Fleet::start(vec![here.printer(1)].into()).unwrap();
    here.wait("/api/rollouts/2", |rollout| rollout["confirmed_count"] == 1).await;
    here.delete("/api/rollouts/2").await.expect(204);

    let seen = of_one.until(|event| event["kind"] == "rollout.deleted").await;
    // Progress is a change of its own only where the outcome does not follow at once.
    let story = ["rollout.created", "update.offered", "update.changed", "update.ended"];
    let mut of_updates: Vec<_> = kinds(&seen).into_iter().filter(|kind| *kind != "rollout.changed").collect();
    of_updates.dedup();
    assert_eq!(of_updates[..4], story);
    let ended = seen.iter().find(|event| event["kind"] == "update.ended").unwrap();
    let printer = here.get("/api/printers/1").await.expect(200);
    for (field, value) in [
        ("status", json!("completed")),
        ("open", json!(false)),
        ("number", json!(1)),
        ("rollout_number", json!(2)),
        ("printer_id", printer["printer_id"].clone()),
        ("firmware_version", json!("1.5.0")),
        ("attempt", json!(1)),
        ("reason", Value::Null),
    ] {
        assert_eq!(ended[field], value, "{field} in {ended}");
    }
    let at = ended["at"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok() && at.ends_with('Z'), "{at}");

    let seen = all.until(|event| event["kind"] == "rollout.deleted").await;
    assert_eq!(kinds(&seen)[..3], ["firmware.created", "rollout.created", "rollout.created"]);
    assert_eq!((&seen[0]["id"], &seen[1]["id"]), (&release["id"], &other["id"]));
    let seen = ends.until(|event| event["kind"] == "rollout.deleted").await;
    assert!(
        kinds(&seen).iter().all(|kind| *kind == "update.ended" || kind.starts_with("rollout.")),
        "{seen:?}"
    );
    assert_eq!(seen.iter().filter(|event| event["kind"] == "update.ended").count(), 1);

    fleet.stop().await;
    here.stop().await;
    there.stop().await;
}

#[sqlx::test]
async fn progress_and_counters_are_no_events(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let mut watcher = Watcher::open(&server, "", None).await;
    server.release("1.5.0", "stable").await;
    assert_eq!(watcher.next().await["kind"], "firmware.created");
    for sql in [
        "update firmware_versions set download_count = download_count + 1",
        "update update_rollouts set updated_at = now()",
        "insert into printers (id, printer_id, user_id, bucket, version_key) select gen_random_uuid(), 'p', 'u', 1, 'k'",
        "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt) \
         select gen_random_uuid(), p.id, f.id, f.version, '1.4.0', 1 from printers p, firmware_versions f",
        "update update_history set last_percent = 40, last_status_message = 'Downloading 40%', last_activity_at = now()",
        "update update_history set status = 'downloading', last_percent = 41",
        "update update_history set last_percent = 42, sends = 2, socket_lost_at = now()",
        "update update_history set status = 'failed', open = false, reason = 'timeout', completed_at = now()",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    server.delete("/api/firmware/1.5.0").await.expect(204);
    let seen = watcher.until(|event| event["kind"] == "firmware.deleted").await;
    assert_eq!(kinds(&seen), ["update.offered", "update.changed", "update.ended", "firmware.deleted"]);
    assert_eq!((&seen[2]["status"], &seen[2]["reason"]), (&json!("failed"), &json!("timeout")));
    server.stop().await;
}

#[sqlx::test]
async fn watchers_are_bounded_and_their_room_is_given_back(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_EVENT_STREAMS", "2")]).await;
    let (first, _second) = (Watcher::open(&server, "", None).await, Watcher::open(&server, "", None).await);
    let refused = server.get("/api/events").await;
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(refused.expect(503)["type"], "/docs/problems/event-streams-full");
    drop(first);
    // The server notices with the next thing that it says.
    tokio::time::timeout(SOON, async {
        while !Watcher::fits(&server).await {
            server.release(&format!("1.0.{}", rand(&server).await), "stable").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    for (query, named) in
        [("?rollout=1", "rollout_id"), ("?kind=updates", "kind"), ("?rollout_id=x", "rollout_id")]
    {
        let problem = server.get(&format!("/api/events{query}")).await.expect(422);
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    server.stop().await;
}

/// A number that no release has yet.
async fn rand(server: &Server) -> i64 {
    sqlx::query_scalar("select count(*) from firmware_versions").fetch_one(&server.pool).await.unwrap()
}

#[sqlx::test]
async fn a_shutdown_ends_streams_cleanly(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut watcher = Watcher::open(&server, "", None).await;
    let (ended, _) = tokio::join!(watcher.end(), server.stop());
    assert!(ended, "the stream broke off instead of ending");
}

#[sqlx::test]
async fn the_answer_is_one_that_no_proxy_gathers(pool: PgPool) {
    let server = Server::start(pool).await;
    let watcher = Watcher::open(&server, "", None).await;
    assert_eq!(watcher.headers["content-type"], "text/event-stream");
    assert_eq!(watcher.headers["cache-control"], "no-store");
    assert_eq!(watcher.headers["x-accel-buffering"], "no");
    server.stop().await;
}
