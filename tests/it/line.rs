//! The printers' line: the documented messages, and what counts as proof.

use std::time::{Duration, Instant};

use paperminder_ota::simulate::{Error, Message, Printer};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{SOON, Server};

const BRIEF: Duration = Duration::from_millis(300);

async fn rollout(server: &Server, version: &str) -> String {
    server.release(version, "stable").await;
    let wanted = json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "immediate"});
    format!("/api/rollouts/{}", server.rollout(wanted).await["number"])
}

/// The newest attempt with the first printer.
async fn attempt(server: &Server, wanted: impl Fn(&Value) -> bool) -> Value {
    let list =
        server.wait("/api/printers/1/updates", |list| list["updates"].get(0).is_some_and(&wanted)).await;
    list["updates"][0].clone()
}

async fn status_of(printer: &mut Printer, message: &str) -> String {
    printer.send_raw(message).await.unwrap();
    let answer = printer.next_message(SOON).await.unwrap();
    assert_eq!(answer["kind"], "status");
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{answer}");
    answer["code"].as_str().unwrap_or_default().to_owned()
}

#[sqlx::test]
async fn what_is_not_understood_is_answered_and_the_connection_stays(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut printer = Printer::connect(server.printer(1)).await.unwrap();
    assert_eq!(
        status_of(&mut printer, r#"{"kind":"firmware_complete","version":"1.0.0"}"#).await,
        "subscribe_first"
    );
    for (message, code) in [
        ("{", "malformed_json"),
        ("[1]", "malformed_json"),
        ("null", "malformed_json"),
        (r#"{"kind":"print_job"}"#, "unknown_kind"),
        (r#"{"printer_name":"x","user_id":"another"}"#, "bad_field"),
        (r#"{"printer_name":"x","firmware_version":"one"}"#, "bad_field"),
        (r#"{"kind":"firmware_progress","percent":"many"}"#, "bad_field"),
    ] {
        assert_eq!(status_of(&mut printer, message).await, code, "{message}");
    }
    printer.send_raw(Message::Binary(vec![1, 2, 3].into())).await.unwrap();
    assert_eq!(printer.next_message(SOON).await.unwrap()["code"], "malformed_json");
    printer.subscribe().await.unwrap();
    server.wait("/api/printers", |list| list["total"] == 1).await;
    assert!(
        matches!(printer.next_message(BRIEF).await, Err(Error::Timeout(_))),
        "a subscribe is answered by silence"
    );
    server.stop().await;
}

#[sqlx::test]
async fn a_frame_that_is_too_long_closes_the_socket_with_1009(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.send_raw("x".repeat(5000)).await.unwrap();
    let closed = printer.next_message(SOON).await;
    assert!(matches!(closed, Err(Error::Closed { code: Some(1009), .. })), "{closed:?}");
    server.stop().await;
}

#[sqlx::test]
async fn who_does_not_subscribe_is_let_go_after_ten_seconds(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut printer = Printer::connect(server.printer(1)).await.unwrap();
    let started = Instant::now();
    assert!(matches!(printer.next_message(SOON).await, Err(Error::Closed { code: Some(1008), .. })));
    assert!((9..15).contains(&started.elapsed().as_secs()));
    server.stop().await;
}

#[sqlx::test]
async fn the_documented_subscribe_makes_the_documented_row(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut options = server.printer(1);
    (options.identity.printer_id, options.identity.name) = (None, "Front Desk".into());
    let mut printer = Printer::connect(options).await.unwrap();
    let message = json!({"printer_name": "Front Desk", "api_key": "user-api-key", "user_id": "demo", "firmware_version": "1.0.0",
        "auto_update": true, "update_channel": "stable"});
    printer.send_json(&message).await.unwrap();
    let list = server.wait("/api/printers?online=true", |list| list["total"] == 1).await;
    let row = &list["printers"][0];
    for (field, value) in [
        ("printer_name", json!("Front Desk")),
        ("name", json!("Front Desk")),
        ("user_id", json!("demo")),
        ("firmware_version", json!("1.0.0")),
        ("auto_update", json!(true)),
        ("update_channel", json!("stable")),
        ("last_ip", json!("127.0.0.1")),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    assert!(!row.to_string().contains("user-api-key"), "the key is shown to nobody");
    for path in [
        "1".to_owned(),
        row["id"].as_str().unwrap().to_owned(),
        row["printer_id"].as_str().unwrap().to_owned(),
    ] {
        assert_eq!(server.get(&format!("/api/printers/{path}")).await.expect(200)["number"], 1);
    }
    printer.close().await.unwrap();
    server.wait("/api/printers?online=false", |list| list["total"] == 1).await;
    server.stop().await;
}

#[sqlx::test]
async fn an_offer_is_short_complete_and_downloads_the_image(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let release = server.release("1.5.0", "stable").await;
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let message = printer.next_message(SOON).await.unwrap();
    let fields: Vec<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["kind", "md5", "url", "version"]);
    assert_eq!(
        (&message["kind"], &message["version"], &message["md5"]),
        (&json!("firmware_update"), &json!("1.5.0"), &release["md5"])
    );
    assert!(message["url"].as_str().unwrap().contains("X-Amz-Signature="));
    let offer = paperminder_ota::simulate::offer_of(&message).unwrap();
    let downloaded = printer.download(&offer).await.unwrap();
    assert_eq!(downloaded.bytes, release["file_size"].as_u64().unwrap());
    server.stop().await;
}

#[sqlx::test]
async fn reports_move_the_update_and_the_reconnect_proves_it(pool: PgPool) {
    let server = Server::start(pool).await;
    let path = rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    attempt(&server, |update| update["status"] == "pending").await;
    printer
        .send_json(&json!({"kind": "firmware_progress", "percent": 45, "status": "Downloading 45%"}))
        .await
        .unwrap();
    let update = attempt(&server, |update| update["status"] == "downloading").await;
    assert_eq!(
        (&update["last_percent"], &update["last_status_message"]),
        (&json!(45), &json!("Downloading 45%"))
    );
    printer.send_json(&json!({"kind": "firmware_complete", "version": "1.5.0"})).await.unwrap();
    let update = attempt(&server, |update| update["status"] == "completed").await;
    assert_eq!((&update["open"], &update["confirmed_at"]), (&json!(true), &Value::Null));
    // Out of order: nothing that comes now changes the outcome.
    printer.send_json(&json!({"kind": "firmware_progress", "percent": 50, "status": "late"})).await.unwrap();
    printer.send_json(&json!({"kind": "firmware_failed", "error": "late"})).await.unwrap();
    printer
        .send_json(&json!({"kind": "firmware_declined", "version": "1.5.0", "auto_update": false}))
        .await
        .unwrap();
    tokio::time::sleep(BRIEF).await;
    assert_eq!(attempt(&server, |_| true).await["status"], "completed");
    printer.close().await.unwrap();

    let mut options = server.printer(1);
    options.firmware_version = "1.5.0".into();
    let _back = Printer::online(options).await.unwrap();
    let update = attempt(&server, |update| update["open"] == false).await;
    assert_eq!((&update["status"], update["confirmed_at"].is_string()), (&json!("completed"), true));
    let rollout = server.wait(&path, |rollout| rollout["status"] == "completed").await;
    assert_eq!((&rollout["confirmed_count"], &rollout["total_targets"]), (&json!(1), &json!(1)));
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_that_comes_back_on_the_old_version_has_failed(pool: PgPool) {
    let server = Server::with(pool, &[("RETRY_BACKOFF_SECONDS", "3600")]).await;
    rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    printer.send_json(&json!({"kind": "firmware_complete", "version": "1.5.0"})).await.unwrap();
    attempt(&server, |update| update["status"] == "completed").await;
    printer.drop_hard();
    let mut back = Printer::online(server.printer(1)).await.unwrap();
    let update = attempt(&server, |update| update["open"] == false).await;
    assert_eq!((&update["status"], &update["reason"]), (&json!("failed"), &json!("rolled_back")));
    assert!(matches!(back.next_offer(BRIEF).await, Err(Error::Timeout(_))), "the next try waits");
    server.stop().await;
}

#[sqlx::test]
async fn a_device_whose_socket_dropped_after_the_offer_and_that_is_back_on_the_old_version_has_failed(
    pool: PgPool,
) {
    let server = Server::with(pool, &[("RETRY_BACKOFF_SECONDS", "3600")]).await;
    rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.device(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    printer.drop_hard();
    server.wait("/api/printers?online=false", |list| list["total"] == 1).await;
    let _back = Printer::online(server.device(1)).await.unwrap();
    let update = attempt(&server, |update| update["open"] == false).await;
    assert_eq!(
        (&update["status"], &update["reason"], &update["attempt"]),
        (&json!("failed"), &json!("rolled_back"), &json!(1))
    );
    server.stop().await;
}

#[sqlx::test]
async fn whoever_failed_and_runs_the_new_version_after_all_succeeded(pool: PgPool) {
    let server = Server::with(pool, &[("RETRY_BACKOFF_SECONDS", "3600")]).await;
    let path = rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    printer.send_json(&json!({"kind": "firmware_failed", "error": "HTTP error -1"})).await.unwrap();
    attempt(&server, |update| update["status"] == "failed").await;
    printer.drop_hard();
    let mut options = server.printer(1);
    options.firmware_version = "1.5.0".into();
    let _back = Printer::online(options).await.unwrap();
    let proved = |rollout: &Value| rollout["confirmed_count"] == 1 && rollout["status"] == "completed";
    assert_eq!(server.wait(&path, proved).await["failed_count"], 0);
    server.stop().await;
}

#[sqlx::test]
async fn a_third_version_ends_the_update_without_blame(pool: PgPool) {
    let server = Server::start(pool).await;
    rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    printer.drop_hard();
    let mut options = server.printer(1);
    options.firmware_version = "2.0.0".into();
    let _back = Printer::online(options).await.unwrap();
    let update = attempt(&server, |update| update["open"] == false).await;
    assert_eq!((&update["status"], &update["reason"]), (&json!("cancelled"), &json!("superseded")));
    server.stop().await;
}

#[sqlx::test]
async fn silence_fails_an_update_and_a_late_proof_mends_that(pool: PgPool) {
    let server = Server::with(pool, &[("STUCK_AFTER_SECONDS", "1"), ("MAX_ATTEMPTS", "1")]).await;
    let path = rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    let update = attempt(&server, |update| update["open"] == false).await;
    assert_eq!((&update["status"], &update["reason"]), (&json!("failed"), &json!("timeout")));
    server.wait(&path, |rollout| rollout["failed_count"] == 1 && rollout["status"] == "completed").await;
    assert!(matches!(printer.next_offer(BRIEF).await, Err(Error::Timeout(_))), "its tries are used up");
    printer.drop_hard();
    let mut options = server.printer(1);
    options.firmware_version = "1.5.0".into();
    let _back = Printer::online(options).await.unwrap();
    let rollout = server.wait(&path, |rollout| rollout["confirmed_count"] == 1).await;
    assert_eq!((&rollout["failed_count"], &rollout["completed_count"]), (&json!(0), &json!(1)));
    server.stop().await;
}

#[sqlx::test]
async fn a_new_try_reaches_a_printer_that_stays_connected_after_a_silent_one(pool: PgPool) {
    let server = Server::with(pool, &[("STUCK_AFTER_SECONDS", "1")]).await;
    let path = rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    for _ in 0..3 {
        printer.next_offer(SOON).await.unwrap();
    }
    assert!(
        matches!(printer.next_offer(Duration::from_secs(3)).await, Err(Error::Timeout(_))),
        "three tries are all"
    );
    let rollout = server.wait(&path, |rollout| rollout["failed_count"] == 1).await;
    assert_eq!((&rollout["pending_count"], &rollout["total_targets"]), (&json!(0), &json!(1)));
    assert_eq!(server.get("/api/printers/1/updates?status=failed").await.expect(200)["total"], 3);
    server.stop().await;
}

#[sqlx::test]
async fn who_declines_is_not_asked_again(pool: PgPool) {
    let server = Server::start(pool).await;
    let path = rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    printer
        .send_json(&json!({"kind": "firmware_declined", "version": "1.5.0", "auto_update": false}))
        .await
        .unwrap();
    server.wait(&path, |rollout| rollout["declined_count"] == 1 && rollout["status"] == "completed").await;
    printer.close().await.unwrap();
    let mut back = Printer::online(server.printer(1)).await.unwrap();
    assert!(matches!(back.next_offer(BRIEF).await, Err(Error::Timeout(_))));
    server.stop().await;
}

#[sqlx::test]
async fn the_newest_connection_wins(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut old = Printer::online(server.printer(1)).await.unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 1).await;
    let mut new = Printer::online(server.printer(1)).await.unwrap();
    assert!(matches!(old.next_message(SOON).await, Err(Error::Closed { code: Some(1008), .. })));
    drop(old);
    tokio::time::sleep(BRIEF).await;
    assert_eq!(
        server.get("/api/printers/1").await.expect(200)["online"],
        true,
        "the old socket's end changes nothing"
    );
    rollout(&server, "1.5.0").await;
    new.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn printers_of_a_replica_without_a_lease_are_offline(pool: PgPool) {
    let server = Server::start(pool).await;
    let _printer = Printer::online(server.printer(1)).await.unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 1).await;
    sqlx::query("update replicas set lease_until = now() - interval '1 second'")
        .execute(&server.pool)
        .await
        .unwrap();
    assert_eq!(server.get("/api/printers/1").await.expect(200)["online"], false);
    server.wait("/api/printers/1", |printer| printer["online"] == true).await;
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_s_uptime_is_what_it_was_connected(pool: PgPool) {
    let server = Server::start(pool).await;
    let uptime = async |online: bool, seconds: i64, percent: f64| {
        let is_near = |printer: &Value| {
            let seconds_of = printer["online_seconds"].as_i64().unwrap();
            let percent_of = printer["uptime_percent"].as_f64().unwrap();
            printer["online"] == online
                && (seconds..seconds + 20).contains(&seconds_of)
                && (percent_of - percent).abs() < 1.0
        };
        server.wait("/api/printers/1", is_near).await;
    };
    let earlier = async |sql: &'static str| {
        assert_eq!(sqlx::query(sql).execute(&server.pool).await.unwrap().rows_affected(), 1, "{sql}");
    };
    let printer = Printer::online(server.printer(1)).await.unwrap();
    server.wait("/api/printers/1", |printer| printer["online"] == true).await;
    earlier("update printers set created_at = now() - interval '1 hour'").await;
    earlier("update presence set last_connected = now() - interval '30 minutes'").await;
    uptime(true, 1800, 50.0).await;
    printer.close().await.unwrap();
    uptime(false, 1800, 50.0).await;

    // Its replica dies: it was there until the lease ended.
    let _printer = Printer::online(server.printer(1)).await.unwrap();
    uptime(true, 1800, 50.0).await;
    earlier("insert into replicas (id, name, lease_until) values (gen_random_uuid(), 'dead', now() - interval '10 minutes')").await;
    earlier(
        "update presence set last_connected = now() - interval '15 minutes', \
         replica = (select id from replicas where name = 'dead')",
    )
    .await;
    let _newer = Printer::online(server.printer(1)).await.unwrap();
    uptime(true, 2100, 58.3).await;
    server.stop().await;
}

#[sqlx::test]
async fn a_full_replica_refuses_cheaply_and_says_when_to_come_back(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_CONNECTIONS", "1")]).await;
    let _first = Printer::online(server.printer(1)).await.unwrap();
    assert!(matches!(Printer::connect(server.printer(2)).await, Err(Error::Refused(503))));
    server.stop().await;
}

#[sqlx::test]
async fn what_a_printer_says_while_the_database_is_away_is_not_lost(pool: PgPool) {
    let server = Server::start(pool).await;
    let path = rollout(&server, "1.5.0").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    printer.next_offer(SOON).await.unwrap();
    // Nobody may connect, and whoever is connected is thrown out.
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&server.pool).await.unwrap();
    let admin =
        PgPool::connect_with((*server.pool.connect_options()).clone().database("postgres")).await.unwrap();
    let allow = async |allowed: bool| {
        let allow =
            sqlx::AssertSqlSafe(format!("alter database \"{name}\" with allow_connections {allowed}"));
        sqlx::query(allow).execute(&admin).await.unwrap();
    };
    allow(false).await;
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
        .bind(&name)
        .execute(&admin)
        .await
        .unwrap();
    printer.send_json(&json!({"kind": "firmware_failed", "error": "no space"})).await.unwrap();
    let answer = server.get(&path).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers.contains_key("retry-after")),
        (503, true),
        "{}",
        answer.body
    );
    let text = answer.body.to_string();
    assert!(
        answer.body["trace_id"].is_string() && !text.contains("sqlx") && !text.contains("terminat"),
        "{text}"
    );
    allow(true).await;
    let failed = server.wait("/api/printers/1/updates?status=failed", |list| list["total"] == 1).await;
    assert_eq!(failed["updates"][0]["error_message"], "no space");
    printer.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn health_and_metrics_are_on_the_internal_address(pool: PgPool) {
    let server = Server::start(pool).await;
    let _printer = Printer::online(server.printer(1)).await.unwrap();
    for path in ["/livez", "/readyz"] {
        assert_eq!(reqwest::get(server.internal(path)).await.unwrap().status(), 200, "{path}");
        assert_eq!(server.get(path).await.status, 404, "{path} is not for the public");
    }
    server.wait("/api/printers", |list| list["total"] == 1).await;
    let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
    for name in [
        "paperminder_printers_connected",
        "paperminder_messages_total{kind=\"subscribe\"}",
        "http_server_request_duration_seconds_bucket",
    ] {
        assert!(metrics.contains(name), "{name} is missing in:\n{metrics}");
    }
    server.stop().await;
}
