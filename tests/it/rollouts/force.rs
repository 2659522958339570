//! An update that an operator forces on one printer.

use paperminder_ota::simulate::{PrinterOptions, image::esp8266_image};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{HOUR, QUIET, clocked, known, on, online, says, tells, to_all, was_here};
use crate::support::{Answer, SOON, Server};

async fn force(server: &Server, printer: &str, body: Value) -> Answer {
    server.post(&format!("{printer}/update"), &body).await
}

fn version(version: &str) -> Value {
    json!({"firmware_version": version})
}

#[sqlx::test]
async fn a_connected_printer_gets_it_at_once(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = online(&server, server.printer(1)).await;
    let update = force(&server, "/api/printers/1", version("1.5.0")).await.expect(201);
    says(
        &update,
        json!({"rollout_id": null, "rollout_number": null, "firmware_version": "1.5.0", "from_version": "1.0.0",
            "status": "pending", "open": true}),
    );
    let offer = printer.next_offer(SOON).await.unwrap();
    assert_eq!(&*offer.version, "1.5.0");
    printer.download(&offer).await.unwrap();
    printer.drop_hard();
    online(&server, on(server.printer(1), "1.5.0")).await;
    let list = server.wait("/api/printers/1/updates", |list| list["updates"][0]["open"] == false).await;
    says(&list["updates"][0], json!({"id": update["id"], "status": "completed"}));
    assert!(list["updates"][0]["confirmed_at"].is_string(), "{list}");
    server.stop().await;
}

#[sqlx::test]
async fn a_printer_that_is_away_gets_it_when_it_connects_however_late(pool: PgPool) {
    let (server, clock) = clocked(pool, &[("STUCK_AFTER_SECONDS", "2")]).await;
    server.release("1.5.0", "stable").await;
    let (options, path) = was_here(&server, server.printer(1)).await;
    force(&server, &path, version("1.5.0")).await.expect(201);
    clock.advance(48 * HOUR);
    tokio::time::sleep(QUIET).await;
    let update = &server.get(&format!("{path}/updates")).await.expect(200)["updates"][0];
    says(update, json!({"status": "pending", "open": true}));
    let fleet = known(&server, vec![options]).await;
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") == 1).await.unwrap();
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn auto_update_off_does_not_keep_it_away_and_the_printer_may_decline(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    let off = |index, accepts_forced| PrinterOptions {
        auto_update: false,
        accepts_forced,
        ..server.printer(index)
    };
    let fleet = known(&server, vec![off(1, true), off(2, false)]).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().offers, 0, "no rollout offers it to them");
    for printer in fleet.printers() {
        force(&server, &format!("/api/printers/{}", printer.id()), version("1.5.0")).await.expect(201);
    }
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") == 1).await.unwrap();
    let declined = format!("/api/printers/{}/updates", fleet.printers()[1].id());
    let list = server.wait(&declined, |list| list["updates"][0]["status"] == "declined").await;
    says(&list["updates"][0], json!({"open": false, "rollout_id": null}));
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn what_cannot_be_meant_is_refused_with_the_remedy(pool: PgPool) {
    let server = Server::start(pool).await;
    for version in ["1.4.0", "1.5.0"] {
        server.release(version, "stable").await;
    }
    let strict = server
        .upload_bytes(esp8266_image(20 << 10, 20), &[("version", "2.0.0"), ("min_upgrade_version", "1.8.0")]);
    strict.await.expect(201);
    server.release("1.6.0", "beta").await;
    let mut printer = online(&server, on(server.printer(1), "1.5.0")).await;
    let one = "/api/printers/1";
    for (body, status, words) in [
        (version("1.5.0"), 409, "runs 1.5.0 already"),
        (version("1.4.0"), 409, "allow_downgrade: true"),
        (version("2.0.0"), 409, "from 1.8.0 on; force a release in between first"),
        (version("9.9.9"), 404, "there is no release 9.9.9"),
        (json!({"firmware_version": "1.6.0", "channel": "stable"}), 404, "no release 1.6.0 on stable"),
    ] {
        tells(&force(&server, one, body).await.expect(status), words);
    }
    for (body, field) in [
        (json!({}), "body"),
        (version("1.5"), "firmware_version"),
        (json!({"firmware_version": "1.6.0", "channel": "nightly"}), "channel"),
        (json!({"firmware_version": "1.6.0", "now": true}), "now"),
    ] {
        let problem = force(&server, one, body).await.expect(422);
        assert!(problem["errors"].to_string().contains(field), "{field}: {problem}");
    }
    tells(&force(&server, "/api/printers/2", version("1.6.0")).await.expect(404), "rinter");
    assert_eq!(server.get("/api/printers/1/updates").await.expect(200)["total"], 0);
    assert!(printer.next_offer(QUIET).await.is_err());

    force(&server, one, version("1.6.0")).await.expect(201);
    tells(&force(&server, one, version("1.6.0")).await.expect(409), "open update; wait for its end");
    printer.next_offer(SOON).await.unwrap();
    printer.send_json(&json!({"kind": "firmware_failed", "error": "x"})).await.unwrap();
    server.wait("/api/printers/1/updates", |list| list["updates"][0]["open"] == false).await;
    let down = json!({"firmware_version": "1.4.0", "allow_downgrade": true});
    force(&server, one, down).await.expect(201);
    assert_eq!(&*printer.next_offer(SOON).await.unwrap().version, "1.4.0");
    server.stop().await;
}

#[sqlx::test]
async fn a_rollout_waits_until_the_forced_update_has_ended(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.4.0", "stable").await;
    server.release("1.5.0", "stable").await;
    let mut printer = online(&server, server.printer(1)).await;
    force(&server, "/api/printers/1", version("1.4.0")).await.expect(201);
    printer.next_offer(SOON).await.unwrap();
    server.rollout(to_all("1.5.0", json!({}))).await;
    assert!(printer.next_offer(QUIET).await.is_err(), "one update at a time");
    printer.send_json(&json!({"kind": "firmware_declined", "version": "1.4.0"})).await.unwrap();
    assert_eq!(&*printer.next_offer(SOON).await.unwrap().version, "1.5.0");
    server.stop().await;
}
