//! Rollouts That Run by Themselves: a fleet and a clock that the test moves.

use std::time::Duration;

use paperminder_ota::clock::Clock;
use paperminder_ota::printers::bucket;
use paperminder_ota::rollouts::plan::{Step, Template};
use paperminder_ota::simulate::{Fleet, FleetOptions, PrinterOptions};
use serde_json::json;
use sqlx::PgPool;

use super::pupil::Pupil;
use super::{next_number, on, says};
use crate::markdown::read;
use crate::support::{SOON, Server};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_templates_have_the_numbers_that_are_printed() {
    let guide = read("docs/guide.md");
    for template in Template::ALL {
        let steps = template.steps();
        let words: Vec<_> = steps
            .iter()
            .map(|step| match step.soak.0.as_secs() {
                0 => format!("{} %", step.percentage),
                secs if secs % 3600 == 0 => format!("{} % for {}h", step.percentage, secs / 3600),
                secs => format!("{} % for {}m", step.percentage, secs / 60),
            })
            .collect();
        let (first, last) = (steps[0], steps[steps.len() - 1]);
        let numbers =
            |step: Step| format!("{} | {} | {}", step.failure_threshold, step.min_sample, step.first);
        assert_eq!(numbers(first), numbers(last), "the table has one number for all steps");
        let row = format!("| `{template}` | {} | {} |", words.join(", "), numbers(first));
        assert!(guide.contains(&row), "the guide should say {row}");
    }
}

#[sqlx::test]
async fn rollouts_that_run_by_themselves(pool: PgPool) {
    let clock = Clock::manual("2026-03-04T12:00:00Z".parse().unwrap());
    let server = Server::on_clock(pool, clock.clone(), &[]).await;
    let mut pupil = Pupil::of("Rollouts That Run by Themselves", &server);
    for version in ["1.4.0", "1.5.0", "1.6.0", "1.7.0"] {
        server.release(version, "stable").await;
    }
    // Printer 42 takes nothing by itself.
    next_number(&server, "printers", 42).await;
    let stubborn =
        PrinterOptions { auto_update: false, accepts_forced: true, ..on(server.printer(1000), "1.4.0") };
    let stubborn = Fleet::start(vec![stubborn].into()).unwrap();
    server.wait("/api/printers/42", |printer| printer["online"] == true).await;
    let options =
        |index| on(if index % 2 == 0 { server.printer(index) } else { server.device(index) }, "1.4.0");
    let fleet = Fleet::start(FleetOptions::of(30, options)).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 31).await;
    let below = |percentage: u8| {
        fleet.printers().iter().filter(|one| bucket(&one.id().parse().unwrap()) < percentage).count()
    };
    let reaches = async |rollout: &str, count: usize| {
        server.wait(rollout, |rollout| rollout["confirmed_count"] == count).await;
    };

    let rollout = pupil.run("\"steps\"").await.expect(201);
    says(
        &rollout,
        json!({"number": 1, "status": "active", "step": 1, "rollout_percentage": 10, "template": null}),
    );
    reaches("/api/rollouts/1", below(10)).await;
    let seen = pupil.run("waiting_for").await.expect(200);
    says(
        &seen,
        json!({"status": "active", "step": 1, "waiting_for": "It soaks until 2026-03-05 12:00 UTC.", "status_reason": null}),
    );
    let next = pupil.run("/advance").await.expect(200);
    says(&next, json!({"step": 2, "rollout_percentage": 50}));
    reaches("/api/rollouts/1", below(50)).await;
    clock.advance(12 * HOUR);
    let rollout = server.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == 30).await;
    says(&rollout, json!({"step": 3, "rollout_percentage": 100, "waiting_for": null}));

    let canary = pupil.run("\"canary\"").await.expect(201);
    says(
        &canary,
        json!({"number": 2, "template": "canary", "step": 1, "rollout_percentage": 1, "confirm_within": "15m",
            "abort_on": {"failure_rate": 10, "min_sample": 20, "action": "rollback", "to_version": "1.4.0"}}),
    );
    server.patch("/api/rollouts/2", &json!({"status": "paused"})).await.expect(200);

    let limited = pupil.run("\"max_in_flight\"").await.expect(201);
    says(
        &limited,
        json!({"number": 3, "status": "pending", "approval": "waiting", "max_in_flight": 50, "on_end": "stop",
            "rate_per_minute": {"base": 10, "factor": 2, "per_confirmed": 100, "max": 500}}),
    );
    let approved = pupil.run("/approve").await.expect(200);
    says(
        &approved,
        json!({"status": "active", "approval": "approved", "approval_comment": "tested on my desk"}),
    );

    let why = pupil.run("/api/printers/42/explain").await.expect(200);
    says(
        &why,
        json!({"outcome": "nothing", "reason": "auto_update_off", "rollout": 3, "firmware_version": "1.4.0"}),
    );
    let order: Vec<_> = why["rollouts"].as_array().unwrap().iter().map(|one| &one["rollout"]).collect();
    assert_eq!(order, [3, 2, 1]);
    let one = pupil.run("/api/rollouts/3/explain").await.expect(200);
    assert_eq!(one, why["rollouts"][0]);
    let forced = pupil.run("/api/printers/42/update").await.expect(201);
    says(
        &forced,
        json!({"firmware_version": "1.7.0", "from_version": "1.4.0", "rollout_id": null, "open": true}),
    );
    stubborn.wait_until(SOON, |it| it.running("1.7.0") == 1).await.unwrap();

    // It is midnight; at two the window opens, and ten may go each minute.
    assert_eq!(fleet.snapshot().running("1.7.0"), 0);
    clock.advance(2 * HOUR);
    for count in [10, 20, 30] {
        reaches("/api/rollouts/3", count).await;
        clock.advance(HOUR / 60);
    }
    assert_eq!(pupil.run("/retry-failed").await.expect(200), 0);
    let back = pupil.run("/rollback").await.expect(200);
    assert_eq!(back, json!({"cancelled": 3, "by": [{"number": 4, "firmware_version": "1.4.0"}]}));
    pupil.done();
    let state = &server.app().state;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.advance(HOUR / 60);
        state.engine.scan().await.unwrap();
    }
    fleet.wait_until(SOON, |fleet| fleet.running("1.4.0") == 30).await.unwrap();
    assert_eq!(stubborn.stop().await.running("1.7.0"), 1, "no rollout brought it there");
    fleet.stop().await;
    server.stop().await;
}
