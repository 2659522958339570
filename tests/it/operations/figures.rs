//! The fleet's figures on `/metrics`.

use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions, PrinterOptions};
use paperminder_ota::stats;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{SOON, Server};

#[sqlx::test]
async fn one_replica_tells_the_fleets_figures_and_they_are_those_of_rest(pool: PgPool) {
    let one = Server::with(pool.clone(), &[("MAX_ATTEMPTS", "1")]).await;
    let two = one.twin().await;
    one.release("1.5.0", "stable").await;
    let options = FleetOptions::of(4, |index| PrinterOptions {
        behaviour: Behaviour::Always(if index == 0 { Fate::FailDownload } else { Fate::Install }),
        ..one.printer(index)
    });
    let fleet = Fleet::start(options).unwrap();
    fleet.wait_until(SOON, |fleet| fleet.subscribes >= 4).await.unwrap();
    one.rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let rollout = one
        .wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == 3 && rollout["failed_count"] == 1)
        .await;
    assert_eq!(rollout["status"], "completed", "it is told on although it rests");
    let quiet = one.rollout(json!({"firmware_version": "1.5.0", "target": {"printer_ids": ["nobody"]}, "start": false, "rollout_type": "immediate"})).await;
    assert_eq!(quiet["status"], "pending");
    sqlx::query(
        "insert into presence (printer, number, connection, last_connected, last_disconnected) \
         values (gen_random_uuid(), 900, 900, now() - interval '3 days', now() - interval '25 hours'), \
                (gen_random_uuid(), 901, 901, now() - interval '3 days', now() - interval '23 hours')",
    )
    .execute(&pool)
    .await
    .unwrap();

    let tell = async |server: &Server| {
        let mut conn = pool.acquire().await.unwrap();
        let state = &server.app().state;
        stats::figures(&mut conn, state.replica, state.clock.now())
            .await
            .unwrap()
            .map(|figures| figures.to_string())
    };
    let (said, other) = (tell(&one).await, tell(&two).await);
    assert!(said.is_some() != other.is_some(), "one of them tells");
    let text = said.or(other).unwrap();
    for line in [
        "paperminder_printers_known 4",
        r#"paperminder_printers{version="1.5.0"} 3"#,
        "paperminder_printers_offline 1",
        "paperminder_updates_silent 0",
        "paperminder_rollouts_paused_by_rule 0",
        r#"paperminder_rollouts{status="completed"} 1"#,
        r#"paperminder_rollouts{status="pending"} 1"#,
        r#"paperminder_rollouts{status="active"} 0"#,
        r#"paperminder_rollout_printers{rollout="1",rollout_status="completed",status="confirmed"} 3"#,
        r#"paperminder_rollout_printers{rollout="1",rollout_status="completed",status="failed"} 1"#,
        r#"paperminder_rollout_printers{rollout="1",rollout_status="completed",status="pending"} 0"#,
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is missing in\n{text}");
    }
    // What both tell of themselves; what has not happened yet is told too, or the first time would
    // be no increase.
    for server in [&one, &two] {
        let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
        for name in [
            "paperminder_build_info{",
            "paperminder_database_connections_max 8",
            "paperminder_engine_last_turn_timestamp_seconds ",
            "paperminder_migrations_pending 0",
            r#"paperminder_updates_total{status="failed",reason="timeout"} "#,
            r#"paperminder_connections_refused_total{reason="printer_key"} "#,
            r#"paperminder_garbage_turns_total{outcome="failed"} "#,
            "paperminder_engine_errors_total ",
            "paperminder_link_downloads_total ",
            "# TYPE paperminder_database_connections gauge",
        ] {
            assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
        }
    }
    let metrics = reqwest::get(one.internal("/metrics")).await.unwrap().text().await.unwrap()
        + &reqwest::get(two.internal("/metrics")).await.unwrap().text().await.unwrap();
    assert_eq!(metrics.matches("\npaperminder_printers_known ").count(), 1, "by the replica that came first");
    fleet.stop().await;
    two.stop().await;
    one.stop().await;
}
