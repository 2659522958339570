//! Images on their way out through the server, by clients as old and as rude as printers are.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::AsyncReadExt as _;

use super::{Idle, image, wait};
use crate::support::{SOON, Server, raw};

const PATH: &str = "/api/firmware/download/1.5.0";

/// The headers that a device sends with its request.
const DEVICE: &str = "User-Agent: ESP8266-http-Update\r\nx-ESP8266-STA-MAC: AA:BB:CC:DD:EE:FF\r\n\
    x-ESP8266-free-space: 1000000\r\nx-ESP8266-sketch-md5: 00000000000000000000000000000000\r\n\
    x-ESP8266-mode: sketch\r\nConnection: close\r\n";

async fn counted(server: &Server) -> Value {
    server.get("/api/firmware/1.5.0").await.expect(200)["download_count"].clone()
}

async fn counts(server: &Server, wanted: i64) {
    server.wait("/api/firmware/1.5.0", |release| release["download_count"] == wanted).await;
}

#[track_caller]
fn has_what_a_device_needs(reply: &raw::Reply, bytes: &[u8]) {
    let (md5, sha256) = raw::checksums(bytes);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-length"), Some(&*bytes.len().to_string()));
    assert_eq!(reply.header("x-md5"), Some(&*md5));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"paperminder-1.5.0.bin\""));
    assert_eq!(reply.header("etag"), Some(&*format!("\"{sha256}\"")));
    assert_eq!((reply.header("transfer-encoding"), reply.header("content-encoding")), (None, None));
}

#[sqlx::test]
async fn a_device_on_http_1_0_gets_a_length_a_checksum_and_no_chunks(pool: PgPool) {
    let server = Server::start(pool).await;
    let bytes = image(1);
    server.upload_bytes(bytes.clone(), &[("version", "1.5.0")]).await.expect(201);
    let reply = raw::ask(server.app().address, "GET", PATH, "HTTP/1.0", DEVICE).await;
    assert_eq!(reply.version, "HTTP/1.0");
    has_what_a_device_needs(&reply, &bytes);
    assert_eq!(reply.body, bytes);
    counts(&server, 1).await;
    // Compression was not asked for, and is not used when it is.
    let reply = raw::ask(server.app().address, "GET", PATH, "HTTP/1.0", "Accept-Encoding: gzip\r\n").await;
    has_what_a_device_needs(&reply, &bytes);
    assert_eq!(reply.body, bytes);
    server.stop().await;
}

#[sqlx::test]
async fn a_connection_is_good_for_many_downloads(pool: PgPool) {
    let server = Server::start(pool).await;
    let bytes = image(1);
    server.upload_bytes(bytes.clone(), &[("version", "1.5.0")]).await.expect(201);
    let mut wire = raw::Wire::open(server.app().address).await;
    for method in ["GET", "HEAD", "GET", "HEAD", "GET"] {
        wire.send(format!("{method} {PATH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let reply = wire.reply(method == "HEAD").await;
        has_what_a_device_needs(&reply, &bytes);
        assert_eq!(reply.body, if method == "HEAD" { &[][..] } else { &bytes });
    }
    counts(&server, 3).await;
    server.stop().await;
}

#[sqlx::test]
async fn head_tells_the_length_without_the_object_store(pool: PgPool) {
    let (server, wire) = Server::behind_wire(pool, &[]).await;
    let bytes = image(1);
    server.upload_bytes(bytes.clone(), &[("version", "1.5.0")]).await.expect(201);
    wire.cut();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let reply = raw::ask(server.app().address, "HEAD", PATH, version, "Connection: close\r\n").await;
        has_what_a_device_needs(&reply, &bytes);
    }
    assert_eq!(counted(&server).await, 0);
    wire.mend();
    server.stop().await;
}

#[sqlx::test]
async fn every_complete_download_counts_once(pool: PgPool) {
    let server = Server::start(pool).await;
    let bytes = image(1);
    server.upload_bytes(bytes.clone(), &[("version", "1.5.0")]).await.expect(201);
    let mut downloads = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let address = server.app().address;
        downloads.spawn(async move { raw::ask(address, "GET", PATH, "HTTP/1.0", DEVICE).await.body.len() });
    }
    assert!(downloads.join_all().await.iter().all(|length| *length == bytes.len()));
    counts(&server, 40).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(counted(&server).await, 40);
    server.stop().await;
}

#[sqlx::test]
async fn a_download_that_broke_off_does_not_count(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_FIRMWARE_SIZE", "40000000")]).await;
    // More than the kernel's buffers between server and client can hold.
    server
        .upload_bytes(raw::noise(32 << 20, 1), &[("version", "1.5.0"), ("validate", "off")])
        .await
        .expect(201);
    let idle = Idle::of(&server);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut wire = raw::Wire::open(server.app().address).await;
        wire.send(format!("GET {PATH} {version}\r\nHost: x\r\n\r\n").as_bytes()).await;
        let mut some = vec![0; 300_000];
        wire.0.read_exact(&mut some).await.unwrap();
        wire.vanish();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    idle.until_idle(&server).await;
    assert_eq!(counted(&server).await, 0);
    server.stop().await;
}

#[sqlx::test]
async fn what_the_client_has_already_is_not_sent_again(pool: PgPool) {
    let server = Server::start(pool).await;
    let bytes = image(1);
    server.upload_bytes(bytes.clone(), &[("version", "1.5.0")]).await.expect(201);
    let (md5, sha256) = raw::checksums(&bytes);
    // A cache asks by tag; a device tells the MD5 of what it runs and takes 304 for "nothing to do".
    for header in [format!("If-None-Match: \"{sha256}\"\r\n"), format!("x-ESP8266-sketch-md5: {md5}\r\n")] {
        let reply = raw::ask(server.app().address, "GET", PATH, "HTTP/1.0", &header).await;
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{header}");
    }
    for header in
        ["If-None-Match: \"other\"\r\n", "x-ESP8266-sketch-md5: d41d8cd98f00b204e9800998ecf8427e\r\n"]
    {
        assert_eq!(raw::ask(server.app().address, "GET", PATH, "HTTP/1.0", header).await.status, 200);
    }
    counts(&server, 2).await;
    server.stop().await;
}

#[sqlx::test]
async fn an_object_that_is_gone_is_our_fault_and_says_nothing_of_how(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    for object in server.objects() {
        std::fs::remove_file(object).unwrap();
    }
    let problem = server.get(PATH).await.expect(500);
    assert_eq!(problem["type"], "/docs/problems/internal");
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
    let text = problem.to_string();
    for internal in ["S3", "NoSuchKey", "firmware/", "object", "service error"] {
        assert!(!text.contains(internal), "{text}");
    }
    assert_eq!(counted(&server).await, 0);
    server.stop().await;
}

#[sqlx::test]
async fn an_object_of_another_length_is_not_sent(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    for object in server.objects() {
        std::fs::write(object, b"\xE9 shorter").unwrap();
    }
    assert_eq!(server.get(PATH).await.expect(500)["type"], "/docs/problems/internal");
    server.stop().await;
}

#[sqlx::test]
async fn an_object_store_that_ends_in_mid_download_ends_the_connection(pool: PgPool) {
    let (server, wire) = Server::behind_wire(pool, &[("MAX_FIRMWARE_SIZE", "40000000")]).await;
    server
        .upload_bytes(raw::noise(32 << 20, 1), &[("version", "1.5.0"), ("validate", "off")])
        .await
        .expect(201);
    let idle = Idle::of(&server);
    let mut client = raw::Wire::open(server.app().address).await;
    client.send(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let mut some = vec![0; 300_000];
    client.0.read_exact(&mut some).await.unwrap();
    wire.cut();
    // Short of what Content-Length said: the client cannot take it for whole.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, client.0.read_to_end(&mut rest)).await.unwrap();
    assert!(ended.is_err() || rest.len() + some.len() < 32 << 20);
    idle.until_idle(&server).await;
    assert_eq!(counted(&server).await, 0);
    wire.mend();
    server.stop().await;
}

#[sqlx::test]
async fn a_download_names_what_it_does_not_find(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "beta").await;
    wait(|| server.objects().len() == 1).await;
    let missing = server.get(&format!("{PATH}?channel=stable")).await.expect(404);
    assert_eq!(missing["type"], json!("/docs/problems/firmware-not-found"));
    assert_eq!(server.get("/api/firmware/download/latest").await.status, 422);
    assert_eq!(server.get(&format!("{PATH}?chanel=beta")).await.status, 422);
    assert_eq!(server.get(&format!("{PATH}?channel=beta")).await.status, 200);
    server.stop().await;
}
