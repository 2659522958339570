//! Complete Workflow Example: from the build to the last printer, in the order in which it is printed.

use paperminder_ota::printers::bucket;
use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::pupil::{Pupil, image};
use super::{next_number, on, printer, says};
use crate::support::Server;

const PRINTERS: usize = 40;

#[sqlx::test]
async fn complete_workflow_example(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Complete Workflow Example", &server);
    // Printer 42 is of the first tenth, and its first download breaks off.
    let mut unlucky = on(printer(&server, |bucket| bucket < 10), "1.4.0");
    unlucky.behaviour = Behaviour::Script(vec![Fate::FailDownload]);
    let its_id = unlucky.identity.printer_id.clone();
    next_number(&server, "printers", 42).await;
    let first = Fleet::start(vec![unlucky].into()).unwrap();
    server.wait("/api/printers/42", |printer| printer["online"] == true).await;
    let others: Vec<_> = (0..)
        .map(|index| on(if index % 2 == 0 { server.printer(index) } else { server.device(index) }, "1.4.0"))
        .filter(|printer| printer.identity.printer_id != its_id)
        .take(PRINTERS - 1)
        .collect();
    let fleet = Fleet::start(FleetOptions::from(others)).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == PRINTERS).await;
    let below = |percentage: u8| {
        1 + fleet.printers().iter().filter(|one| bucket(&one.id().parse().unwrap()) < percentage).count()
    };
    next_number(&server, "update_rollouts", 15).await;

    assert_eq!(pupil.run("./build-firmware.sh").await.expect(200), "");
    assert_eq!(std::fs::read(pupil.desk().join("paperminder-1.5.0.bin")).unwrap(), image());
    let md5 = pupil.run("md5sum").await.expect(200);
    let sha256 = pupil.run("sha256sum").await.expect(200);
    let release = pupil.run("/api/firmware/upload").await.expect(201);
    says(&release, json!({"version": "1.5.0", "min_upgrade_version": "1.0.0", "mandatory": false}));
    for (sum, said) in [("md5_checksum", &md5), ("sha256_checksum", &sha256)] {
        assert!(said.as_str().unwrap().starts_with(release[sum].as_str().unwrap()), "{said} {release}");
    }

    let rollout = pupil.run("\"gradual\"").await.expect(201);
    says(
        &rollout,
        json!({"number": 15, "status": "active", "rollout_percentage": 10, "total_targets": PRINTERS}),
    );
    let reaches = async |count: usize| {
        server.wait("/api/rollouts/15", |rollout| rollout["confirmed_count"] == count).await;
    };
    reaches(below(10)).await;
    let watched = pupil.run("watch -n 10").await.expect(200);
    let rate = |count: usize| f64::from(u32::try_from(count).unwrap()) * 100.0 / 40.0;
    says(
        &watched,
        json!({"status": "active", "total": PRINTERS, "completed": below(10), "failed": 0, "pending": PRINTERS - below(10)}),
    );
    assert_eq!(watched["success_rate"].as_f64(), Some(rate(below(10))));
    let failure = pupil.run(".status == \"failed\"").await.expect(200);
    says(&failure, json!({"printer": its_id}));
    assert!(failure["error"].as_str().is_some_and(|words| !words.is_empty()), "{failure}");
    let behind = pupil.run("!= \"1.5.0\"").await.expect(200);
    let behind: Vec<Value> = serde_json::Deserializer::from_str(behind.as_str().unwrap())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(behind.len(), PRINTERS - below(10));
    behind.iter().for_each(|printer| says(printer, json!({"version": "1.4.0", "online": true})));

    for percentage in [30, 50, 100] {
        let rollout = pupil.run(&format!("{{\"rollout_percentage\": {percentage}}}")).await.expect(200);
        says(&rollout, json!({"number": 15, "rollout_percentage": percentage}));
        reaches(below(percentage)).await;
    }

    let end = pupil.run("declined: .declined_count").await.expect(200);
    let all =
        json!({"total": PRINTERS, "completed": PRINTERS, "failed": 0, "declined": 0, "success_rate": 100});
    assert_eq!(end, all);
    let versions = pupil.run("group_by(.firmware_version)").await.expect(200);
    assert_eq!(versions, json!([{"version": "1.5.0", "count": PRINTERS}]));
    pupil.done();
    server.wait("/api/rollouts/15", |rollout| rollout["status"] == "completed").await;
    first.stop().await;
    fleet.stop().await;
    server.stop().await;
}
