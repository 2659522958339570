//! What may be asked, and how a refusal reads.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::path;
use crate::support::Server;

#[sqlx::test]
async fn bad_requests_are_refused_with_the_field_and_the_remedy(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let good = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"});
    let with = |changes: Value| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    for (changes, field) in [
        (json!({"firmware_version": "1.5"}), "firmware_version"),
        (json!({"target": {}}), "target"),
        (json!({"target": {"all": false}}), "target"),
        (json!({"target": {"user_ids": []}}), "target.user_ids"),
        (json!({"target": {"printer_ids": ["ok", ""]}}), "target.printer_ids[1]"),
        (json!({"target": {"channels": ["stable", "nightly"]}}), "target.channels[1]"),
        (json!({"target": {"min_version": "x"}}), "target.min_version"),
        (json!({"target": {"min_version": "2.0.0", "max_version": "1.0.0"}}), "target.min_version"),
        (json!({"target": {"everyone": true}}), "target"),
        (json!({"rollout_type": "sometimes"}), "rollout_type"),
        (json!({"rollout_type": "gradual"}), "rollout_percentage"),
        (json!({"rollout_type": "gradual", "rollout_percentage": 101}), "rollout_percentage"),
        (json!({"rollout_type": "gradual", "rollout_percentage": -1}), "rollout_percentage"),
        (json!({"rollout_type": "gradual", "rollout_percentage": "10"}), "rollout_percentage"),
        (json!({"rollout_percentage": 10}), "rollout_percentage"),
        (json!({"rollout_type": "scheduled"}), "scheduled_for"),
        (json!({"rollout_type": "scheduled", "scheduled_for": "tomorrow"}), "scheduled_for"),
        (json!({"channel": "nightly"}), "channel"),
        (json!({"percentage": 5}), "percentage"),
    ] {
        let problem = server.post("/api/rollouts", &with(changes.clone())).await.expect(422);
        let fields: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert!(fields.iter().any(|named| named.starts_with(field)), "{changes} named {fields:?}: {problem}");
        assert_eq!(problem["type"], "/docs/problems/validation");
    }
    assert_eq!(server.get("/api/rollouts").await.expect(200)["total"], 0, "a refusal leaves nothing behind");
    server.stop().await;
}

#[sqlx::test]
async fn a_version_that_is_not_released_is_404(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "beta").await;
    for (version, channel) in [("1.6.0", None), ("1.5.0", Some("stable"))] {
        let body = json!({"firmware_version": version, "channel": channel, "target": {"all": true}, "rollout_type": "immediate"});
        let problem = server.post("/api/rollouts", &body).await.expect(404);
        assert_eq!(
            (&problem["title"], &problem["type"]),
            (&json!("Firmware version not found"), &json!("/docs/problems/firmware-not-found"))
        );
    }
    server.stop().await;
}

#[sqlx::test]
async fn bodies_that_are_no_json_are_refused(pool: PgPool) {
    let server = Server::start(pool).await;
    let post = |kind: &'static str, body: &'static str| {
        server.send(
            server.request(reqwest::Method::POST, "/api/rollouts").header("content-type", kind).body(body),
        )
    };
    post("text/plain", "{}").await.expect(415);
    for body in ["", "{", "[]", "{} {}", "\"x\"", "{\"firmware_version\": 1}"] {
        assert_eq!(
            post("application/json", body).await.expect(422)["type"],
            "/docs/problems/validation",
            "{body}"
        );
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_problem_is_a_problem_and_its_type_answers(pool: PgPool) {
    let server = Server::start(pool).await;
    let answer = server.get("/api/rollouts/7").await;
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.expect(404);
    assert!(problem["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{problem}");
    let page = server.get(problem["type"].as_str().unwrap()).await.expect(200);
    assert!(page.as_str().unwrap().contains("Remedy"));
    assert_eq!(server.get("/nowhere").await.expect(404)["type"], "/docs/problems/not-found");
    assert_eq!(server.delete("/api/rollouts").await.expect(405)["type"], "/docs/problems/method-not-allowed");
    assert_eq!(server.get("/api/rollouts/x").await.expect(422)["errors"][0]["field"], "rollout_id");
    server.stop().await;
}

#[sqlx::test]
async fn lists_are_paged_filtered_and_refuse_what_they_do_not_know(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    for _ in 0..5 {
        server
            .rollout(
                json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}),
            )
            .await;
    }
    server.patch("/api/rollouts/2", &json!({"status": "paused"})).await.expect(200);
    let first = server.get("/api/rollouts?status=active&limit=2").await;
    assert!(first.headers["link"].to_str().unwrap().ends_with("rel=\"next\""));
    let numbers = |list: &Value| {
        list["rollouts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rollout| rollout["number"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((numbers(&first.body), &first.body["total"]), (vec![5, 4], &json!(4)));
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let next =
        format!("/api/rollouts?status=active&limit=2&cursor={}", first.body["next_cursor"].as_str().unwrap());
    let second = server.get(&next).await.expect(200);
    assert_eq!(
        (numbers(&second), &second["next_cursor"]),
        (vec![3, 1], &Value::Null),
        "an insert does not shift the pages"
    );
    assert_eq!(numbers(&server.get("/api/rollouts?sort=number&limit=1").await.expect(200)), [1]);
    server.release("1.6.0", "stable").await;
    server
        .rollout(json!({"firmware_version": "1.6.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let of = async |query: &str| numbers(&server.get(&format!("/api/rollouts?{query}")).await.expect(200));
    assert_eq!(of("firmware_version=1.6.0").await, [7]);
    assert_eq!(of("firmware_version=1.5.0&status=paused").await, [2]);
    assert!(of("firmware_version=1.7.0").await.is_empty());
    let problem = server.get("/api/rollouts?firmware_version=newest").await.expect(422);
    assert_eq!(problem["errors"][0]["field"], "firmware_version");
    let problem = server.get("/api/rollouts?state=active").await.expect(422);
    assert!(problem["detail"].as_str().unwrap().contains("did you mean `status`"), "{problem}");
    server.get(&next.replace("status=active", "status=paused")).await.expect(422);
    server.stop().await;
}

#[sqlx::test]
async fn a_patch_that_changes_nothing_or_nonsense_is_refused(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let rollout = server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    for body in [
        json!({}),
        json!({"status": "completed"}),
        json!({"status": "sleeping"}),
        json!({"rollout_percentage": 101}),
        json!({"precentage": 1}),
    ] {
        server.patch(&path(&rollout), &body).await.expect(422);
    }
    server.patch(&path(&rollout), &json!({"rollout_percentage": 50})).await.expect(409);
    let by_id = format!("/api/rollouts/{}", rollout["id"].as_str().unwrap());
    assert_eq!(server.patch(&by_id, &json!({"status": "paused"})).await.expect(200)["status"], "paused");
    server.stop().await;
}

#[sqlx::test]
async fn with_authentication_on_the_api_is_closed_to_those_without_the_key(pool: PgPool) {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "a-key-of-more-than-24-characters\n").unwrap();
    let server =
        Server::with(pool, &[("AUTH", "on"), ("BOOTSTRAP_ADMIN_KEY_FILE", key.path().to_str().unwrap())])
            .await;
    for path in [
        "/api/rollouts",
        "/api/firmware",
        "/api/printers",
        "/api/firmware/latest",
        "/api/firmware/download/1.0.0",
    ] {
        let problem = server.get(path).await.expect(401);
        assert_eq!(problem["type"], "/docs/problems/unauthorized", "{path}");
    }
    let request =
        server.request(reqwest::Method::GET, "/api/rollouts").bearer_auth("a-key-of-more-than-24-characters");
    server.send(request).await.expect(200);
    server.stop().await;
}
