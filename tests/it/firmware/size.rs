//! The limit, and the way of a file that is larger than one part.

use std::time::{Duration, Instant};

use paperminder_ota::storage::PART_SIZE;
use sqlx::PgPool;

use super::{Idle, nothing, rows, wait};
use crate::support::{Server, raw};

/// Where a large file rests before it is named.
fn staged(server: &Server) -> bool {
    server.objects().iter().any(|object| object.contains(".upload"))
}

#[sqlx::test]
async fn a_file_of_the_limit_is_taken_and_one_byte_more_is_not(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "20000")]).await;
    let refused = server
        .upload_bytes(raw::noise(20_001, 1), &[("version", "1.0.0"), ("validate", "off")])
        .await
        .expect(413);
    assert_eq!(
        (&refused["type"], &refused["title"]),
        (&"/docs/problems/file-too-large".into(), &"File too large".into())
    );
    assert!(refused["detail"].as_str().unwrap().contains("20000 bytes"), "{refused}");
    nothing(rows(&server).await, &server.objects());
    server
        .upload_bytes(raw::noise(20_000, 1), &[("version", "1.0.0"), ("validate", "off")])
        .await
        .expect(201);
    server.stop().await;
}

#[sqlx::test]
async fn the_documented_limit_holds_unless_set(pool: PgPool) {
    let server = Server::start(pool).await;
    let refused =
        server.upload_bytes(raw::noise(5_242_881, 1), &[("version", "1.0.0"), ("validate", "off")]).await;
    assert_eq!(refused.status, 413);
    nothing(rows(&server).await, &server.objects());
    server
        .upload_bytes(raw::noise(5_242_880, 1), &[("version", "1.0.0"), ("validate", "off")])
        .await
        .expect(201);
    server.stop().await;
}

#[sqlx::test]
async fn a_length_above_the_limit_is_refused_before_a_byte_of_the_body(pool: PgPool) {
    let server = Server::start(pool).await;
    for more in ["", "Expect: 100-continue\r\n"] {
        let mut wire = raw::Wire::open(server.app().address).await;
        wire.send(raw::upload_head(server.app().address, Some(1 << 30), more).as_bytes()).await;
        let reply = wire.reply(false).await;
        assert_eq!(reply.status, 413, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn a_body_without_length_is_cut_off_where_it_passes_the_limit(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "100000")]).await;
    let mut wire = raw::Wire::open(server.app().address).await;
    wire.send(raw::upload_head(server.app().address, None, "").as_bytes()).await;
    wire.send(&raw::chunk(&raw::form(&[], &[]).0)).await;
    // It trickles, and would never end: the answer must come by itself.
    for round in 0..11 {
        wire.send(&raw::chunk(&raw::noise(10_000, round))).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reply = wire.reply(false).await;
    assert_eq!(reply.status, 413, "{reply:?}");
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn a_client_that_writes_everything_before_it_reads_still_gets_the_answer(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "100000")]).await;
    // As Python's requests does. The answer must not be lost to a reset because bytes were still on the way: not
    // when the length says it (30 MB), not when the limit is passed in mid-stream, not when a text is wrong.
    for (size, fields, status) in [
        (30_000_000, &[("version", "1.0.0")][..], 413),
        (1_900_000, &[("version", "1.0.0")], 413),
        (90_000, &[("version", "1.0")], 422),
    ] {
        let (head, tail) = raw::form(fields, &[]);
        let bytes = raw::noise(size, 1);
        let mut wire = raw::Wire::open(server.app().address).await;
        let length = head.len() + bytes.len() + tail.len();
        wire.send(raw::upload_head(server.app().address, Some(length), "").as_bytes()).await;
        for piece in [&head[..], &bytes, &tail] {
            wire.send(piece).await;
        }
        let reply = wire.reply(false).await;
        assert_eq!(reply.status, status, "{size}");
    }
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn a_large_upload_that_passes_the_limit_leaves_no_part(pool: PgPool) {
    let limit = 2 * PART_SIZE + 1000;
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", &limit.to_string())]).await;
    let mut wire = raw::Wire::open(server.app().address).await;
    wire.send(raw::upload_head(server.app().address, None, "").as_bytes()).await;
    wire.send(&raw::chunk(&raw::form(&[("version", "1.0.0")], &[]).0)).await;
    wire.send(&raw::chunk(&raw::noise(limit, 1))).await;
    // It really was a multipart upload by now.
    wait(|| staged(&server)).await;
    wire.send(&raw::chunk(&raw::noise(2000, 2))).await;
    assert_eq!(wire.reply(false).await.status, 413);
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn sizes_around_the_parts_arrive_whole(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "20000000")]).await;
    let idle = Idle::of(&server);
    let sizes =
        [1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE, 2 * PART_SIZE + 1, 3 * PART_SIZE + 4097];
    for (minor, size) in sizes.into_iter().enumerate() {
        let bytes = raw::noise(size, size as u64);
        let version = format!("1.{minor}.0");
        let began = Instant::now();
        let release = server
            .upload_bytes(bytes.clone(), &[("version", &version), ("validate", "off")])
            .await
            .expect(201);
        let (md5, sha256) = raw::checksums(&bytes);
        let said = (release["md5"].as_str().unwrap(), release["sha256_checksum"].as_str().unwrap());
        assert_eq!(said, (&md5[..], &sha256[..]), "{size}");
        assert_eq!(release["file_size"], size);
        // One object a release: no staging object, no open multipart upload, no part.
        idle.until_idle(&server).await;
        let objects = server.objects();
        assert_eq!(objects.len(), minor + 1, "{objects:#?}");
        let object = objects.iter().find(|object| object.contains(release["id"].as_str().unwrap())).unwrap();
        assert!(std::fs::read(object).unwrap() == bytes, "{size}");
        let path = format!("/api/firmware/download/{version}");
        let download = server.request(reqwest::Method::GET, &path).send().await.unwrap();
        assert!(download.bytes().await.unwrap() == bytes, "{size}");
        println!("{size} bytes: {:?}", began.elapsed());
    }
    server.stop().await;
}
