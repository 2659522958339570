//! Keys of REST: which role opens which operation, and how a key lives.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use paperminder_ota::auth::role::{Right, Role, needs};
use paperminder_ota::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::NamedTempFile;

use crate::support::process::database_url;
use crate::support::{Answer, Server};

pub const BOOTSTRAP: &str = "a-key-of-more-than-24-characters";
/// In force on every replica after this.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

/// A server that wants keys, and the file with the first one.
pub async fn closed(pool: PgPool) -> (Server, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BOOTSTRAP).unwrap();
    let settings = [("AUTH", "on"), ("BOOTSTRAP_ADMIN_KEY_FILE", file.path().to_str().unwrap())];
    (Server::with(pool, &settings).await, file)
}

async fn ask(server: &Server, key: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = server.request(method, path);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    server.send(request).await
}

/// A key of this role, as it was shown.
async fn key(server: &Server, role: Role) -> Value {
    let wanted = json!({"name": format!("{role} of the test"), "role": role});
    ask(server, Some(BOOTSTRAP), Method::POST, "/api/keys", Some(wanted)).await.expect(201)
}

async fn opens(server: &Server, key: &Value) -> bool {
    let status = ask(server, key["key"].as_str(), Method::GET, "/api/me", None).await.status.as_u16();
    assert!([200, 401].contains(&status), "{status}");
    status == 200
}

#[sqlx::test]
async fn each_role_opens_what_it_should_and_nothing_else(pool: PgPool) {
    let (server, _file) = closed(pool).await;
    let mut keys = Vec::new();
    for role in Role::ALL {
        keys.push((role, key(&server, role).await["key"].as_str().unwrap().to_owned()));
    }
    let document = server.get("/api/openapi.json").await.expect(200);
    let mut seen = 0;
    for (route, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let right = needs(id).unwrap_or_else(|| panic!("{id} is closed to everybody"));
            let description = operation["description"].as_str().unwrap();
            assert!(description.ends_with(&right.sentence()), "{description}");
            let open = right == Right::Open;
            assert_eq!(open, operation["security"] == json!([{}]), "{id} says who may use it");
            let method: Method = method.to_uppercase().parse().unwrap();
            // What these name is not there, so that whoever may changes nothing either.
            let path = route
                .replace("{version}", "9.9.9")
                .replace("/printer-keys/{key_id}", "/printer-keys/00000000-0000-4000-8000-000000000000")
                .replace("{key_id}", "000000000000")
                .replace("{user_id}", "nobody")
                .replace("{printer_id}", "4000000")
                .replace("{rollout_id}", "4000000")
                .replace("{id}", "00000000-0000-4000-8000-000000000000");
            assert!(!path.contains('{'), "{path}");
            let body = (method != Method::GET).then(|| json!({"nonsense": 1}));
            for none in [None, Some("a-key-of-more-than-24-characterS"), Some("pmk_000000000000_00")] {
                let request = server.request(method.clone(), &path);
                let request = none.iter().fold(request, |request, key| request.bearer_auth(key));
                let request = body.iter().fold(request, |request, body| request.json(body));
                // Only its head: a stream of events does not end.
                let status = request.send().await.unwrap().status();
                assert_eq!(status == 401, !open, "{method} {path} with {none:?}: {status}");
            }
            for (role, key) in &keys {
                let request = server.request(method.clone(), &path).header("x-api-key", key);
                let request = body.iter().fold(request, |request, body| request.json(body));
                // Only its head: a stream of events does not end.
                let answer = request.send().await.unwrap();
                let status = answer.status().as_u16();
                assert!(status < 500, "{id} answers {role} with {status}");
                assert_eq!(status == 403, !role.may(right), "{id} answers {role} with {status}");
                assert_ne!(status, 401, "{id} answers {role}");
                seen += 1;
            }
        }
    }
    println!("{seen} answers");
    assert!(seen >= 4 * 39, "{seen}");
    server.stop().await;
}

/// Long enough for a busy machine to ask in it.
const OVERLAP: Duration = Duration::from_secs(10);

#[sqlx::test]
async fn a_key_is_made_used_rotated_and_revoked_on_every_replica(pool: PgPool) {
    let (server, file) = closed(pool.clone()).await;
    let settings = [("AUTH", "on"), ("BOOTSTRAP_ADMIN_KEY_FILE", file.path().to_str().unwrap())];
    let other = Server::with(pool, &settings).await;
    let made = key(&server, Role::Release).await;
    let path = format!("/api/keys/{}", made["id"].as_str().unwrap());
    let admin = async |method: Method, path: &str, body: Option<Value>| {
        ask(&server, Some(BOOTSTRAP), method, path, body).await
    };
    assert_eq!((&made["status"], &made["created_by"]), (&json!("active"), &json!("bootstrap")));
    assert!(opens(&server, &made).await && opens(&other, &made).await);
    let me = ask(&other, made["key"].as_str(), Method::GET, "/api/me", None).await.expect(200);
    assert_eq!((&me["role"], &me["key_id"]), (&json!("release"), &made["id"]));
    let seen = admin(Method::GET, &path, None).await.expect(200);
    assert!(seen["last_used_at"].is_string(), "{seen}");
    for list in [seen, admin(Method::GET, "/api/keys", None).await.expect(200)] {
        let secret = made["key"].as_str().unwrap().rsplit('_').next().unwrap();
        assert!(!list.to_string().contains(secret), "a secret is shown again: {list}");
    }

    let rotate = format!("{path}/rotate");
    let second =
        admin(Method::POST, &rotate, Some(json!({"overlap_seconds": OVERLAP.as_secs()}))).await.expect(200);
    assert_ne!(second["key"], made["key"]);
    let since = Instant::now();
    tokio::time::sleep(REVOKED_WITHIN).await;
    assert!(opens(&other, &second).await && opens(&other, &made).await, "both open in the overlap");
    tokio::time::sleep(OVERLAP.saturating_sub(since.elapsed()) + REVOKED_WITHIN / 2).await;
    assert!(opens(&other, &second).await && !opens(&other, &made).await, "the old one is over");

    admin(Method::DELETE, &path, None).await.expect(204);
    tokio::time::sleep(REVOKED_WITHIN).await;
    for replica in [&server, &other] {
        assert!(!opens(replica, &second).await, "a revoked key opens");
    }
    admin(Method::DELETE, &path, None).await.expect(204);
    assert_eq!(admin(Method::GET, &path, None).await.expect(200)["status"], "revoked");
    assert_eq!(
        admin(Method::POST, &rotate, Some(json!({}))).await.expect(409)["type"],
        "/docs/problems/key-conflict"
    );
    let unknown = admin(Method::DELETE, "/api/keys/000000000000", None).await.expect(404);
    assert_eq!(unknown["type"], "/docs/problems/key-not-found");
    server.stop().await;
    other.stop().await;
}

#[sqlx::test]
async fn a_key_ends_when_it_was_said_to(pool: PgPool) {
    let (server, _file) = closed(pool).await;
    let create =
        async |body: Value| ask(&server, Some(BOOTSTRAP), Method::POST, "/api/keys", Some(body)).await;
    let soon = Clock::system().now() + TimeDelta::seconds(3);
    let made = create(json!({"name": "a guest", "role": "viewer", "expires_at": soon})).await.expect(201);
    assert!(opens(&server, &made).await);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!opens(&server, &made).await, "it opens after its end");
    for (body, field) in [
        (json!({"name": "", "role": "viewer"}), "name"),
        (json!({"name": "x".repeat(101), "role": "viewer"}), "name"),
        (json!({"name": "a\u{7}", "role": "viewer"}), "name"),
        (json!({"name": "a", "role": "king"}), "role"),
        (json!({"name": "a", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"name": "a", "role": "viewer", "secret": "mine"}), "secret"),
    ] {
        let problem = create(body).await.expect(422);
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn the_first_key_comes_from_the_command_line(pool: PgPool) {
    let server = Server::with(pool.clone(), &[("AUTH", "on")]).await;
    let run = async |arguments: &[&str]| {
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"))
            .arg("key")
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", database_url(&pool))
            .kill_on_drop(true)
            .output();
        let output = command.await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (ok, out, err) = run(&["create", "--name", "me", "--role", "admin", "--expires-in", "30"]).await;
    assert!(ok && err.contains("shown this once"), "{err}");
    let made = json!({"key": out.trim()});
    assert!(opens(&server, &made).await);
    let id = out.split('_').nth(1).unwrap();
    let (ok, out, _) = run(&["list"]).await;
    assert!(ok && out.contains(id) && out.contains("active") && !out.contains("pmk_"), "{out}");
    let (ok, out, _) = run(&["revoke", id]).await;
    assert!(ok && out.contains("opens nothing any more"), "{out}");
    tokio::time::sleep(REVOKED_WITHIN).await;
    assert!(!opens(&server, &made).await);
    let (ok, _, err) = run(&["revoke", "000000000000"]).await;
    assert!(!ok && err.contains("key list"), "{err}");
    let (ok, _, err) = run(&["create", "--name", " ", "--role", "admin"]).await;
    assert!(!ok && err.contains("name must have 1 to 100 characters"), "{err}");
    server.stop().await;
}
