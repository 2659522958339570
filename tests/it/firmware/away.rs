//! S3 or PostgreSQL gone, before and in the middle: 503 soon, never a hang, and nothing half-done.

use std::time::{Duration, Instant};

use paperminder_ota::storage::PART_SIZE;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Idle, image, nothing, rows, wait};
use crate::support::proxy::{Proxy, Target};
use crate::support::{Answer, Server, raw};

/// What is not there answers 503 within this, retries included.
const PATIENCE: Duration = Duration::from_secs(12);

#[track_caller]
fn unavailable(status: u16, retry_after: Option<&str>, problem: &Value, began: Instant) {
    assert_eq!((status, &problem["type"]), (503, &json!("/docs/problems/unavailable")), "{problem}");
    assert!(retry_after.is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0)));
    assert!(problem["trace_id"].is_string(), "{problem}");
    let text = problem.to_string();
    for internal in ["127.0.0.1", "refused", "dispatch", "sqlx", "error returned"] {
        assert!(!text.contains(internal), "{text}");
    }
    println!("answered after {:?}: {}", began.elapsed(), problem["detail"]);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[track_caller]
fn answered_unavailable(answer: &Answer, began: Instant) {
    let retry = answer.headers.get("retry-after").map(|value| value.to_str().unwrap());
    unavailable(answer.status.as_u16(), retry, &answer.body, began);
}

#[sqlx::test]
async fn without_s3_an_upload_and_a_download_are_refused_soon(pool: PgPool) {
    let (server, wire) = Server::behind_wire(pool, &[]).await;
    server.release("1.0.0", "stable").await;
    for (how, lose) in [("cut", Proxy::cut as fn(&Proxy)), ("frozen", Proxy::freeze)] {
        println!("S3 is {how}");
        lose(&wire);
        let began = Instant::now();
        answered_unavailable(&server.upload_bytes(image(1), &[("version", "1.5.0")]).await, began);
        let began = Instant::now();
        answered_unavailable(&server.get("/api/firmware/download/1.0.0").await, began);
        // What needs no object goes on.
        assert_eq!(server.get("/api/firmware/1.0.0").await.status, 200);
        wire.mend();
        // Bytes that were under way in a frozen wire arrive now; whatever they did is taken back.
        assert_eq!(rows(&server).await, 1);
        settled(&server, 1).await;
    }
    server.release("1.5.0", "stable").await;
    server.stop().await;
}

/// Waits until this many objects are there.
async fn settled(server: &Server, objects: usize) {
    wait(|| server.objects().len() == objects).await;
}

#[sqlx::test]
async fn a_wrong_port_for_s3_is_refused_soon(pool: PgPool) {
    let (server, wire) = Server::behind_wire(pool, &[]).await;
    server.release("1.0.0", "stable").await;
    // Nobody listens there any more.
    drop(wire);
    let began = Instant::now();
    answered_unavailable(&server.upload_bytes(image(1), &[("version", "1.5.0")]).await, began);
    let began = Instant::now();
    answered_unavailable(&server.get("/api/firmware/download/1.0.0").await, began);
    assert_eq!((rows(&server).await, server.objects().len()), (1, 1));
    server.stop().await;
}

#[sqlx::test]
async fn s3_that_goes_away_in_mid_upload_leaves_no_row_and_in_the_end_no_part(pool: PgPool) {
    let (server, wire) = Server::behind_wire(pool, &[("MAX_FIRMWARE_SIZE", "40000000")]).await;
    let idle = Idle::of(&server);
    let mut client = raw::Wire::open(server.app().address).await;
    client.send(raw::upload_head(server.app().address, None, "").as_bytes()).await;
    client.send(&raw::chunk(&raw::form(&[("version", "1.5.0")], &[]).0)).await;
    client.send(&raw::chunk(&raw::noise(PART_SIZE + 1000, 1))).await;
    wait(|| server.objects().iter().any(|object| object.ends_with(".part-1"))).await;
    wire.cut();
    let began = Instant::now();
    client.send(&raw::chunk(&raw::noise(PART_SIZE + 1000, 2))).await;
    let reply = client.reply(false).await;
    unavailable(reply.status, reply.header("retry-after"), &reply.json(), began);
    assert_eq!(rows(&server).await, 0);
    // The parts cannot be taken back now, but they are as soon as S3 is there again.
    wire.mend();
    idle.until_idle(&server).await;
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

/// A server whose database is behind a wire.
async fn behind_wire(pool: &PgPool) -> (Server, Proxy) {
    let wire = Proxy::start(Target::database(pool)).await;
    let url = wire.database_url(pool);
    (Server::with(pool.clone(), &[("DATABASE_URL", &url)]).await, wire)
}

#[sqlx::test]
async fn without_a_database_every_request_is_refused_soon(pool: PgPool) {
    let (server, wire) = behind_wire(&pool).await;
    server.release("1.0.0", "stable").await;
    for (how, lose) in [("cut", Proxy::cut as fn(&Proxy)), ("frozen", Proxy::freeze)] {
        println!("PostgreSQL is {how}");
        lose(&wire);
        for path in ["", "/latest", "/1.0.0", "/download/1.0.0"] {
            let began = Instant::now();
            answered_unavailable(&server.get(&format!("/api/firmware{path}")).await, began);
        }
        let began = Instant::now();
        answered_unavailable(&server.delete("/api/firmware/1.0.0").await, began);
        let began = Instant::now();
        answered_unavailable(&server.upload_bytes(image(1), &[("version", "1.5.0")]).await, began);
        assert_eq!((rows(&server).await, server.objects().len()), (1, 1), "{:#?}", server.objects());
        wire.mend();
    }
    // And it goes on by itself.
    server.wait("/api/firmware/1.0.0", |release| release["version"] == "1.0.0").await;
    server.release("1.5.0", "stable").await;
    server.stop().await;
}

#[sqlx::test]
async fn a_database_that_goes_away_in_mid_upload_leaves_neither_row_nor_object(pool: PgPool) {
    let (server, wire) = behind_wire(&pool).await;
    let idle = Idle::of(&server);
    let mut client = raw::Wire::open(server.app().address).await;
    let (head, tail) = raw::form(&[("version", "1.5.0"), ("channel", "beta"), ("platform", "esp32")], &[]);
    let bytes = image(1);
    let length = head.len() + bytes.len() + tail.len();
    client.send(raw::upload_head(server.app().address, Some(length), "").as_bytes()).await;
    client.send(&head).await;
    client.send(&bytes[..5000]).await;
    idle.until_busy(&server).await;
    wire.cut();
    let began = Instant::now();
    client.send(&bytes[5000..]).await;
    client.send(&tail).await;
    let reply = client.reply(false).await;
    unavailable(reply.status, reply.header("retry-after"), &reply.json(), began);
    nothing(rows(&server).await, &server.objects());
    wire.mend();
    server.stop().await;
}

#[sqlx::test]
async fn connections_that_the_database_ends_are_replaced_unnoticed(pool: PgPool) {
    let (server, _wire) = behind_wire(&pool).await;
    server.release("1.0.0", "stable").await;
    for round in 0..3 {
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and application_name = 'paperminder-ota'",
        )
        .execute(&pool)
        .await
        .unwrap();
        // Requests that find their connection dead may say 503, but never 500.
        let status = server.get("/api/firmware/1.0.0").await.status.as_u16();
        assert!(matches!(status, 200 | 503), "{status}");
        server.release(&format!("1.0.{}", round + 1), "stable").await;
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_row_whose_insert_was_not_acknowledged_is_found_again(pool: PgPool) {
    // A lock holds the insert back inside PostgreSQL while the wire to it is cut: the server cannot know whether it
    // took effect. It does, once the lock is gone.
    let (server, wire) = behind_wire(&pool).await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock table firmware_versions in share mode").execute(&mut *lock).await.unwrap();
    let upload = server.upload_bytes(image(1), &[("version", "1.5.0")]);
    let meddle = async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
             and wait_event_type = 'Lock' and query like 'insert into firmware_versions%'";
        let deadline = Instant::now() + crate::support::SOON;
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() == 0 {
            assert!(Instant::now() < deadline, "the insert never comes");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        wire.cut();
        tokio::time::sleep(Duration::from_millis(300)).await;
        wire.mend();
        lock.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(upload, meddle);
    let release = answer.expect(201);
    assert_eq!(server.get("/api/firmware/1.5.0").await.expect(200), release);
    assert_eq!((rows(&server).await, server.objects().len()), (1, 1));
    server.stop().await;
}
