//! The main job in one test: release, rollout, printers of both kinds, proof.

use paperminder_ota::simulate::{Fleet, FleetOptions};
use serde_json::json;
use sqlx::PgPool;

use crate::support::Server;

#[sqlx::test]
async fn a_release_reaches_every_printer_and_the_rollout_rests(pool: PgPool) {
    let server = Server::start(pool).await;
    let fleet =
        Fleet::start(FleetOptions::of(20, |i| if i % 2 == 0 { server.printer(i) } else { server.device(i) }))
            .unwrap();
    server.wait("/api/printers?online=true", |printers| printers["total"] == 20).await;
    let release = server.release("1.5.0", "stable").await;
    let rollout = server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"channels": ["stable"]}, "rollout_type": "immediate"}))
        .await;
    assert_eq!((rollout["status"].as_str(), rollout["total_targets"].as_i64()), (Some("active"), Some(20)));
    let path = format!("/api/rollouts/{}", rollout["number"]);
    let done = server
        .wait(&path, |rollout| rollout["status"] == "completed" && rollout["confirmed_count"] == 20)
        .await;
    assert_eq!(done["completed_count"], 20);
    let firmware = server.get("/api/firmware/1.5.0").await.expect(200);
    assert_eq!((&firmware["success_count"], &firmware["md5"]), (&json!(20), &release["md5"]));
    let fleet = fleet.stop().await;
    assert!(fleet.all_run("1.5.0"));
    assert_eq!((fleet.double_offers, fleet.md5_mismatches, fleet.offers), (0, 0, 20));
    server.stop().await;
}
