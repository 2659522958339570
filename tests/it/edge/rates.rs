//! How often REST may be asked, and whose address that counts for.

use std::time::{Duration, Instant};

use reqwest::Method;
use sqlx::PgPool;
use tempfile::NamedTempFile;

use crate::support::raw::ask;
use crate::support::{Answer, Server};

const BOOTSTRAP: &str = "a-key-of-more-than-24-characters";

async fn closed(pool: &PgPool, more: &[(&str, &str)]) -> (Server, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BOOTSTRAP).unwrap();
    let own = [("AUTH", "on"), ("BOOTSTRAP_ADMIN_KEY_FILE", file.path().to_str().unwrap())];
    (Server::with(pool.clone(), &[&own, more].concat()).await, file)
}

async fn me(server: &Server, key: Option<&str>) -> Answer {
    let request = server.request(Method::GET, "/api/me");
    server
        .send(match key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        })
        .await
}

fn is_refused(answer: &Answer, limit: &str) {
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert_eq!(answer.body["type"], "/docs/problems/too-many-requests");
    assert!(answer.body["detail"].as_str().unwrap().contains(limit), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
}

#[sqlx::test]
async fn guessing_ends_before_the_database_and_locks_nobody_out(pool: PgPool) {
    let (server, _file) = closed(&pool, &[("WRONG_KEYS_PER_ADDRESS", "4")]).await;
    me(&server, Some(BOOTSTRAP)).await.expect(200);
    let guess = |n: u32| format!("pmk_0f3a9c41d27b_{n:064x}");
    for n in 0..3 {
        me(&server, Some(&guess(n))).await.expect(401);
    }
    // Nothing in here gets a connection to the database.
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(server.app().state.pool.acquire().await.unwrap());
    }
    let started = Instant::now();
    for n in 3..200 {
        is_refused(&me(&server, Some(&guess(n))).await, "WRONG_KEYS_PER_ADDRESS");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    me(&server, Some(BOOTSTRAP)).await.expect(200);
    me(&server, None).await.expect(401);
    drop(held);
    let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("paperminder_connections_refused_total{reason=\"wrong_keys\"}"));
    server.stop().await;
}

#[sqlx::test]
async fn a_key_and_an_address_have_each_their_rate(pool: PgPool) {
    let (server, _file) = closed(&pool, &[("REQUESTS_PER_KEY", "3"), ("REQUESTS_PER_ADDRESS", "2")]).await;
    for _ in 0..4 {
        // The first is a guess.
        me(&server, Some(BOOTSTRAP)).await.expect(200);
    }
    is_refused(&me(&server, Some(BOOTSTRAP)).await, "REQUESTS_PER_KEY");
    for _ in 0..2 {
        me(&server, None).await.expect(401);
    }
    is_refused(&me(&server, None).await, "REQUESTS_PER_ADDRESS");
    let elsewhere = "X-Forwarded-For: 192.0.2.1\r\n";
    let lie = ask(server.app().address, "GET", "/api/me", "HTTP/1.1", elsewhere).await;
    assert_eq!(lie.status, 429, "nobody said that this peer is a proxy");
    server.stop().await;
}

#[sqlx::test]
async fn behind_a_proxy_each_client_has_its_own_address(pool: PgPool) {
    let settings = [
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("REQUESTS_PER_ADDRESS", "2"),
        ("DOWNLOADS_PER_ADDRESS", "2"),
        ("CONNECTS_PER_ADDRESS", "2"),
    ];
    let server = Server::with(pool, &settings).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, more, good, refused) in
        [("/api/firmware", "", 200, 429), ("/d/unknown", "", 404, 503), ("/ws/demo", upgrade, 101, 503)]
    {
        let from = async |address: &str| {
            let headers = format!("{more}X-Forwarded-For: 127.0.0.1, {address}, 127.0.0.9\r\n");
            ask(server.app().address, "GET", path, "HTTP/1.1", &headers).await.status
        };
        for _ in 0..2 {
            assert_eq!(from("192.0.2.1").await, good, "{path}");
            assert_eq!(from("192.0.2.2").await, good, "{path}");
        }
        assert_eq!(from("192.0.2.1").await, refused, "{path}");
        assert_eq!(from("192.0.2.3").await, good, "{path}");
        // Half of an IPv6 address is one customer.
        assert_eq!(from("2001:db8::1").await, good, "{path}");
        assert_eq!(from("2001:db8::2").await, good, "{path}");
        assert_eq!(from("2001:db8::3").await, refused, "{path}");
    }
    server.stop().await;
}
