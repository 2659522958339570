//! The garbage goes by itself, while servers run; what is in the making stays.

use std::time::{Duration, Instant};

use paperminder_ota::ids::FirmwareId;
use paperminder_ota::jobs::GARBAGE_LOCK;
use paperminder_ota::storage::ObjectKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::gc::old_file;
use super::{image, wait};
use crate::storage::ground::key;
use crate::support::{SOON, Server, raw};

const MIB: usize = 1 << 20;
const SETTINGS: [(&str, &str); 2] = [("GC_EVERY_SECONDS", "1"), ("MAX_FIRMWARE_SIZE", "33554432")];

fn holds(server: &Server, key: &ObjectKey) -> bool {
    server.objects().iter().any(|path| path.ends_with(key.as_str()))
}

/// Waits for so many more turns of this process that end so.
async fn turns(server: &Server, outcome: &str, more: u64) {
    let name = format!("paperminder_garbage_turns_total{{outcome=\"{outcome}\"}} ");
    let count = async || {
        let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
        metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    };
    let (before, deadline): (u64, _) = (count().await, Instant::now() + SOON);
    while count().await < before + more {
        assert!(Instant::now() < deadline, "no turn ends as {outcome}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[sqlx::test]
async fn orphans_disappear_by_themselves_and_running_uploads_go_on(pool: PgPool) {
    let server = Server::with(pool, &SETTINGS).await;
    let release = server.release("1.4.0", "stable").await;

    // Two uploads under way: a form half sent, and parts that nobody completed yet.
    let (bytes, direct) = (raw::noise(12 * MIB, 1), image(7));
    let (head, tail) = raw::form(&[("version", "2.0.0"), ("validate", "off")], &[]);
    let mut wire = raw::Wire::open(server.app().address).await;
    let length = head.len() + bytes.len() + tail.len();
    wire.send(raw::upload_head(server.app().address, Some(length), "").as_bytes()).await;
    wire.send(&head).await;
    wire.send(&bytes[..11 * MIB]).await;
    wait(|| server.objects().iter().any(|path| path.ends_with(".part-2"))).await;
    let sha256 = hex::encode(Sha256::digest(&direct));
    let body = json!({"version": "3.0.0", "size": direct.len(), "sha256": sha256});
    let begun = server.post("/api/firmware/uploads", &body).await.expect(201);
    let put =
        reqwest::Client::new().put(begun["urls"][0].as_str().unwrap()).body(direct).send().await.unwrap();
    let tag = put.headers()["etag"].to_str().unwrap().to_owned();

    let [orphan, staged, young, later] = [(); 4].map(|()| FirmwareId::generate());
    let (orphan, later, staged) = (key(orphan, "1.5.0"), key(later, "1.5.0"), ObjectKey::staging(staged));
    let young = key(young, "1.5.0");
    let fresh = server.folder().join("s3/firmware").join(young.as_str());
    std::fs::create_dir_all(fresh.parent().unwrap()).unwrap();
    std::fs::write(&fresh, [7; 100]).unwrap();
    old_file(server.folder(), &orphan);
    old_file(server.folder(), &staged);
    wait(|| !holds(&server, &orphan) && !holds(&server, &staged)).await;
    // In the next turn as well.
    old_file(server.folder(), &later);
    wait(|| !holds(&server, &later)).await;
    assert!(holds(&server, &young), "it may be a release in the making");

    wire.send(&[&bytes[11 * MIB..], &tail].concat()).await;
    assert_eq!(wire.reply(false).await.status, 201);
    let path = format!("/api/firmware/uploads/{}/complete", begun["id"].as_str().unwrap());
    server.post(&path, &json!({"parts": [tag]})).await.expect(201);
    let file = reqwest::get(server.url("/api/firmware/download/1.4.0")).await.unwrap().bytes().await.unwrap();
    assert_eq!(json!(file.len()), release["file_size"]);
    let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("paperminder_garbage_removed_total{kind=\"staged\"}"), "{metrics}");
    server.stop().await;
}

#[sqlx::test]
async fn one_replica_collects_at_a_time(pool: PgPool) {
    let mut other = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    sqlx::query("select pg_advisory_lock($1)").bind(GARBAGE_LOCK).execute(&mut other).await.unwrap();
    let server = Server::with(pool, &SETTINGS).await;
    server.release("1.4.0", "stable").await;
    let orphan = key(FirmwareId::generate(), "1.5.0");
    old_file(server.folder(), &orphan);
    // Databases have locks of their own, so these are turns of this test alone.
    turns(&server, "elsewhere", 2).await;
    assert!(holds(&server, &orphan));
    // Its end is the end of its lock, even without a farewell.
    drop(other);
    wait(|| !holds(&server, &orphan)).await;
    server.stop().await;
}

#[sqlx::test]
async fn a_turn_that_fails_is_repeated_and_an_end_does_not_wait_for_it(pool: PgPool) {
    let (server, wire) = Server::behind_wire(pool, &SETTINGS).await;
    server.release("1.4.0", "stable").await;
    let orphan = key(FirmwareId::generate(), "1.5.0");
    wire.cut();
    old_file(server.folder(), &orphan);
    turns(&server, "failed", 1).await;
    assert!(holds(&server, &orphan));
    wire.mend();
    wait(|| !holds(&server, &orphan)).await;
    wire.freeze();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}
