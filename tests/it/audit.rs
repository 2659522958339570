//! The trail: every change has an entry with who, where and what, nobody can change one, and it shows when somebody did.

use std::collections::BTreeSet;

use paperminder_ota::audit::{Broken, Head, verify};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::keys::{BOOTSTRAP, closed};
use crate::support::Server;
use crate::support::process::database_url;

/// What changes nothing by itself, or is noted when it is completed.
const QUIET: &[&str] = &["beginUpload", "completeUpload", "logIn", "logOut"];

async fn entries(server: &Server) -> Vec<Value> {
    let list = server.get("/api/audit?limit=500&sort=number").await.expect(200);
    list["entries"].as_array().unwrap().clone()
}

/// Calls every operation that changes something, each so that it does.
async fn busy(server: &Server) {
    let post = async |path: &str, body: Value| server.post(path, &body).await;
    let make = async |body: Value| post("/api/rollouts", body).await.expect(201)["number"].to_string();
    let held = |extra: Value| {
        let mut body = json!({"firmware_version": "1.5.0", "rollout_type": "immediate", "target": {"user_ids": ["nobody"]}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    server.release("1.5.0", "canary").await;
    post("/api/firmware/1.5.0/promote", json!({"to": "beta"})).await.expect(201);
    server.patch("/api/firmware/1.5.0?channel=beta", &json!({"release_notes": "new"})).await.expect(200);
    let rollout = make(held(json!({}))).await;
    server.patch(&format!("/api/rollouts/{rollout}"), &json!({"status": "paused"})).await.expect(200);
    post(&format!("/api/rollouts/{rollout}/retry-failed"), json!({})).await.expect(200);
    post(&format!("/api/rollouts/{rollout}/rollback"), json!({})).await.expect(200);
    server.delete(&format!("/api/rollouts/{rollout}")).await.expect(204);
    let steps = json!([{"percentage": 1, "soak": "1h"}, {"percentage": 100}]);
    let stepped = make(held(json!({"rollout_type": "gradual", "steps": steps}))).await;
    post(&format!("/api/rollouts/{stepped}/advance"), json!({})).await.expect(200);
    for how in ["deny", "approve"] {
        let waiting = make(held(json!({"requires_approval": true}))).await;
        // Whoever made it cannot approve it.
        let second = post("/api/keys", json!({"name": "second", "role": "operator"})).await.expect(201);
        let path = format!("/api/rollouts/{waiting}/{how}");
        let request =
            server.request(Method::POST, &path).bearer_auth(second["key"].as_str().unwrap()).json(&json!({}));
        server.send(request).await.expect(200);
        server.patch(&format!("/api/rollouts/{waiting}"), &json!({"status": "cancelled"})).await.expect(200);
    }
    let fleet = crate::rollouts::fleet(server, 1).await;
    let printer = fleet.printers()[0].id().to_string();
    fleet.stop().await;
    let force = json!({"firmware_version": "1.5.0", "channel": "canary"});
    post(&format!("/api/printers/{printer}/update"), force).await.expect(201);
    for what in ["block", "unblock"] {
        post(&format!("/api/printers/{printer}/{what}"), json!({})).await.expect(200);
    }
    let user = server.request(Method::PUT, "/api/users/user-1").json(&json!({"time_zone": "Asia/Tokyo"}));
    server.send(user).await.expect(200);
    server.delete("/api/users/user-1").await.expect(204);
    let own = json!({"user_id": "demo", "printer_id": printer});
    post("/api/printer-keys", own).await.expect(201);
    post(&format!("/api/printers/{printer}/reset-key"), json!({})).await.expect(204);
    let key = post("/api/printer-keys", json!({"user_id": "demo"})).await.expect(201);
    let path = format!("/api/printer-keys/{}", key["id"].as_str().unwrap());
    post(&format!("{path}/rotate"), json!({})).await.expect(200);
    server.delete(&path).await.expect(204);
    let csv = server.request(Method::POST, "/api/printer-keys/import").header("content-type", "text/csv");
    server.send(csv.body("user_id,printer_id,api_key\nuser-1,p-1,\n")).await.expect(201);
    let key = post("/api/keys", json!({"name": "guest", "role": "viewer"})).await.expect(201);
    let path = format!("/api/keys/{}", key["id"].as_str().unwrap());
    post(&format!("{path}/rotate"), json!({})).await.expect(200);
    server.delete(&path).await.expect(204);
    for rollout in server.get("/api/rollouts?limit=500").await.expect(200)["rollouts"].as_array().unwrap() {
        server
            .patch(&format!("/api/rollouts/{}", rollout["number"]), &json!({"status": "cancelled"}))
            .await
            .expect(200);
    }
    server.delete("/api/firmware/1.5.0?channel=beta").await.expect(204);
}

#[sqlx::test]
async fn whatever_changes_something_leaves_an_entry_that_says_who(pool: PgPool) {
    let (mut server, _file) = closed(pool.clone()).await;
    server.as_key(BOOTSTRAP);
    busy(&server).await;
    let trail = entries(&server).await;
    let told: BTreeSet<_> = trail.iter().filter_map(|entry| entry["operation"].as_str()).collect();
    let document = server.get("/api/openapi.json").await.expect(200);
    for item in document["paths"].as_object().unwrap().values() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let changes = method != "get" && !QUIET.contains(&id);
            assert_eq!(changes, told.contains(id), "{method} {id}; a test must call what is new");
        }
    }
    for (place, entry) in trail.iter().enumerate() {
        assert_eq!(entry["number"], place as i64 + 1);
        let actor = entry["actor"].as_str().unwrap();
        assert!(actor == "bootstrap" || actor.starts_with("key ") || actor == "server", "{entry}");
        assert_eq!(
            (entry["address"] == "127.0.0.1", entry["trace_id"].is_string()),
            (actor != "server", actor != "server"),
            "{entry}"
        );
        assert!(!entry.to_string().contains("sha256\":\"\\\\x"), "a secret's hash stands in {entry}");
    }
    let paused = trail.iter().find(|entry| entry["operation"] == "updateRollout").unwrap();
    assert_eq!((&paused["action"], &paused["subject"]), (&json!("rollout.changed"), &json!("1")));
    assert_eq!(
        (&paused["before"]["status"], &paused["after"]["status"]),
        (&json!("active"), &json!("paused"))
    );
    let made = trail.iter().find(|entry| entry["operation"] == "createRollout").unwrap();
    assert_eq!(
        (&made["after"]["created_by"], &made["after"]["reach_users"]),
        (&json!("bootstrap"), &json!(["nobody"]))
    );
    let rotated = server.get("/api/audit?action=key.rotated").await.expect(200);
    assert_eq!(rotated["total"], 1, "{rotated}");
    assert!(server.get("/api/audit?action=printer_key").await.expect(200)["total"].as_i64().unwrap() >= 6);
    let file = server.get("/api/audit/export?format=ndjson").await.expect(200);
    assert_eq!(file.as_str().unwrap().lines().count(), trail.len());
    // Whoever is refused leaves nothing.
    let before = trail.len();
    server.patch("/api/rollouts/1", &json!({"status": "active"})).await.expect(404);
    server
        .post(
            "/api/rollouts?dry_run=true",
            &json!({"firmware_version": "1.5.0", "rollout_type": "immediate", "target": {"all": true}}),
        )
        .await
        .expect(200);
    assert_eq!(entries(&server).await.len(), before);
    let head = verify(&mut pool.acquire().await.unwrap(), None).await.unwrap().unwrap();
    assert_eq!(head.number, before as i64);
    // Nor does the server's own role change a key behind the trail's back.
    sqlx::query("update api_keys set previous_sha256 = sha256('x'), previous_until = 'infinity'")
        .execute(&pool)
        .await
        .unwrap();
    assert!(entries(&server).await.len() > before);
    server.stop().await;
}

#[sqlx::test]
async fn nobody_changes_the_trail_and_it_shows_when_somebody_did(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    for name in ["a", "b", "c", "d"] {
        server.post("/api/keys", &json!({"name": name, "role": "viewer"})).await.expect(201);
    }
    let mut conn = pool.acquire().await.unwrap();
    let head = verify(&mut conn, None).await.unwrap().unwrap();
    assert_eq!(head.number, 4);
    for sql in ["update audit set actor = 'x'", "delete from audit where number = 4", "truncate audit"] {
        let error = sqlx::query(sql).execute(&mut *conn).await.unwrap_err().to_string();
        assert!(error.contains("only ever added to"), "{sql}: {error}");
    }
    // An owner of the database can take the guard away. What is left is the chain.
    sqlx::query("alter table audit disable trigger audit_is_append_only").execute(&mut *conn).await.unwrap();
    for (sql, broken) in [
        ("update audit set actor = 'x' where number = 2", Broken::Changed(2)),
        ("update audit set after = '{}' where number = 3", Broken::Changed(3)),
        ("update audit set hash = sha256('x') where number = 1", Broken::Changed(1)),
        ("delete from audit where number = 2", Broken::Missing(2)),
        ("delete from audit where number = 4", Broken::Missing(4)),
    ] {
        let mut tx = pool.begin().await.unwrap();
        assert_eq!(sqlx::query(sql).execute(&mut *tx).await.unwrap().rows_affected(), 1);
        assert_eq!(verify(&mut tx, Some(&head)).await.unwrap(), Err(broken), "{sql}");
        tx.rollback().await.unwrap();
    }
    let other = Head { hash: "0".repeat(64), ..head.clone() };
    assert_eq!(verify(&mut conn, Some(&other)).await.unwrap(), Err(Broken::Unexpected(4)));
    let run = async |expect: &str| {
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"))
            .args(["audit", "verify", "--expect", expect])
            .env_clear()
            .env("DATABASE_URL", database_url(&pool))
            .kill_on_drop(true)
            .output();
        let output = command.await.unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (ok, said) = run(&format!("{}:{}", head.number, head.hash)).await;
    assert!(ok && said.contains("4 entries are as they were written"), "{said}");
    let (ok, said) = run("9:00").await;
    assert!(!ok && said.contains("entry 9 is missing"), "{said}");
    server.stop().await;
}

#[sqlx::test]
async fn changes_at_once_make_one_chain(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let make = async |n: usize| {
        let body = json!({"name": format!("key {n}"), "role": "viewer"});
        server.post("/api/keys", &body).await.expect(201);
    };
    futures_util::future::join_all((0..60).map(make)).await;
    let head = verify(&mut pool.acquire().await.unwrap(), None).await.unwrap().unwrap();
    assert_eq!(head.number, 60);
    server.stop().await;
}
