//! Creating Rollouts: every way to say to whom and how fast.

use paperminder_ota::simulate::Fleet;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::pupil::Pupil;
use super::{ROLLOUT, USER, has, says};
use crate::markdown::{blocks, read};
use crate::support::{SOON, Server};

/// The bodies that are shown without a command, in order.
fn requests() -> Vec<Value> {
    let all = blocks(&read("docs/guide.md")).into_iter().filter(|block| block.info == "json request");
    all.map(|block| serde_json::from_str(&block.text).expect(&block.text)).collect()
}

#[sqlx::test]
async fn creating_rollouts(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Creating Rollouts", &server);
    server.release("1.5.0", "stable").await;

    let immediate = pupil.run("\"immediate\"").await.expect(201);
    has(&immediate, ROLLOUT);
    says(&immediate, json!({"status": "active", "rollout_percentage": 100, "target_channels": ["stable"]}));
    let gradual = pupil.run("\"gradual\"").await.expect(201);
    says(&gradual, json!({"status": "active", "rollout_percentage": 10, "min_version": "1.0.0"}));
    let scheduled = pupil.run("\"scheduled\"").await.expect(201);
    says(
        &scheduled,
        json!({"status": "active", "target_all": true, "rollout_percentage": 100, "scheduled_for": "2025-01-20T02:00:00Z"}),
    );
    pupil.done();

    let later = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "scheduled",
        "scheduled_for": "2125-01-20T02:00:00Z"});
    says(&server.rollout(later).await, json!({"status": "pending"}));
    let held = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate", "start": false});
    says(&server.rollout(held).await, json!({"status": "pending"}));
    let requests = requests();
    assert!(!requests.is_empty());
    for request in requests {
        has(&server.rollout(request).await, ROLLOUT);
    }
    server.stop().await;
}

/// One printer: its channel, version and user, and its id where the guide names one.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>);

#[sqlx::test]
async fn each_target_is_whom_the_guide_says(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let named = "770e8400-e29b-41d4-a716-446655440000";
    let rows: [Row; 8] = [
        ("stable", "1.0.0", "demo", None),
        ("beta", "1.4.0", "demo", None),
        ("stable", "0.9.0", "demo", None),
        ("stable", "1.4.1", USER, None),
        ("canary", "1.2.0", "660e8400-e29b-41d4-a716-446655440001", None),
        ("canary", "1.2.0", "demo", Some(named)),
        ("canary", "1.2.0", "demo", None),
        ("stable", "1.6.0", USER, None),
    ];
    let printer = |(index, (channel, version, user, id)): (u64, Row)| {
        let mut printer = super::on(server.printer(index), version);
        (printer.identity.channel, printer.identity.user_id) = (channel.into(), user.into());
        printer.identity.printer_id = id.map(str::to_owned).or(printer.identity.printer_id);
        printer
    };
    let fleet = Fleet::start((0..).zip(rows).map(printer).collect::<Vec<_>>().into()).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == rows.len()).await;
    let [all, people, range]: [Value; 3] = requests().try_into().unwrap();
    let mut reached = Vec::new();
    for (request, more) in [(range, &[0usize, 1][..]), (people, &[3, 4, 5]), (all, &[2, 6])] {
        let rollout = server.rollout(request.clone()).await;
        says(&rollout, json!({"total_targets": more.len(), "status": "active"}));
        reached.extend(more);
        let path = format!("/api/rollouts/{}", rollout["number"]);
        server.wait(&path, |rollout| rollout["confirmed_count"] == more.len()).await;
        for (index, printer) in fleet.printers().iter().enumerate() {
            let runs = printer.state().version;
            let expected = if reached.contains(&index) { "1.5.0" } else { rows[index].1 };
            assert_eq!(&*runs, expected, "printer {index} after {request}");
        }
    }
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") == 7).await.unwrap();
    assert_eq!(fleet.stop().await.offers, 7);
    server.stop().await;
}
