//! What an operator says about the owners of printers, and where printers say they stand.

use axum::http::Method;
use paperminder_ota::printers::{Cohort, Facts, Owner, owners};
use paperminder_ota::simulate::Printer;
use paperminder_ota::windows::TimeZoneName;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgListener;

use crate::support::{Answer, SOON, Server};

const PATH: &str = "/api/users/user-123";

async fn put(server: &Server, body: &Value) -> Answer {
    server.send(server.request(Method::PUT, PATH).json(body)).await
}

fn nights() -> Value {
    json!({"weekly": [{"days": ["sun"], "from": "23:00", "to": "05:00"}], "time_zone": null, "mandatory_ignores": false})
}

#[sqlx::test]
async fn what_is_said_of_a_user_replaces_what_was_said_before(pool: PgPool) {
    let server = Server::start(pool).await;
    let nothing = json!({"user_id": "user-123", "time_zone": null, "windows": null, "updated_at": null});
    assert_eq!(server.get(PATH).await.expect(200), nothing, "no user is unknown");

    let body = json!({"time_zone": "europe/rome", "windows": {"weekly": [{"days": ["sun"], "from": "23:00", "to": "05:00"}]}});
    let user = put(&server, &body).await.expect(200);
    assert_eq!((&user["time_zone"], &user["windows"]), (&json!("Europe/Rome"), &nights()));
    assert_eq!(server.get(PATH).await.expect(200), user);
    let known = owners(&mut server.pool.acquire().await.unwrap()).await.unwrap();
    let rome: TimeZoneName = "Europe/Rome".parse().unwrap();
    let windows = serde_json::from_value(nights()).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[&"user-123".parse().unwrap()], Owner { time_zone: Some(rome), windows: Some(windows) });

    let user = put(&server, &json!({"windows": nights()})).await.expect(200);
    assert_eq!(
        (&user["time_zone"], &user["windows"]),
        (&Value::Null, &nights()),
        "what is left out is taken away"
    );
    server.delete(PATH).await.expect(204);
    server.delete(PATH).await.expect(204);
    assert_eq!(server.get(PATH).await.expect(200), nothing);
    assert!(owners(&mut server.pool.acquire().await.unwrap()).await.unwrap().is_empty());
    server.stop().await;
}

#[sqlx::test]
async fn two_who_change_a_user_at_once_do_not_undo_each_other(pool: PgPool) {
    let server = Server::start(pool).await;
    let send = async |method: Method, tag: &Value| {
        let request = server.request(method, PATH).header("if-match", tag.as_str().unwrap());
        server.send(request.json(&json!({"windows": nights()}))).await
    };
    let tag = |answer: &Answer| json!(answer.headers["etag"].to_str().unwrap());
    let unknown = tag(&server.get(PATH).await);
    let first = send(Method::PUT, &unknown).await;
    let seen = tag(&server.get(PATH).await);
    assert_eq!(tag(&first), seen, "a PUT answers with the tag of a GET");
    first.expect(200);
    let problem = send(Method::PUT, &unknown).await.expect(412);
    assert_eq!(problem["type"], "/docs/problems/precondition-failed");
    send(Method::PUT, &seen).await.expect(200);
    send(Method::DELETE, &seen).await.expect(412);
    server.delete(PATH).await.expect(204);
    send(Method::PUT, &unknown).await.expect(200);
    send(Method::PUT, &seen).await.expect(412);
    server.stop().await;
}

#[sqlx::test]
async fn every_wrong_field_of_a_user_is_named_and_nothing_is_changed(pool: PgPool) {
    let server = Server::start(pool).await;
    let wrong = json!({"time_zone": "Rome", "windows": {"weekly": [{"days": ["someday"], "from": "2", "to": "05:00"}], "time_zone": "Nowhere"}});
    let problem = put(&server, &wrong).await.expect(422);
    let fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        ["time_zone", "windows.weekly[0].days[0]", "windows.weekly[0].from", "windows.time_zone"]
    );
    assert!(problem["detail"].as_str().unwrap().contains("the nearest is `Europe/Rome`"), "{problem}");
    for body in [
        json!({"timezone": "Europe/Rome"}),
        json!({"windows": {"weekly": [], "mandatory": true}}),
        json!({"windows": {}}),
        json!([]),
    ] {
        put(&server, &body).await.expect(422);
    }
    server.get("/api/users/user-123?x=1").await.expect(422);
    server.get(&format!("/api/users/{}", "x".repeat(65))).await.expect(422);
    assert_eq!(server.get(PATH).await.expect(200)["updated_at"], Value::Null);
    server.stop().await;
}

#[sqlx::test]
async fn every_replica_hears_of_a_change_when_it_is_committed(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut hints = PgListener::connect_with(&server.pool).await.unwrap();
    hints.listen("paperminder").await.unwrap();
    let mut heard =
        async || tokio::time::timeout(SOON, hints.recv()).await.unwrap().unwrap().payload().to_owned();
    put(&server, &json!({"time_zone": "Asia/Tokyo"})).await.expect(200);
    assert_eq!(heard().await, "*");
    server.delete(PATH).await.expect(204);
    assert_eq!(heard().await, "*");
    drop(hints);
    server.stop().await;
}

#[sqlx::test]
async fn a_row_that_this_version_cannot_read_keeps_nobody_waiting_and_can_be_mended(pool: PgPool) {
    let server = Server::start(pool).await;
    sqlx::query("insert into owners (user_id, time_zone, windows, updated_at) values ('user-123', 'Mars/Olympus', '{\"monthly\": []}', now()), ('b', 'Asia/Tokyo', null, now())")
        .execute(&server.pool)
        .await
        .unwrap();
    let known = owners(&mut server.pool.acquire().await.unwrap()).await.unwrap();
    assert_eq!(known[&"user-123".parse().unwrap()], Owner::default());
    assert_eq!(known[&"b".parse().unwrap()].time_zone, Some("Asia/Tokyo".parse().unwrap()));
    assert_eq!(server.get(PATH).await.expect(200)["time_zone"], Value::Null);
    put(&server, &json!({"time_zone": "Asia/Tokyo"})).await.expect(200);
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_says_where_it_stands_and_a_wrong_place_is_ignored_with_a_word(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut printer = Printer::connect(server.printer(1)).await.unwrap();
    let said = |zone: Value| json!({"printer_id": "p-1", "firmware_version": "1.0.0", "time_zone": zone});
    let stands = async |zone: Value| server.wait("/api/printers/p-1", |it| it["time_zone"] == zone).await;
    printer.send_json(&said(json!("Europe/Rome"))).await.unwrap();
    stands(json!("Europe/Rome")).await;
    printer.send_json(&said(json!("Asia/Tokyo"))).await.unwrap();
    stands(json!("Asia/Tokyo")).await;
    printer.send_json(&said(json!("Asia/Tokio"))).await.unwrap();
    stands(Value::Null).await;
    let status = printer.next_message(SOON).await.unwrap();
    assert_eq!((&status["kind"], &status["code"]), (&json!("status"), &json!("bad_field")));
    assert!(status["detail"].as_str().unwrap().contains("the nearest is `Asia/Tokyo`"), "{status}");
    printer.drop_hard();

    // The first subscribe of a socket, too, is taken but for the time zone.
    let mut printer = Printer::connect(server.printer(1)).await.unwrap();
    printer.send_json(&said(json!(7))).await.unwrap();
    let status = printer.next_message(SOON).await.unwrap();
    assert_eq!(status["detail"], "time_zone must be a string. It is ignored.");
    assert_eq!(server.get("/api/printers/p-1").await.expect(200)["online"], true);
    server.release("1.5.0", "stable").await;
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    printer.next_offer(SOON).await.unwrap();
    printer.drop_hard();
    server.stop().await;
}

#[test]
fn a_printer_s_own_time_zone_counts_before_its_owner_s() {
    let zone = |name: &str| name.parse::<TimeZoneName>().unwrap();
    let facts = |time_zone| Facts { time_zone, ..facts() };
    let owner = Owner { time_zone: Some(zone("Asia/Tokyo")), windows: None };
    assert_eq!(facts(Some(zone("Europe/Rome"))).zone(Some(&owner)), Some(&zone("Europe/Rome")));
    assert_eq!(facts(None).zone(Some(&owner)), Some(&zone("Asia/Tokyo")));
    assert_eq!(facts(None).zone(Some(&Owner::default())), None);
    assert_eq!(facts(None).zone(None), None);
}

fn facts() -> Facts {
    Facts {
        printer: paperminder_ota::ids::PrinterRef::generate(),
        printer_id: "p-1".parse().unwrap(),
        user_id: "user-123".parse().unwrap(),
        bucket: 0,
        cohort: Cohort {
            platform: Default::default(),
            version: "1.0.0".to_owned().into(),
            auto_update: true,
            channel: Default::default(),
            installed: None,
        },
        previous: None,
        downloads: Default::default(),
        time_zone: None,
        shared_key: false,
    }
}
