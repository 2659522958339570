//! Monitoring Updates: a rollout under way, one at rest and one held, and printers of every sort.

use paperminder_ota::simulate::{Fleet, Printer};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::pupil::Pupil;
use super::{PRINTER, ROLLOUT, UPDATE, USER, has, next_number, on, printer, says};
use crate::support::Server;

#[sqlx::test]
async fn monitoring_updates(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut pupil = Pupil::of("Monitoring Updates", &server);
    server.release("1.4.0", "stable").await;
    server.release("1.5.0", "stable").await;

    // Printer 42 takes what it is offered, another is not in yet at 50 percent, a third is too new and gone.
    next_number(&server, "printers", 42).await;
    let mut first = on(printer(&server, |bucket| bucket < 20), "1.3.0");
    first.identity.user_id = USER.into();
    let early = Fleet::start(vec![first].into()).unwrap();
    server.wait("/api/printers/42", |printer| printer["online"] == true).await;
    let late = Fleet::start(vec![on(printer(&server, |bucket| bucket >= 50), "1.4.0")].into()).unwrap();
    let newer = Printer::online(on(server.printer(2000), "1.6.0")).await.unwrap();
    server.wait("/api/printers?firmware_version=1.6.0", |list| list["total"] == 1).await;
    newer.drop_hard();
    server.wait("/api/printers?online=true", |list| list["total"] == 2).await;
    server.wait("/api/printers?online=false", |list| list["total"] == 1).await;

    // Rollout 40 is completed, 41 paused, 42 under way.
    next_number(&server, "update_rollouts", 40).await;
    server
        .rollout(
            json!({"firmware_version": "1.4.0", "target": {"user_ids": [USER]}, "rollout_type": "immediate"}),
        )
        .await;
    server
        .wait("/api/rollouts/40", |rollout| {
            rollout["status"] == "completed" && rollout["confirmed_count"] == 1
        })
        .await;
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"channels": ["beta"]}, "rollout_type": "immediate"}))
        .await;
    server.patch("/api/rollouts/41", &json!({"status": "paused"})).await.expect(200);
    server
        .rollout(
            json!({"firmware_version": "1.5.0", "target": {"channels": ["stable"], "min_version": "1.0.0"},
            "rollout_type": "gradual", "rollout_percentage": 20}),
        )
        .await;
    server.wait("/api/rollouts/42", |rollout| rollout["confirmed_count"] == 1).await;

    let numbers = |list: &Value, of: &str| -> Vec<i64> {
        list[of].as_array().unwrap().iter().map(|row| row["number"].as_i64().unwrap()).collect()
    };
    let list = pupil.run("/api/rollouts").await.expect(200);
    has(&list["rollouts"][0], ROLLOUT);
    assert_eq!(numbers(&list, "rollouts"), [42, 41, 40]);
    for (status, number) in [("active", 42), ("completed", 40), ("paused", 41)] {
        let list = pupil.run(&format!("?status={status}")).await.expect(200);
        assert_eq!((numbers(&list, "rollouts"), &list["total"]), (vec![number], &json!(1)), "{status}");
    }

    let list = pupil.run("firmware_version=1.5.0").await.expect(200);
    assert_eq!(numbers(&list, "rollouts"), [42, 41]);

    let rollout = pupil.run("/api/rollouts/42").await.expect(200);
    has(&rollout, ROLLOUT);
    has(&rollout["targets"][0], "printer_id status started_at completed_at");
    says(
        &rollout,
        json!({"number": 42, "firmware_version": "1.5.0", "target_all": false, "target_user_ids": null,
            "target_channels": ["stable"], "min_version": "1.0.0", "max_version": null, "rollout_type": "gradual",
            "rollout_percentage": 20, "status": "active", "total_targets": 2, "completed_count": 1, "confirmed_count": 1,
            "failed_count": 0, "declined_count": 0, "pending_count": 1, "excluded": {"not_older": 1}}),
    );
    let by_id = server.get(&format!("/api/rollouts/{}", rollout["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(by_id, rollout);

    for status in ["paused", "active", "cancelled"] {
        let changed = pupil.run(&format!("{{\"status\": \"{status}\"}}")).await.expect(200);
        says(&changed, json!({"number": 42, "status": status}));
    }
    server.patch("/api/rollouts/42", &json!({"rollout_percentage": 50})).await.expect(409);
    // The four are alternatives: the last one finds a rollout that nobody cancelled.
    sqlx::query(
        "update update_rollouts set status = 'active', ended_at = null, epoch = epoch + 1, revision = revision + 1 where number = 42",
    )
    .execute(&server.pool)
    .await
    .unwrap();
    let wider = pupil.run("{\"rollout_percentage\": 50}").await.expect(200);
    says(&wider, json!({"number": 42, "status": "active", "rollout_percentage": 50, "pending_count": 1}));

    assert_eq!(pupil.run("-X DELETE http://localhost:8000/api/rollouts/42").await.expect(204), "");
    server.get("/api/rollouts/42").await.expect(404);

    let printers = pupil.run("/api/printers").await.expect(200);
    has(&printers["printers"][0], PRINTER);
    assert_eq!((numbers(&printers, "printers").len(), &printers["total"]), (3, &json!(3)));
    let own = pupil.run("?user_id=").await.expect(200);
    assert_eq!(numbers(&own, "printers"), [42]);
    says(
        &own["printers"][0],
        json!({"user_id": USER, "firmware_version": "1.5.0", "auto_update": true, "update_channel": "stable",
            "online": true, "name": own["printers"][0]["printer_name"], "last_ip": "127.0.0.1"}),
    );
    for (filter, total) in [("?online=true", 2), ("?firmware_version=1.4.0", 1), ("?channel=stable", 3)] {
        let list = pupil.run(filter).await.expect(200);
        assert_eq!((numbers(&list, "printers").len(), &list["total"]), (total, &json!(total)), "{filter}");
    }

    let updates = pupil.run("/api/printers/42/updates?limit=50").await.expect(200);
    let updates = updates["updates"].as_array().unwrap();
    let seen: Vec<_> =
        updates.iter().map(|update| (&update["rollout_number"], &update["firmware_version"])).collect();
    assert_eq!(seen, [(&json!(42), &json!("1.5.0")), (&json!(40), &json!("1.4.0"))]);
    for update in updates {
        has(update, UPDATE);
        says(
            update,
            json!({"status": "completed", "open": false, "attempt": 1, "error_message": null, "last_percent": 100,
                "printer_id": own["printers"][0]["printer_id"]}),
        );
    }
    pupil.done();
    early.stop().await;
    late.stop().await;
    server.stop().await;
}
