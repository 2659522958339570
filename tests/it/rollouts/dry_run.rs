//! What a rollout would do, told without doing it.

use serde_json::json;
use sqlx::PgPool;

use super::{fleet, path};
use crate::support::Server;
use paperminder_ota::simulate::Printer;

#[sqlx::test]
async fn a_dry_run_says_what_the_real_one_does_and_leaves_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let picky =
        [("version", "2.0.0"), ("channel", "stable"), ("min_upgrade_version", "1.4.0"), ("validate", "off")];
    server.upload_bytes(vec![0xE9; 3000], &picky).await.expect(201);
    let _fleet = fleet(&server, 6).await;
    let mut old = server.printer(100);
    old.firmware_version = "1.3.0".into();
    let _old = Printer::online(old).await.unwrap();
    let mut foreign = server.printer(101);
    foreign.identity.platform = Some("esp32".into());
    let _foreign = Printer::online(foreign).await.unwrap();
    server.wait("/api/printers?limit=1", |list| list["total"] == 8).await;
    let wanted = json!({"firmware_version": "2.0.0", "target": {"all": true}, "rollout_type": "gradual",
        "rollout_percentage": 50, "start": false, "max_in_flight": 2, "rate_per_minute": 4});
    let told = server.post("/api/rollouts?dry_run=true", &wanted).await.expect(200);
    assert_eq!(server.get("/api/rollouts").await.expect(200)["total"], 0, "nothing was written");
    let real = server.rollout(wanted).await;
    assert_eq!(real["number"], 1, "it took no number");
    assert_eq!((&told["total_targets"], &told["excluded"]), (&real["total_targets"], &real["excluded"]));
    assert_eq!(told["total_targets"], 7);
    assert_eq!(told["excluded"], json!({"no_release_for_platform": 1}));
    assert_eq!(told["by_version"], json!({"1.0.0": 6, "1.3.0": 1}));
    let stones = told["stepping_stones"].as_i64().unwrap();
    assert_eq!(
        told["examples"]["1.5.0"].as_array().map_or(0, |all| all.len() as i64),
        stones.min(5),
        "{told}"
    );
    assert!(stones >= 1, "{told}");
    assert_eq!(told["examples"]["no_release_for_platform"].as_array().unwrap().len(), 1);
    // (7 + stones) updates, two at a time, 90 s each; at four a minute it would be quicker.
    let waves = (7 + stones + 1) / 2;
    assert_eq!(
        (&told["typical_update_seconds"], &told["lasts_at_least_seconds"]),
        (&json!(90), &json!(waves * 90))
    );
    assert_eq!(told["peak_bytes_per_second"], 2 * server_size(&server).await / 90);
    server.wait(&path(&real), |rollout| rollout["status"] == "pending").await;
    let bad = json!({"firmware_version": "9.9.9", "target": {"all": true}, "rollout_type": "immediate"});
    assert_eq!(
        server.post("/api/rollouts?dry_run=true", &bad).await.expect(404)["type"],
        "/docs/problems/firmware-not-found"
    );
    server.stop().await;
}

/// Bytes of the largest image that would be offered.
async fn server_size(server: &Server) -> i64 {
    let mut largest = 0;
    for version in ["1.5.0", "2.0.0"] {
        let release = server.get(&format!("/api/firmware/{version}")).await.expect(200);
        largest = largest.max(release["file_size"].as_i64().unwrap());
    }
    largest
}
