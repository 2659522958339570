//! Rollout Strategies: each on a server of its own, with a fleet that really goes where it is said to go.

use std::collections::BTreeSet;
use std::time::Duration;

use paperminder_ota::clock::Clock;
use paperminder_ota::simulate::{Fleet, FleetOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::pupil::{Pupil, image};
use super::{USER, says};
use crate::markdown::{blocks, read};
use crate::support::Server;

const SECTION: &str = "Rollout Strategies";
const PARTS: [&str; 4] = ["From Channel to Channel", "In Phases", "Off-Peak", "Beta Testers"];

/// Printers on 1.4.0; what `make` says of each is its channel and its user.
async fn fleet(server: &Server, printers: u64, make: impl Fn(u64) -> (&'static str, &'static str)) -> Fleet {
    let printer = |index| {
        let mut options = if index % 2 == 0 { server.printer(index) } else { server.device(index) };
        options.firmware_version = "1.4.0".into();
        (options.identity.channel, options.identity.user_id) = (make(index).0.into(), make(index).1.into());
        options
    };
    let fleet = Fleet::start(FleetOptions::of(printers, printer)).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == printers).await;
    fleet
}

/// Waits until exactly these printers run 1.5.0, and sees that it stays so.
async fn runs_it(server: &Server, wanted: impl Fn(&Value) -> bool) -> usize {
    let path = "/api/printers?limit=500";
    let agrees = |list: &Value| {
        let printers = list["printers"].as_array().unwrap();
        printers.iter().all(|printer| (printer["firmware_version"] == "1.5.0") == wanted(printer))
    };
    server.wait(path, &agrees).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let list = server.get(path).await.expect(200);
    assert!(agrees(&list), "somebody else was updated: {list}");
    list["printers"].as_array().unwrap().iter().filter(|printer| wanted(printer)).count()
}

fn below(printer: &Value, percentage: i64) -> bool {
    printer["bucket"].as_i64().unwrap() < percentage
}

#[test]
fn every_strategy_is_worked_through() {
    let all = blocks(&read("docs/guide.md"));
    let parts: BTreeSet<_> =
        all.iter().filter(|block| block.section == SECTION).map(|block| block.part.as_str()).collect();
    assert_eq!(parts, BTreeSet::from(PARTS));
}

#[sqlx::test]
async fn from_channel_to_channel(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of_part(SECTION, PARTS[0], &server);
    let channels = ["canary", "beta", "stable"];
    let fleet = fleet(&server, 45, |index| (channels[usize::try_from(index % 3).unwrap()], "demo")).await;
    let reached = |printer: &Value, percentages: [i64; 3]| {
        let channel = channels.iter().position(|channel| printer["update_channel"] == *channel).unwrap();
        below(printer, percentages[channel])
    };
    let so_far = [[100, 0, 0], [100, 20, 0], [100, 100, 10]];
    for ((channel, percentage), so_far) in
        [("canary", 100), ("beta", 20), ("stable", 10)].into_iter().zip(so_far)
    {
        if channel == "stable" {
            server.patch("/api/rollouts/2", &json!({"rollout_percentage": 100})).await.expect(200);
        }
        let release = pupil.run(&format!("channel={channel}")).await.expect(201);
        says(&release, json!({"version": "1.5.0", "channel": channel, "file_size": image().len()}));
        let rollout = pupil.run(&format!("[\"{channel}\"]")).await.expect(201);
        says(
            &rollout,
            json!({"target_channels": [channel], "rollout_percentage": percentage, "status": "active", "total_targets": 15}),
        );
        runs_it(&server, |printer| reached(printer, so_far)).await;
    }
    pupil.done();
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn in_phases(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of_part(SECTION, PARTS[1], &server);
    server.release("1.5.0", "stable").await;
    let fleet = fleet(&server, 50, |index| (if index % 10 == 0 { "beta" } else { "stable" }, "demo")).await;
    let rollout = pupil.run("\"rollout_percentage\": 10").await.expect(201);
    says(&rollout, json!({"number": 1, "status": "active", "total_targets": 45}));
    let mut reached = 0;
    for percentage in [10, 30, 50, 100] {
        if percentage > 10 {
            let rollout = pupil.run(&format!("{{\"rollout_percentage\": {percentage}}}")).await.expect(200);
            says(&rollout, json!({"number": 1, "rollout_percentage": percentage, "status": "active"}));
        }
        let in_now = |printer: &Value| printer["update_channel"] == "stable" && below(printer, percentage);
        let now = runs_it(&server, in_now).await;
        assert!(now > reached, "{percentage} % are more than the phase before");
        reached = now;
    }
    pupil.done();
    server.wait("/api/rollouts/1", |rollout| rollout["status"] == "completed").await;
    assert_eq!((reached, fleet.stop().await.running("1.5.0")), (45, 45));
    server.stop().await;
}

#[sqlx::test]
async fn off_peak(pool: PgPool) {
    let clock = Clock::manual("2025-01-19T23:00:00Z".parse().unwrap());
    let server = Server::on_clock(pool, clock.clone(), &[]).await;
    let mut pupil = Pupil::of_part(SECTION, PARTS[2], &server);
    server.release("1.5.0", "stable").await;
    let fleet = fleet(&server, 6, |_| ("stable", "demo")).await;
    let rollout = pupil.run("\"scheduled\"").await.expect(201);
    says(&rollout, json!({"status": "pending", "scheduled_for": "2025-01-20T02:00:00Z", "total_targets": 6}));
    pupil.done();
    clock.advance(Duration::from_secs(3 * 3600 - 1));
    server.app().state.engine.scan().await.unwrap();
    assert_eq!(runs_it(&server, |_| false).await, 0, "a second before its time");
    clock.advance(Duration::from_secs(1));
    server.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == 6).await;
    assert_eq!(fleet.stop().await.running("1.5.0"), 6);
    server.stop().await;
}

#[sqlx::test]
async fn beta_testers(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of_part(SECTION, PARTS[3], &server);
    let users = [USER, "660e8400-e29b-41d4-a716-446655440001", "demo"];
    let who = |index| {
        (["beta", "stable"][usize::try_from(index % 2).unwrap()], users[usize::try_from(index % 3).unwrap()])
    };
    let fleet = fleet(&server, 12, who).await;
    let release = pupil.run("channel=beta").await.expect(201);
    says(&release, json!({"version": "1.5.0", "channel": "beta"}));
    let rollout = pupil.run("user_ids").await.expect(201);
    says(&rollout, json!({"status": "active", "target_user_ids": users[..2], "total_targets": 8}));
    assert_eq!(runs_it(&server, |printer| printer["user_id"] != "demo").await, 8);
    pupil.done();
    fleet.stop().await;
    server.stop().await;
}
