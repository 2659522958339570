//! `Idempotency-Key`: whatever is sent again changes nothing more, and gets the first answer.

use std::collections::BTreeSet;
use std::time::Duration;

use paperminder_ota::clock::Clock;
use paperminder_ota::idempotency::http::TAKERS;
use paperminder_ota::idempotency::{KEPT, forget};
use paperminder_ota::simulate::image::esp8266_image;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::keys::{BOOTSTRAP, closed};
use crate::support::{Answer, Server};

const KEY: &str = "Idempotency-Key";

async fn post(server: &Server, key: &str, path: &str, body: &Value) -> Answer {
    server.send(server.request(Method::POST, path).header(KEY, key).json(body)).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// The second answer is the first one, given again.
#[track_caller]
fn assert_again(first: &Answer, second: &Answer) {
    assert!(first.status.is_success(), "{first:?}");
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert_eq!(first.headers.get("location"), second.headers.get("location"));
    assert_eq!(first.headers["content-type"], second.headers["content-type"]);
    assert!(!is_replayed(first) && is_replayed(second), "{second:?}");
}

/// Refused with this type of problem.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, slug: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.body["type"], format!("/docs/problems/{slug}"), "{answer:?}");
}

fn everybody(version: &str) -> Value {
    json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": 0})
}

async fn rollouts(server: &Server) -> Value {
    server.get("/api/rollouts").await.expect(200)["total"].clone()
}

#[sqlx::test]
async fn a_request_sent_again_changes_nothing_and_gets_the_same_answer(pool: PgPool) {
    let (mut server, _file) = closed(pool).await;
    server.as_key(BOOTSTRAP);
    server.release("1.5.0", "stable").await;
    let wanted = everybody("1.5.0");
    let first = post(&server, "one", "/api/rollouts", &wanted).await;
    // What happened since does not change what was answered.
    let path = first.headers["location"].to_str().unwrap().to_owned();
    server.patch(&path, &json!({"rollout_percentage": 50})).await.expect(200);
    assert_again(&first, &post(&server, "one", "/api/rollouts", &wanted).await);
    assert_again(&first, &post(&server, "\"one\"", "/api/rollouts", &wanted).await);
    assert_eq!(rollouts(&server).await, 1);

    let mut other = wanted.clone();
    other["rollout_percentage"] = json!(1);
    let refused = post(&server, "one", "/api/rollouts", &other).await;
    assert_problem(&refused, 422, "idempotency-key-reused");
    assert!(refused.body["detail"].as_str().unwrap().contains("createRollout"), "{refused:?}");
    let elsewhere = post(&server, "one", "/api/firmware/1.5.0/promote", &json!({"to": "beta"})).await;
    assert_problem(&elsewhere, 422, "idempotency-key-reused");
    let told = post(&server, "one", "/api/rollouts?dry_run=true", &wanted).await;
    assert!(
        told.status == 200 && !is_replayed(&told),
        "nothing is changed, so nothing is in the way: {told:?}"
    );
    assert_eq!(rollouts(&server).await, 1);

    // The same key of somebody else is another key.
    let body = json!({"name": "second", "role": "operator"});
    let second = server.post("/api/keys", &body).await.expect(201);
    let request = server.request(Method::POST, "/api/rollouts").bearer_auth(second["key"].as_str().unwrap());
    let own = server.send(request.header(KEY, "one").json(&wanted)).await;
    assert!(own.status == 201 && !is_replayed(&own), "{own:?}");
    assert_eq!(rollouts(&server).await, 2);

    for (keys, what) in [(vec![""], "empty"), (vec!["a b"], "blank"), (vec!["a", "b"], "two")] {
        let request = server.request(Method::POST, "/api/rollouts").json(&wanted);
        let request = keys.iter().fold(request, |request, key| request.header(KEY, *key));
        let answer = server.send(request).await;
        assert_eq!(answer.status, 422, "{what}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], KEY, "{what}");
    }
    assert_eq!(rollouts(&server).await, 2);
    server.stop().await;
}

#[sqlx::test]
async fn of_many_at_once_one_is_carried_out(pool: PgPool) {
    let first = Server::start(pool).await;
    let second = first.twin().await;
    first.release("1.5.0", "stable").await;
    for round in 0..3 {
        let mut all = JoinSet::new();
        for index in 0..16 {
            let server = if index % 2 == 0 { &first } else { &second };
            let request = server
                .request(Method::POST, "/api/rollouts")
                .header(KEY, format!("round {round}").replace(' ', "-"));
            all.spawn(request.json(&everybody("1.5.0")).send());
        }
        let (mut numbers, mut replayed) = (BTreeSet::new(), 0);
        while let Some(answer) = all.join_next().await {
            let answer = answer.unwrap().unwrap();
            replayed += u32::from(answer.headers().contains_key("idempotency-replayed"));
            assert_eq!(answer.status(), 201);
            numbers.insert(answer.json::<Value>().await.unwrap()["number"].as_u64());
        }
        assert_eq!((numbers.len(), replayed), (1, 15));
    }
    assert_eq!(rollouts(&first).await, 3);
    second.stop().await;
    first.stop().await;
}

#[sqlx::test]
async fn a_refusal_uses_no_key_up(pool: PgPool) {
    let server = Server::start(pool).await;
    let refused = post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await;
    assert_problem(&refused, 404, "firmware-not-found");
    server.release("1.5.0", "stable").await;
    let mut wanted = everybody("1.5.0");
    wanted["rollout_percentage"] = json!(101);
    assert_problem(&post(&server, "one", "/api/rollouts", &wanted).await, 422, "validation");
    let made = post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await;
    assert!(made.status == 201 && !is_replayed(&made), "{made:?}");
    server.stop().await;
}

#[sqlx::test]
async fn what_is_asked_for_depends_on_who_sees_what(pool: PgPool) {
    let (mut server, _file) = closed(pool.clone()).await;
    server.as_key(BOOTSTRAP);
    server.release("1.5.0", "stable").await;
    let body = json!({"name": "tenant", "role": "operator", "scope": {"user_ids": ["one"]}});
    let key = server.post("/api/keys", &body).await.expect(201);
    server.as_key(key["key"].as_str().unwrap());
    post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await.expect(201);
    // As with a person whose next token is about other printers.
    sqlx::query("update api_keys set user_ids = '{two}' where user_ids = '{one}'")
        .execute(&pool)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let other = post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await;
    assert_problem(&other, 422, "idempotency-key-reused");
    server.stop().await;
}

#[sqlx::test]
async fn how_a_body_is_called_makes_no_difference(pool: PgPool) {
    let server = Server::start(pool).await;
    let image = esp8266_image(20 << 10, 1);
    let shouted = async || {
        let body = [b"--b\r\nContent-Disposition: form-data; name=\"version\"\r\n\r\n1.5.0\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n", &image[..], b"\r\n--b--\r\n"].concat();
        let request = server.request(Method::POST, "/api/firmware/upload").header(KEY, "one");
        server.send(request.header("Content-Type", "Multipart/Form-Data; boundary=b").body(body)).await
    };
    let (first, second) = (shouted().await, shouted().await);
    assert_again(&first, &second);
    let steps = json!([{"percentage": 1, "soak": "1h"}, {"percentage": 100}]);
    let stepped = json!({"firmware_version": "1.5.0", "target": {"user_ids": ["nobody"]}, "rollout_type": "gradual", "steps": steps});
    let path = format!("/api/rollouts/{}/advance", server.rollout(stepped).await["number"]);
    let advance = async || {
        let request = server.request(Method::POST, &path).header(KEY, "two");
        server.send(request.multipart(Form::new().text("a", "b"))).await
    };
    assert_eq!(advance().await.status, 200, "nobody reads that body");
    server.stop().await;
}

/// An upload, the file before the fields or behind them.
async fn upload(server: &Server, key: Option<&str>, image: &[u8], notes: &str, file_first: bool) -> Answer {
    let file = Part::bytes(image.to_vec()).file_name("firmware.bin");
    let fields = |form: Form| form.text("version", "1.5.0").text("release_notes", notes.to_owned());
    let form = match file_first {
        true => fields(Form::new().part("file", file)),
        false => fields(Form::new()).part("file", file),
    };
    let mut request = server.request(Method::POST, "/api/firmware/upload").multipart(form);
    if let Some(key) = key {
        request = request.header(KEY, key);
    }
    server.send(request).await
}

#[sqlx::test]
async fn an_upload_is_known_by_its_fields_and_its_file(pool: PgPool) {
    let server = Server::start(pool).await;
    let (image, other) = (esp8266_image(20 << 10, 1), esp8266_image(20 << 10, 2));
    let first = upload(&server, Some("one"), &image, "Bug fixes", true).await;
    let objects = server.objects();
    for file_first in [true, false] {
        assert_again(&first, &upload(&server, Some("one"), &image, "Bug fixes", file_first).await);
        for (image, notes) in [(&other, "Bug fixes"), (&image, "Features")] {
            let refused = upload(&server, Some("one"), image, notes, file_first).await;
            assert_problem(&refused, 422, "idempotency-key-reused");
        }
        for key in [None, Some("two")] {
            let refused = upload(&server, key, &image, "Bug fixes", file_first).await;
            assert_problem(&refused, 409, "firmware-exists");
        }
    }
    assert_eq!(server.objects(), objects, "what was sent again left nothing behind");
    assert_eq!(server.get("/api/firmware").await.expect(200)["total"], 1);
    server.stop().await;
}

#[sqlx::test]
async fn uploads_at_once_make_one_release(pool: PgPool) {
    let server = Server::start(pool).await;
    let image = esp8266_image(20 << 10, 1);
    let all: Vec<_> = (0..4).map(|_| upload(&server, Some("one"), &image, "Bug fixes", true)).collect();
    let answers = futures_util::future::join_all(all).await;
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 3);
    assert_eq!(server.objects().len(), 1, "{:?}", server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn whoever_vanished_finds_the_answer(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    server.release("1.5.0", "stable").await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock table update_rollouts in exclusive mode").execute(&mut *lock).await.unwrap();
    let request = server.request(Method::POST, "/api/rollouts").header(KEY, "one").json(&everybody("1.5.0"));
    let gone = request.timeout(Duration::from_secs(1)).send().await;
    assert!(gone.unwrap_err().is_timeout());
    lock.rollback().await.unwrap();
    let again = post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await;
    assert!(again.status == 201 && is_replayed(&again), "{again:?}");
    assert_eq!(rollouts(&server).await, 1);
    server.stop().await;
}

#[sqlx::test]
async fn an_answer_that_was_lost_is_told_to_be(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    server.release("1.5.0", "stable").await;
    post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await.expect(201);
    // As when the replica dies between the commit and the answer.
    for (seconds, told, retry_after) in [(10.0, "is not known yet", Some("3")), (120.0, "was lost", None)] {
        let lost = "update idempotency_keys set status = null, location = null, body = null, created_at = now() - make_interval(secs => $1)";
        sqlx::query(lost).bind(seconds).execute(&pool).await.unwrap();
        let again = post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await;
        assert_problem(&again, 409, "idempotency-key-spent");
        assert!(again.body["detail"].as_str().unwrap().contains(told), "{again:?}");
        let after = again.headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(after, retry_after);
    }
    assert_eq!(rollouts(&server).await, 1);
    server.stop().await;
}

#[sqlx::test]
async fn answers_are_kept_for_a_day(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    server.release("1.5.0", "stable").await;
    post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await.expect(201);
    let now = Clock::system().now();
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(forget(&mut conn, now + KEPT - Duration::from_secs(60)).await.unwrap(), 0);
    assert_eq!(forget(&mut conn, now + KEPT + Duration::from_secs(60)).await.unwrap(), 1);
    drop(conn);
    let anew = post(&server, "one", "/api/rollouts", &everybody("1.5.0")).await;
    assert!(anew.status == 201 && !is_replayed(&anew), "{anew:?}");
    assert_eq!(rollouts(&server).await, 2);
    server.stop().await;
}

/// Sends a request twice, without the key's help a third time. Returns the first answer.
async fn twice(
    server: &Server,
    done: &mut BTreeSet<&'static str>,
    what: &'static str,
    path: &str,
    body: Value,
) -> Value {
    let first = post(server, what, path, &body).await;
    assert_again(&first, &post(server, what, path, &body).await);
    done.insert(what);
    first.body
}

/// The same of what answers with a secret: it is not told again, and nothing more is made.
async fn once(
    server: &Server,
    done: &mut BTreeSet<&'static str>,
    what: &'static str,
    path: &str,
    body: &str,
) -> Value {
    let kind = if body.starts_with('{') { "application/json" } else { "text/csv" };
    let request = || {
        let request = server.request(Method::POST, path).header(KEY, what).header("Content-Type", kind);
        server.send(request.body(body.to_owned()))
    };
    let first = request().await;
    assert!(first.status.is_success(), "{first:?}");
    assert_problem(&request().await, 409, "idempotency-key-spent");
    done.insert(what);
    first.body
}

#[sqlx::test]
async fn every_operation_that_takes_it_is_done_once(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let mut done = BTreeSet::new();
    let image = esp8266_image(20 << 10, 1);
    let first = upload(&server, Some("uploadFirmware"), &image, "Bug fixes", true).await;
    assert_again(&first, &upload(&server, Some("uploadFirmware"), &image, "Bug fixes", true).await);
    done.insert("uploadFirmware");
    twice(&server, &mut done, "promoteFirmware", "/api/firmware/1.5.0/promote", json!({"to": "beta"})).await;

    let image = esp8266_image(20 << 10, 2);
    let sha256 = hex::encode(Sha256::digest(&image));
    let wanted = json!({"version": "1.6.0", "size": image.len(), "sha256": sha256});
    let begun = server.post("/api/firmware/uploads", &wanted).await.expect(201);
    let put =
        reqwest::Client::new().put(begun["urls"][0].as_str().unwrap()).body(image).send().await.unwrap();
    let parts = json!({"parts": [put.headers()["etag"].to_str().unwrap()]});
    let path = format!("/api/firmware/uploads/{}/complete", begun["id"].as_str().unwrap());
    twice(&server, &mut done, "completeUpload", &path, parts).await;

    let fleet = crate::rollouts::fleet(&server, 1).await;
    let printer = fleet.printers()[0].id().to_string();
    fleet.stop().await;
    let steps =
        json!([{"percentage": 1, "soak": "1h"}, {"percentage": 2, "soak": "1h"}, {"percentage": 100}]);
    let stepped = json!({"firmware_version": "1.5.0", "target": {"user_ids": ["nobody"]}, "rollout_type": "gradual", "steps": steps});
    let rollout = twice(&server, &mut done, "createRollout", "/api/rollouts", stepped).await;
    let path = format!("/api/rollouts/{}", rollout["number"]);
    let advanced = twice(&server, &mut done, "advanceRollout", &format!("{path}/advance"), json!({})).await;
    assert_eq!(server.get(&path).await.expect(200)["rollout_percentage"], advanced["rollout_percentage"]);
    assert_eq!(advanced["rollout_percentage"], 2, "one step");
    twice(&server, &mut done, "retryFailed", &format!("{path}/retry-failed"), json!({})).await;
    twice(&server, &mut done, "rollBack", &format!("{path}/rollback"), json!({})).await;
    let force = json!({"firmware_version": "1.6.0"});
    twice(&server, &mut done, "forceUpdate", &format!("/api/printers/{printer}/update"), force).await;

    let key =
        once(&server, &mut done, "createKey", "/api/keys", r#"{"name": "guest", "role": "viewer"}"#).await;
    let path = format!("/api/keys/{}/rotate", key["id"].as_str().unwrap());
    let rotated = once(&server, &mut done, "rotateKey", &path, "{}").await;
    assert_eq!(server.get("/api/keys").await.expect(200)["total"], 1);
    let own = r#"{"user_id": "demo"}"#;
    let made = once(&server, &mut done, "createPrinterKey", "/api/printer-keys", own).await;
    let path = format!("/api/printer-keys/{}/rotate", made["id"].as_str().unwrap());
    let renewed = once(&server, &mut done, "rotatePrinterKey", &path, "{}").await;
    let csv = "user_id,printer_id,api_key\nuser-1,p-1,\n";
    let imported = once(&server, &mut done, "importPrinterKeys", "/api/printer-keys/import", csv).await;
    assert_eq!(server.get("/api/printer-keys").await.expect(200)["total"], 2);

    assert_eq!(done, BTreeSet::from(TAKERS), "each that takes the header");
    let kept: String = sqlx::query_scalar(
        "select string_agg(k::text || convert_from(coalesce(body, ''), 'UTF8'), ' ') from idempotency_keys k",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let made_up = imported["made_up"][0]["api_key"].clone();
    for secret in [&key["key"], &rotated["key"], &made["api_key"], &renewed["api_key"], &made_up] {
        assert!(!kept.contains(secret.as_str().unwrap()), "a secret is kept: {kept}");
    }
    server.stop().await;
}

/// Whatever makes something takes the header, unless what it makes goes away by itself.
#[test]
fn what_makes_something_takes_the_header() {
    let document: Value = serde_json::from_str(&crate::markdown::read("openapi.json")).unwrap();
    let posts = document["paths"].as_object().unwrap().values().filter_map(|item| item.get("post"));
    let (mut making, mut taking) = (BTreeSet::new(), BTreeSet::new());
    for operation in posts {
        let id = operation["operationId"].as_str().unwrap();
        if operation["responses"].get("201").is_some() {
            making.insert(id);
        }
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        if parameters.into_iter().any(|parameter| parameter["name"] == KEY) {
            taking.insert(id);
            assert!(operation["responses"].get("409").is_some(), "{id}");
        }
    }
    assert_eq!(taking, BTreeSet::from(TAKERS));
    let without: Vec<_> = making.difference(&taking).copied().collect();
    assert_eq!(without, ["beginUpload", "logIn"]);
}
