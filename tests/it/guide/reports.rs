//! "Reports and Live Events", to the last command.

use paperminder_ota::simulate::Printer;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::pupil::Pupil;
use super::{UPDATE, has, on, says};
use crate::support::{SOON, Server};

#[sqlx::test]
async fn reports_and_live_events(pool: PgPool) {
    let server = Server::with(pool, &[("RETRY_BACKOFF_SECONDS", "3600")]).await;
    let mut pupil = Pupil::of("Reports and Live Events", &server);
    server.release("1.5.0", "stable").await;
    // One printer takes the release, another one says that it failed.
    let mut unlucky = Printer::online(on(server.printer(1), "1.4.0")).await.unwrap();
    let mut lucky = Printer::online(on(server.printer(2), "1.4.0")).await.unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 2).await;
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    unlucky.next_offer(SOON).await.unwrap();
    lucky.next_offer(SOON).await.unwrap();
    let failure = json!({"kind": "firmware_failed", "error": "Update failed: HTTP error 404"});
    unlucky.send_json(&failure).await.unwrap();
    lucky.drop_hard();
    let lucky = Printer::online(on(server.printer(2), "1.5.0")).await.unwrap();
    server.wait("/api/updates?open=false", |list| list["total"] == 2).await;
    server.wait("/api/printers?online=true", |list| list["total"] == 2).await;

    // Replicas say every five seconds how many printers they hold.
    server.wait("/api/stats", |stats| stats["printers"]["online"] == 2).await;

    for part in ["status=failed", "error="] {
        let list = pupil.run(part).await.expect(200);
        assert_eq!((&list["total"], list["updates"].as_array().unwrap().len()), (&json!(1), 1), "{part}");
        has(&list["updates"][0], UPDATE);
        says(
            &list["updates"][0],
            json!({"status": "failed", "error_message": "Update failed: HTTP error 404"}),
        );
    }
    for (file, rows) in [("updates.csv", 3), ("updates.ndjson", 1), ("printers.csv", 3)] {
        assert_eq!(pupil.run(file).await.expect(200), "");
        let text = std::fs::read_to_string(pupil.desk().join(file)).unwrap();
        assert_eq!(text.lines().count(), rows, "{file}: {text}");
    }
    let stats = pupil.run("/api/stats").await.expect(200);
    says(
        &stats["printers"],
        json!({"total": 2, "online": 2, "by_version": {"1.4.0": 1, "1.5.0": 1}, "by_channel": {"stable": 2}}),
    );
    says(&stats["updates"]["last_24_hours"], json!({"completed": 1, "failed": 1, "success_rate": 0.5}));

    let change = async || {
        // Changes all along, because nobody knows when within its ten seconds a busy machine begins to watch.
        for _ in 0..8 {
            tokio::time::sleep(std::time::Duration::from_millis(900)).await;
            server.patch("/api/rollouts/1", &json!({"status": "paused"})).await.expect(200);
            server.patch("/api/rollouts/1", &json!({"status": "active"})).await.expect(200);
        }
    };
    for part in ["-N --max-time 10 http", "kind=rollout,update.ended"] {
        let (said, ()) = tokio::join!(pupil.run(part), change());
        let Value::String(text) = said.expect(200) else { panic!("no text") };
        assert!(
            text.starts_with("retry: 2000\nid: ") && text.contains("\nevent: rollout.changed\ndata: {"),
            "{text}"
        );
    }
    let Value::String(text) = pupil.run("Last-Event-ID: 1-1").await.expect(200) else { panic!("no text") };
    let of = |kind: &str| text.matches(&format!("\nevent: {kind}\n")).count();
    assert_eq!((of("firmware.created"), of("update.offered"), of("update.ended")), (1, 2, 2), "{text}");
    pupil.done();
    unlucky.drop_hard();
    lucky.drop_hard();
    server.stop().await;
}
