//! Every refusal of `POST /api/rollouts` about what a rollout is told beforehand names the field and the remedy.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::tells;
use crate::support::Server;

fn gradual(changes: Value) -> Value {
    let mut body = super::to_all("1.5.0", json!({"rollout_type": "gradual"}));
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

fn immediate(changes: Value) -> Value {
    super::to_all("1.5.0", changes)
}

fn step(changes: Value) -> Value {
    let mut steps = json!([{"percentage": 10}, {"percentage": 100}]);
    steps[0].as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    gradual(json!({"steps": steps}))
}

/// A field, and words of the sentence about it.
type Refusals = Vec<(Value, &'static str, &'static str)>;

fn about_steps() -> Refusals {
    let full = |steps: Value| gradual(json!({"steps": steps}));
    vec![
        (immediate(json!({"template": "fast"})), "rollout_type", "gradual or scheduled"),
        (gradual(json!({"template": "fast", "rollout_percentage": 10})), "rollout_percentage", "left out"),
        (gradual(json!({"template": "brave"})), "template", "canary, careful"),
        (
            gradual(json!({"template": "fast", "steps": [{"percentage": 100}]})),
            "template",
            "choose one of them",
        ),
        (full(json!([])), "steps", "1 to 20 steps, these are 0"),
        (full(json!([{"percentage": 50}])), "steps", "end with a step of 100 percent"),
        (
            full(json!([{"percentage": 0}, {"percentage": 100}])),
            "steps[0].percentage",
            "rise from step to step",
        ),
        (full(json!([{"percentage": 50}, {"percentage": 50}])), "steps[1].percentage", "this is 50 after 50"),
        (full(json!([{"percentage": 50}, {"percentage": 101}])), "steps[1].percentage", "up to 100"),
        (step(json!({"failure_threshold": 0})), "steps[0].failure_threshold", "1 to 99 percent"),
        (step(json!({"failure_threshold": 100})), "steps[0].failure_threshold", "1 to 99 percent"),
        (step(json!({"success_threshold": 101})), "steps[0].success_threshold", "0 to 100 percent"),
        (step(json!({"first": 0})), "steps[0].first", "at least 1"),
        (step(json!({"soak": "a while"})), "steps[0].soak", "30m, 24h or 2d"),
        (step(json!({"soak": "400d"})), "steps[0].soak", "above a year"),
        (step(json!({"pause": true})), "steps[0].pause", "expected one of"),
    ]
}

fn about_aborting() -> Refusals {
    let rule = |rule: Value| immediate(json!({"abort_on": rule}));
    vec![
        (rule(json!({"failure_rate": 0})), "abort_on.failure_rate", "1 to 99 percent"),
        (rule(json!({"failure_rate": 100})), "abort_on.failure_rate", "1 to 99 percent"),
        (rule(json!({"failure_rate": 5, "to_version": "1.4.0"})), "abort_on.to_version", "action rollback"),
        (
            rule(json!({"failure_rate": 5, "action": "rollback", "to_version": "old"})),
            "abort_on.to_version",
            "like 1.4.0",
        ),
        (rule(json!({"failure_rate": 5, "action": "panic"})), "abort_on.action", "pause"),
        (rule(json!({})), "abort_on", "failure_rate"),
    ]
}

fn about_limits() -> Refusals {
    vec![
        (immediate(json!({"max_in_flight": 0})), "max_in_flight", "pause the rollout to hold it"),
        (immediate(json!({"max_in_flight": -1})), "max_in_flight", "-1"),
        (immediate(json!({"max_attempts": 0})), "max_attempts", "1 to 100"),
        (immediate(json!({"max_attempts": 101})), "max_attempts", "1 to 100"),
        (immediate(json!({"rate_per_minute": 0})), "rate_per_minute", "at least 1"),
        (immediate(json!({"rate_per_minute": {"base": 5, "factor": 0}})), "rate_per_minute", "at least 1"),
        (immediate(json!({"rate_per_minute": {"base": 5, "max": 0}})), "rate_per_minute", "at least 1"),
        (immediate(json!({"rate_per_minute": "fast"})), "rate_per_minute", "a number of offers a minute"),
    ]
}

fn about_times() -> Refusals {
    let scheduled = |changes: Value| {
        let mut body =
            immediate(json!({"rollout_type": "scheduled", "scheduled_for": "2125-01-20T02:00:00Z"}));
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let window = |window: Value| immediate(json!({"windows": {"weekly": [window]}}));
    vec![
        (immediate(json!({"confirm_within": "soon"})), "confirm_within", "30m, 24h or 2d"),
        (immediate(json!({"confirm_within": "0s"})), "confirm_within", "at least a second"),
        (immediate(json!({"stuck_after": "10 minutes ago"})), "stuck_after", "30m, 24h or 2d"),
        (immediate(json!({"stuck_after": "10ms"})), "stuck_after", "at least a second"),
        (immediate(json!({"ends_at": "2025-01-20T02:00:00Z"})), "ends_at", "behind the start"),
        (immediate(json!({"ends_at": "tomorrow"})), "ends_at", "RFC 3339"),
        (scheduled(json!({"ends_at": "2125-01-20T02:00:00Z"})), "ends_at", "behind the start"),
        (scheduled(json!({"start": false})), "start", "together with scheduled_for"),
        (
            immediate(json!({"scheduled_for": "2125-01-20T02:00:00Z"})),
            "scheduled_for",
            "use rollout_type scheduled",
        ),
        (immediate(json!({"on_end": "cancel"})), "on_end", "goes with ends_at"),
        (immediate(json!({"on_end": "explode"})), "on_end", "stop"),
        (window(json!({"from": "2:00", "to": "05:00"})), "windows.weekly[0].from", "like 02:00"),
        (
            window(json!({"from": "02:00", "to": "05:00", "days": ["someday"]})),
            "windows.weekly[0].days[0]",
            "mon",
        ),
        (window(json!({"from": "02:00", "to": "05:00", "days": []})), "windows.weekly[0].days", "every day"),
        (
            immediate(json!({"windows": {"weekly": [], "time_zone": "Mars/Olympus"}})),
            "windows.time_zone",
            "the nearest is",
        ),
    ]
}

fn about_targets() -> Refusals {
    let target = |target: Value| immediate(json!({"target": target}));
    vec![
        (target(json!({})), "target", "{\"all\": true}"),
        (target(json!({"installed_by": "that one"})), "target.installed_by", "number"),
        (target(json!({"previous_version": "old"})), "target.previous_version", "semantic version"),
    ]
}

#[sqlx::test]
async fn the_field_is_named_and_the_remedy_too(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let all = [about_steps(), about_aborting(), about_limits(), about_times(), about_targets()].concat();
    let mut wrong = Vec::new();
    for (body, field, words) in all {
        let answer = server.post("/api/rollouts", &body).await;
        let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
        let fits = |error: &Value| {
            error["field"] == field && error["detail"].as_str().is_some_and(|detail| detail.contains(words))
        };
        if answer.status != 422 || !errors.iter().any(fits) {
            wrong.push(format!(
                "{field} ({words}): {body} was answered with {} {}",
                answer.status, answer.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.get("/api/rollouts").await.expect(200)["total"], 0, "a refusal leaves nothing behind");
    server.stop().await;
}

#[sqlx::test]
async fn a_rollout_that_nobody_made_installed_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    for unknown in [json!(77), json!("77"), json!("01a1ff97-9a99-7352-8c58-650fbe5a3cda")] {
        let body = immediate(json!({"target": {"installed_by": unknown}}));
        tells(&server.post("/api/rollouts", &body).await.expect(404), "no rollout");
    }
    server.stop().await;
}
