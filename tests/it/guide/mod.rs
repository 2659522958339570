//! The operator's guide is true: every command in `docs/guide.md` is run by bash and the real curl, as it stands there, and
//! what it answers is what the guide says.

mod creating;
mod monitoring;
mod plans;
mod pupil;
mod reports;
mod rollback;
mod strategies;
mod workflow;

use std::collections::BTreeSet;

use paperminder_ota::simulate::{Fleet, FleetOptions, Printer, PrinterOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use self::pupil::{Pupil, image};
use crate::markdown::{blocks, read};
use crate::support::{SOON, Server};

/// The sections that a test below works through, to the last command.
const SECTIONS: [&str; 11] = [
    "Quick Start",
    "Firmware Management",
    "Creating Rollouts",
    "Monitoring Updates",
    "Reports and Live Events",
    "Rollout Strategies",
    "Rollback Plan",
    "Rollouts That Run by Themselves",
    "Maintenance Windows",
    "Complete Workflow Example",
    "Troubleshooting",
];
/// The user that the guide's commands ask for.
const USER: &str = "550e8400-e29b-41d4-a716-446655440000";
/// The fields of a release that the documents of the interface name.
const RELEASE: &str = "id version channel file_size md5 md5_checksum sha256_checksum release_notes changelog mandatory \
    min_upgrade_version released_at uploaded_at deprecated_at download_count success_count failure_count file_url";
/// Those of a rollout.
const ROLLOUT: &str = "id firmware_version firmware_version_id target_all target_user_ids target_printer_ids target_channels \
    min_version max_version rollout_type rollout_percentage scheduled_for status created_at total_targets completed_count \
    failed_count declined_count pending_count";
/// Those of a printer.
const PRINTER: &str = "printer_id user_id printer_name name firmware_version auto_update update_channel online last_connected \
    last_ip created_at";
/// Those of an attempt.
const UPDATE: &str = "id rollout_id printer_id firmware_version status error_message started_at completed_at last_percent \
    last_status_message";

#[track_caller]
fn has(value: &Value, fields: &str) {
    for field in fields.split_whitespace() {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

/// A subset of the fields, with their values.
#[track_caller]
fn says(value: &Value, expected: Value) {
    for (field, expected) in expected.as_object().unwrap() {
        assert_eq!(value.get(field), Some(expected), "{field} in {value}");
    }
}

/// The next row gets this number.
async fn next_number(server: &Server, table: &str, number: i64) {
    sqlx::query("select setval(pg_get_serial_sequence($1, 'number'), $2, false)")
        .bind(table)
        .bind(number)
        .execute(&server.pool)
        .await
        .unwrap();
}

/// The first of the made-up printers whose bucket fits.
fn printer(server: &Server, fits: impl Fn(u8) -> bool) -> PrinterOptions {
    (0..1000)
        .map(|index| server.printer(index))
        .find(|options| {
            let id = options.identity.printer_id.as_deref().unwrap().parse().unwrap();
            fits(paperminder_ota::printers::bucket(&id))
        })
        .unwrap()
}

fn on(options: PrinterOptions, version: &str) -> PrinterOptions {
    PrinterOptions { firmware_version: version.into(), ..options }
}

#[test]
fn every_section_with_commands_is_worked_through() {
    let all = blocks(&read("docs/guide.md"));
    let sections: BTreeSet<_> =
        all.iter().filter(|block| block.info == "bash").map(|block| block.section.as_str()).collect();
    assert_eq!(sections, BTreeSet::from(SECTIONS));
    let known = ["bash", "json", "json request", "python", "console"];
    let strange: Vec<_> = all.iter().filter(|block| !known.contains(&block.info.as_str())).collect();
    assert!(strange.is_empty(), "no test looks at {strange:#?}");
}

#[sqlx::test]
async fn quick_start(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Quick Start", &server);
    let fleet = Fleet::start(FleetOptions::of(2, |index| on(server.printer(index), "1.4.0"))).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 2).await;

    let ready = server.send(reqwest::Client::new().get(server.internal("/readyz"))).await;
    assert_eq!(ready.expect(200), "ok\n");
    let release = pupil.run("/api/firmware/upload").await.expect(201);
    has(&release, RELEASE);
    says(
        &release,
        json!({"version": "1.5.0", "channel": "stable", "release_notes": "Bug fixes and performance improvements",
            "file_size": image().len(), "changelog": null, "mandatory": false, "min_upgrade_version": null}),
    );
    let rollout = pupil.run("/api/rollouts").await.expect(201);
    has(&rollout, ROLLOUT);
    says(
        &rollout,
        json!({"firmware_version": "1.5.0", "target_channels": ["stable"], "rollout_type": "immediate",
            "rollout_percentage": 100, "status": "active", "total_targets": 2}),
    );
    pupil.done();
    server.wait(&format!("/api/rollouts/{}", rollout["number"]), |it| it["confirmed_count"] == 2).await;
    assert!(fleet.stop().await.all_run("1.5.0"));
    server.stop().await;
}

#[sqlx::test]
async fn firmware_management(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Firmware Management", &server);
    server.release("1.4.0", "stable").await;
    server.release("1.6.0-rc.1", "beta").await;

    let release = pupil.run("/path/to/paperminder-1.5.0.bin").await.expect(201);
    has(&release, RELEASE);
    says(
        &release,
        json!({"version": "1.5.0", "channel": "stable", "release_notes": "Fixed critical security issues",
            "changelog": r"- Fixed CVE-2024-1234\n- Improved battery life\n- Enhanced print quality",
            "mandatory": false, "min_upgrade_version": "1.0.0", "deprecated_at": null, "download_count": 0,
            "md5": release["md5_checksum"], "uploaded_at": release["released_at"],
            "file_url": "http://localhost:8000/api/firmware/download/1.5.0?channel=stable&platform=esp8266"}),
    );
    let again = server.upload_bytes(image(), &[("version", "1.5.0")]).await.expect(409);
    assert!(again["detail"].as_str().unwrap().starts_with("Firmware version already exists"), "{again}");
    let large = server.upload_bytes(vec![0; 6 << 20], &[("version", "1.5.1")]).await.expect(413);
    assert!(large["detail"].as_str().unwrap().starts_with("File too large"), "{large}");

    let latest = pupil.run("latest?channel=stable").await.expect(200);
    has(&latest, RELEASE);
    assert_eq!(latest["id"], release["id"]);
    let beta = pupil.run("latest?channel=beta").await.expect(200);
    says(&beta, json!({"version": "1.6.0-rc.1", "channel": "beta"}));
    let version = pupil.run("/api/firmware/1.5.0").await.expect(200);
    assert_eq!(version, release);

    let versions = |list: &Value| -> Vec<String> {
        let list = list["firmware"].as_array().unwrap();
        list.iter().map(|release| release["version"].as_str().unwrap().to_owned()).collect()
    };
    let list = pupil.run("/api/firmware").await.expect(200);
    assert_eq!(
        (versions(&list), &list["total"]),
        (["1.5.0", "1.6.0-rc.1", "1.4.0"].map(String::from).into(), &json!(3))
    );
    let stable = pupil.run("/api/firmware?channel=stable").await.expect(200);
    assert_eq!(versions(&stable), ["1.5.0", "1.4.0"]);

    assert_eq!(pupil.run("curl -O ").await.expect(200), "");
    assert_eq!(std::fs::read(pupil.desk().join("1.5.0")).unwrap(), image());
    server.wait("/api/firmware/1.5.0", |release| release["download_count"] == 1).await;
    let download = server.get("/api/firmware/download/1.5.0").await;
    assert_eq!(download.headers["content-disposition"], "attachment; filename=\"paperminder-1.5.0.bin\"");
    assert_eq!(download.headers["x-md5"], release["md5"].as_str().unwrap());
    pupil.done();
    server.stop().await;
}

#[sqlx::test]
async fn maintenance_windows(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Maintenance Windows", &server);
    let put = pupil.run("-X PUT").await.expect(200);
    says(&put, json!({"user_id": USER, "time_zone": "Europe/Rome"}));
    assert_eq!(pupil.run(&format!("/api/users/{USER}")).await.expect(200), put);
    assert_eq!(pupil.run("-X DELETE").await.expect(204), "");
    let path = format!("/api/users/{USER}");
    says(
        &server.get(&path).await.expect(200),
        json!({"time_zone": null, "windows": null, "updated_at": null}),
    );
    pupil.done();
    server.stop().await;
}

#[sqlx::test]
async fn troubleshooting(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Troubleshooting", &server);
    server.release("1.5.0", "stable").await;
    assert_eq!(pupil.run("-X DELETE http://localhost:8000/api/firmware/1.5.0").await.expect(204), "");
    server.get("/api/firmware/1.5.0").await.expect(404);
    server.delete("/api/firmware/1.5.0").await.expect(404);
    assert!(server.objects().is_empty(), "{:?}", server.objects());

    server.release("1.5.0", "stable").await;
    next_number(&server, "printers", 42).await;
    let mut printer = Printer::online(server.printer(0)).await.unwrap();
    server.wait("/api/printers/42", |printer| printer["online"] == true).await;
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    printer.next_offer(SOON).await.unwrap();
    let failure = json!({"kind": "firmware_failed", "error": "Update failed: HTTP error 404"});
    printer.send_json(&failure).await.unwrap();
    server.wait("/api/printers/42/updates?status=failed", |list| list["total"] != 0).await;

    assert_eq!(pupil.run("jq '.total_targets'").await.expect(200), 1);
    let seen = pupil.run("/api/printers/42").await.expect(200);
    has(&seen, PRINTER);
    says(&seen, json!({"number": 42, "online": true}));
    let words = pupil.run(".error_message'").await.expect(200);
    assert!(words.as_str().unwrap().contains("Update failed: HTTP error 404"), "{words}");
    pupil.done();
    printer.drop_hard();
    server.stop().await;
}
