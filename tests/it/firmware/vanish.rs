//! Clients that vanish, clients that race, and a server that ends.

use std::time::Duration;

use paperminder_ota::storage::PART_SIZE;
use serde_json::json;
use sqlx::PgPool;

use super::{Idle, image, nothing, rows, wait};
use crate::support::{Server, raw};

/// Begins an upload of `announced` bytes and sends `sent` of them.
async fn begin(server: &Server, announced: Option<usize>, sent: usize) -> raw::Wire {
    let mut wire = raw::Wire::open(server.app().address).await;
    wire.send(raw::upload_head(server.app().address, announced, "").as_bytes()).await;
    let (head, _) = raw::form(&[("version", "1.5.0")], &[]);
    for piece in [head, raw::noise(sent, 7)] {
        wire.send(&if announced.is_some() { piece } else { raw::chunk(&piece) }).await;
    }
    wire
}

#[sqlx::test]
async fn a_client_that_vanishes_in_a_small_upload_leaves_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    let idle = Idle::of(&server);
    for announced in [Some(1 << 20), None] {
        for politely in [false, true] {
            let wire = begin(&server, announced, 300_000).await;
            idle.until_busy(&server).await;
            if politely {
                drop(wire)
            } else {
                wire.vanish()
            }
            idle.until_idle(&server).await;
            nothing(rows(&server).await, &server.objects());
        }
    }
    // The version is free.
    server.release("1.5.0", "stable").await;
    server.stop().await;
}

#[sqlx::test]
async fn a_client_that_vanishes_in_a_large_upload_leaves_no_part(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "100000000")]).await;
    let idle = Idle::of(&server);
    for announced in [Some(50 << 20), None] {
        let wire = begin(&server, announced, 2 * PART_SIZE + 100_000).await;
        // Two parts are in the bucket.
        let part = |number: u8| move |object: &String| object.ends_with(&format!(".part-{number}"));
        wait(|| server.objects().iter().any(part(2))).await;
        assert!(server.objects().iter().any(part(1)));
        wire.vanish();
        idle.until_idle(&server).await;
        nothing(rows(&server).await, &server.objects());
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_form_that_ends_before_its_last_boundary_is_no_release(pool: PgPool) {
    let server = Server::start(pool).await;
    // A proxy between may end the body properly when its own client vanished: only the boundary tells.
    let mut wire = begin(&server, None, 300_000).await;
    wire.send(b"0\r\n\r\n").await;
    let reply = wire.reply(false).await;
    assert_eq!((reply.status, &reply.json()["type"]), (400, &json!("/docs/problems/upload-interrupted")));
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn of_uploads_that_race_exactly_one_wins_and_the_losers_bytes_are_gone(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "20000000")]).await;
    for (version, size) in [("1.0.0", 12 << 10), ("2.0.0", PART_SIZE + 5)] {
        // Everyone has sent all but the last byte of the form before anyone sends it, so nobody is early enough to
        // be refused by the row of another.
        let mut wires = Vec::new();
        for runner in 0..4 {
            let (head, tail) = raw::form(&[], &[("version", version), ("validate", "off")]);
            let bytes = raw::noise(size, runner);
            let mut wire = raw::Wire::open(server.app().address).await;
            let whole = [&head[..], &bytes, &tail].concat();
            wire.send(raw::upload_head(server.app().address, Some(whole.len()), "").as_bytes()).await;
            wire.send(&whole[..whole.len() - 20]).await;
            wires.push((wire, whole[whole.len() - 20..].to_vec(), bytes));
        }
        let mut finishes = tokio::task::JoinSet::new();
        for (mut wire, end, bytes) in wires {
            finishes.spawn(async move {
                wire.send(&end).await;
                (wire.reply(false).await, bytes)
            });
        }
        let replies = finishes.join_all().await;
        let mut statuses: Vec<_> = replies.iter().map(|(reply, _)| reply.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409]);
        let (winner, bytes) = replies.iter().find(|(reply, _)| reply.status == 201).unwrap();
        let stands = server.get(&format!("/api/firmware/{version}")).await.expect(200);
        assert_eq!(stands, winner.json());
        assert_eq!(stands["md5"], raw::checksums(bytes).0);
    }
    assert_eq!((rows(&server).await, server.objects().len()), (2, 2), "{:#?}", server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn uploads_beyond_the_buffers_wait_their_turn(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_CONCURRENT_UPLOADS", "2")]).await;
    let idle = Idle::of(&server);
    let slow = [begin(&server, Some(1 << 20), 1000).await, begin(&server, Some(1 << 20), 1000).await];
    idle.until_busy(&server).await;
    wait(|| server.app().state.shutdown.tasks.len() == idle.0 + 2).await;
    let mut third = Box::pin(server.upload_bytes(image(1), &[("version", "3.0.0")]));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(early.is_err(), "{early:?}");
    drop(slow);
    third.await.expect(201);
    server.stop().await;
}

#[sqlx::test]
async fn an_upload_that_takes_too_long_is_cut_off_and_one_that_waits_too_long_is_told_to_come_back(
    pool: PgPool,
) {
    let server =
        Server::with(pool, &[("MAX_CONCURRENT_UPLOADS", "1"), ("UPLOAD_TIMEOUT_SECONDS", "24")]).await;
    let idle = Idle::of(&server);
    let mut slow = begin(&server, Some(1 << 20), 1000).await;
    idle.until_busy(&server).await;
    let full = server.upload_bytes(image(1), &[("version", "3.0.0")]).await;
    assert_eq!(
        (full.status.as_u16(), full.headers.contains_key("retry-after")),
        (503, true),
        "{}",
        full.body
    );
    assert_eq!(full.body["type"], "/docs/problems/uploads-full");
    let cut = slow.reply(false).await;
    assert_eq!((cut.status, &cut.json()["type"]), (400, &"/docs/problems/upload-interrupted".into()));
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn a_server_that_ends_finishes_what_it_began_and_begins_nothing(pool: PgPool) {
    let server = Server::start(pool).await;
    let idle = Idle::of(&server);
    let (head, tail) = raw::form(&[], &[("version", "1.5.0")]);
    let whole = [&head[..], &image(1), &tail].concat();
    let mut wire = raw::Wire::open(server.app().address).await;
    wire.send(raw::upload_head(server.app().address, Some(whole.len()), "").as_bytes()).await;
    wire.send(&whole[..5000]).await;
    idle.until_busy(&server).await;
    server.app().state.shutdown.soft.cancel();
    let refused = server.upload_bytes(image(2), &[("version", "2.0.0")]).await;
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.expect(503)["type"], "/docs/problems/shutting-down");
    wire.send(&whole[5000..]).await;
    assert_eq!(wire.reply(false).await.status, 201);
    assert_eq!((rows(&server).await, server.objects().len()), (1, 1));
    server.stop().await;
}

#[sqlx::test]
async fn a_server_that_must_end_gives_up_uploads_and_leaves_nothing_of_them(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "100000000")]).await;
    let mut wire = begin(&server, Some(50 << 20), PART_SIZE + 100_000).await;
    wait(|| server.objects().iter().any(|object| object.ends_with(".part-1"))).await;
    server.app().state.shutdown.hard.cancel();
    let reply = wire.reply(false).await;
    assert_eq!((reply.status, &reply.json()["type"]), (503, &json!("/docs/problems/shutting-down")));
    nothing(rows(&server).await, &server.objects());
    // Who was answered and stays keeps the server from ending for a while, and not from ending well.
    server.stop().await;
    drop(wire);
}
