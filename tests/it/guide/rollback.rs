//! Rollback Plan: whom it takes back, and whom it leaves alone.

use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{on, pupil::Pupil, says};
use crate::support::{SOON, Server};

#[sqlx::test]
async fn rollback_plan(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Rollback Plan", &server);
    server.release("1.5.0", "stable").await;

    // Six take 1.5.0 of rollout 1, one does not want it, one had it from elsewhere, one is further.
    let mut printers: Vec<_> = (0..6)
        .map(|index| on(if index % 2 == 0 { server.printer(index) } else { server.device(index) }, "1.4.0"))
        .collect();
    printers.push(on(server.printer(6), "1.4.0"));
    printers[6].behaviour = Behaviour::Always(Fate::Decline);
    printers.push(on(server.printer(7), "1.5.0"));
    printers.push(on(server.printer(8), "2.0.0"));
    let fleet = Fleet::start(FleetOptions::from(printers)).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 9).await;
    let rollout =
        json!({"firmware_version": "1.5.0", "target": {"channels": ["stable"]}, "rollout_type": "immediate"});
    server.rollout(rollout).await;
    server
        .wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == 6 && rollout["declined_count"] == 1)
        .await;
    let offers = fleet.snapshot().offers;

    let cancelled = pupil.run("\"cancelled\"").await.expect(200);
    says(&cancelled, json!({"number": 1, "status": "cancelled"}));
    let release = pupil.run("version=1.4.0").await.expect(201);
    says(&release, json!({"version": "1.4.0", "channel": "stable"}));
    let back = pupil.run("\"1.4.0\"").await.expect(201);
    says(&back, json!({"number": 2, "status": "active", "firmware_version": "1.4.0", "total_targets": 6}));
    pupil.done();

    let all_back = |rollout: &Value| rollout["status"] == "completed" && rollout["confirmed_count"] == 6;
    let done = server.wait("/api/rollouts/2", all_back).await;
    says(&done, json!({"excluded": {"not_older": 2, "runs_it": 1}}));
    assert_eq!(fleet.snapshot().offers, offers + 6, "nobody else was offered anything");
    let late = Fleet::start(vec![on(server.printer(100), "1.3.0")].into()).unwrap();
    late.wait_until(SOON, |late| late.running("1.4.0") == 1).await.unwrap();
    let fleet = fleet.stop().await;
    assert_eq!([fleet.running("1.4.0"), fleet.running("1.5.0"), fleet.running("2.0.0")], [7, 1, 1]);
    late.stop().await;
    server.stop().await;
}
