//! `POST …/rollback`: a rollout is undone, and the printers that took it go back.

use paperminder_ota::simulate::Fate;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{QUIET, known, on, online, path, printers, says, tells, to_all};
use crate::support::{SOON, Server};

/// Two printers on each of these versions.
fn mixed(server: &Server, versions: &[&str]) -> Vec<paperminder_ota::simulate::PrinterOptions> {
    let pairs = (0..).zip(versions).map(|(at, version)| printers(server, at * 2, 2, version, Fate::Install));
    pairs.flatten().collect()
}

#[sqlx::test]
async fn each_printer_goes_back_to_what_it_had(pool: PgPool) {
    let server = Server::start(pool).await;
    for version in ["1.3.0", "1.4.0", "1.5.0"] {
        server.release(version, "stable").await;
    }
    let mut all = mixed(&server, &["1.3.0", "1.4.0"]);
    all.push(on(server.printer(10), "1.5.0"));
    let fleet = known(&server, all).await;
    let bad = server.rollout(to_all("1.5.0", json!({}))).await;
    server.wait(&path(&bad), |rollout| rollout["confirmed_count"] == 4).await;
    let answer = server.post("/api/rollouts/1/rollback", &json!({})).await.expect(200);
    says(&answer["rollout"], json!({"number": 1, "status": "cancelled", "status_reason": "rolled_back"}));
    let back = answer["rollbacks"].as_array().unwrap();
    let mut versions: Vec<_> = back.iter().map(|one| one["firmware_version"].as_str().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, ["1.3.0", "1.4.0"]);
    for one in back {
        says(
            one,
            json!({"rolls_back": bad["id"], "installed_by": bad["id"], "previous_version": one["firmware_version"],
                "allow_downgrade": true, "status": "active", "total_targets": 2}),
        );
        let done = |rollout: &Value| rollout["status"] == "completed" && rollout["confirmed_count"] == 2;
        server.wait(&path(one), done).await;
    }
    tells(&server.post("/api/rollouts/1/rollback", &json!({})).await.expect(409), "already");
    for (index, printer) in fleet.printers().iter().enumerate() {
        let had = ["1.3.0", "1.3.0", "1.4.0", "1.4.0", "1.5.0"][index];
        assert_eq!(&*printer.state().version, had, "printer {index}");
    }
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn all_go_back_to_a_version_that_is_named(pool: PgPool) {
    let server = Server::start(pool).await;
    for version in ["1.2.0", "1.5.0"] {
        server.release(version, "stable").await;
    }
    let fleet = known(&server, mixed(&server, &["1.3.0", "1.4.0"])).await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    server.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == 4).await;
    let answer = server.post("/api/rollouts/1/rollback", &json!({"to_version": "1.2.0"})).await.expect(200);
    assert_eq!(answer["rollbacks"].as_array().unwrap().len(), 1);
    says(
        &answer["rollbacks"][0],
        json!({"firmware_version": "1.2.0", "previous_version": null, "total_targets": 4}),
    );
    fleet.wait_until(SOON, |fleet| fleet.running("1.2.0") == 4).await.unwrap();
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn a_version_without_a_release_waits_until_somebody_uploads_it(pool: PgPool) {
    let server = Server::start(pool).await;
    for version in ["1.4.0", "1.5.0"] {
        server.release(version, "stable").await;
    }
    let fleet = known(&server, mixed(&server, &["1.3.0", "1.4.0"])).await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    server.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == 4).await;
    let answer = server.post("/api/rollouts/1/rollback", &json!({})).await.expect(200);
    let versions: Vec<_> =
        answer["rollbacks"].as_array().unwrap().iter().map(|one| &one["firmware_version"]).collect();
    assert_eq!(versions, [&json!("1.4.0")]);
    let told = answer["rollout"]["status_detail"].as_str().unwrap();
    assert!(told.contains("Printers that had 1.3.0 stay where they are"), "{told}");
    fleet.wait_until(SOON, |fleet| fleet.running("1.4.0") == 2).await.unwrap();
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().running("1.5.0"), 2);
    server.release("1.3.0", "stable").await;
    let rest = json!({"firmware_version": "1.3.0", "rollout_type": "immediate",
        "target": {"installed_by": 1, "previous_version": "1.3.0"}});
    says(&server.rollout(rest).await, json!({"total_targets": 2, "installed_by": answer["rollout"]["id"]}));
    fleet.wait_until(SOON, |fleet| fleet.running("1.3.0") == 2).await.unwrap();
    assert_eq!(fleet.stop().await.running("1.4.0"), 2);
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_that_proves_itself_only_afterwards_goes_back_too(pool: PgPool) {
    let server = Server::start(pool).await;
    for version in ["1.4.0", "1.5.0"] {
        server.release(version, "stable").await;
    }
    let mut printer = online(&server, on(server.device(1), "1.4.0")).await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    printer.next_offer(SOON).await.unwrap();
    printer.drop_hard();
    let answer = server.post("/api/rollouts/1/rollback", &json!({})).await.expect(200);
    assert_eq!(answer["rollbacks"].as_array().unwrap().len(), 1, "{answer}");
    let mut back = online(&server, on(server.device(1), "1.5.0")).await;
    assert_eq!(&*back.next_offer(SOON).await.unwrap().version, "1.4.0");
    server.stop().await;
}

#[sqlx::test]
async fn what_cannot_be_undone_is_refused_and_changes_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    let rollback = async |body: Value| server.post("/api/rollouts/1/rollback", &body).await;
    tells(&rollback(json!({"to_version": "1.4.0"})).await.expect(404), "no release 1.4.0");
    let problem = rollback(json!({"to_version": "old"})).await.expect(422);
    assert_eq!(problem["errors"][0]["field"], "to_version");
    rollback(json!({"to": "1.5.0"})).await.expect(422);
    server.post("/api/rollouts/9/rollback", &json!({})).await.expect(404);
    let list = server.get("/api/rollouts").await.expect(200);
    assert_eq!((&list["total"], &list["rollouts"][0]["status"]), (&json!(1), &json!("active")));
    // Nobody took it: there is nothing to bring back.
    let answer = rollback(json!({})).await.expect(200);
    assert_eq!((&answer["rollbacks"], &answer["rollout"]["status"]), (&json!([]), &json!("cancelled")));
    server.stop().await;
}
