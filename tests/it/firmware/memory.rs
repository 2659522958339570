//! Uploads through the real process: its memory is a part, however large the file; and its sudden end is no release.

use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use md5::{Digest as _, Md5};
use paperminder_ota::dev::EmbeddedS3;
use reqwest::multipart::{Form, Part};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;

use super::wait;
use crate::support::process::{ServeProcess, server_url};
use crate::support::{embedded_s3, objects_in, raw};

const MIB: usize = 1 << 20;
/// Above what the process held before: parts, the SDK's and the parser's buffers, and what an allocator wastes.
const MOST_KIB: u64 = 28 << 10;

/// A file of noise that exists only while it is sent.
fn generated(mebibytes: usize) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::iter(0..mebibytes).map(|index| Ok(raw::noise(MIB, 1 + index as u64).into()))
}

/// MD5 of such a file.
fn md5(mebibytes: usize) -> String {
    let mut md5 = Md5::new();
    for index in 0..mebibytes {
        md5.update(raw::noise(MIB, 1 + index as u64));
    }
    hex::encode(md5.finalize())
}

async fn upload(server: &ServeProcess, version: &str, mebibytes: usize) -> Value {
    let body = reqwest::Body::wrap_stream(generated(mebibytes));
    let file = Part::stream_with_length(body, (mebibytes * MIB) as u64).file_name("firmware.bin");
    let form = Form::new().part("file", file).text("version", version.to_owned()).text("validate", "off");
    let request = reqwest::Client::new().post(server.url("/api/firmware/upload")).multipart(form);
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 201, "{text}\n{}", server.log());
    serde_json::from_str(&text).unwrap()
}

async fn start(pool: &PgPool, s3: &EmbeddedS3) -> ServeProcess {
    ServeProcess::start(&[
        ("DATABASE_URL", &server_url(pool).await),
        ("AWS_ENDPOINT_URL_S3", &s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret()),
        ("AWS_REGION", "us-east-1"),
        ("MAX_FIRMWARE_SIZE", "500000000"),
        // How many heaps there are depends on which threads met, and each keeps what it had once.
        ("MALLOC_ARENA_MAX", "2"),
    ])
    .await
}

#[sqlx::test]
async fn a_large_upload_passes_through_in_the_memory_of_a_part(pool: PgPool) {
    let (s3, folder) = embedded_s3().await;
    let server = start(&pool, &s3).await;
    let started = server.peak_memory();
    upload(&server, "1.0.0", 20).await;
    let before = server.peak_memory();
    let began = Instant::now();
    let release = upload(&server, "2.0.0", 200).await;
    let took = began.elapsed();
    let after = server.peak_memory();
    println!(
        "peak memory: {started} KiB started, {before} KiB after 20 MiB, {after} KiB after 200 MiB (+{} KiB) in {took:?}",
        after - before
    );
    assert_eq!(release["md5"], md5(200));
    assert!(after - before <= MOST_KIB, "200 MiB took {} KiB more than 20 MiB", after - before);
    assert_eq!(objects_in(&folder).len(), 2, "{:#?}", objects_in(&folder));

    // Half of it, and the client is gone.
    let (head, _) = raw::form(&[], &[("version", "3.0.0")]);
    let mut wire = raw::Wire::open(server.address).await;
    wire.send(raw::upload_head(server.address, Some(200 * MIB), "").as_bytes()).await;
    wire.send(&head).await;
    let mut half = std::pin::pin!(generated(100));
    while let Some(bytes) = half.next().await {
        wire.send(&bytes.unwrap()).await;
    }
    wait(|| objects_in(&folder).len() > 10).await;
    wire.vanish();
    wait(|| objects_in(&folder).len() <= 2).await;
    let rows: i64 =
        sqlx::query_scalar("select count(*) from firmware_versions").fetch_one(&pool).await.unwrap();
    assert_eq!((rows, objects_in(&folder).len()), (2, 2), "{:#?}", objects_in(&folder));
    let end = server.peak_memory();
    println!("peak memory: {end} KiB after 100 MiB of which the client vanished");
    let metrics =
        reqwest::get(format!("http://{}/metrics", server.internal)).await.unwrap().text().await.unwrap();
    for (outcome, uploads) in [("released", 2), ("refused", 1)] {
        let line = format!("paperminder_firmware_uploads_total{{outcome=\"{outcome}\"}} {uploads}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    assert!(server.terminate().await.success());
    s3.stop().await;
}

/// Begins, fills and completes a direct upload.
async fn upload_directly(server: &ServeProcess, version: &str, mebibytes: usize) -> Value {
    let (mut sha256, mut bytes) = (Sha256::new(), std::pin::pin!(generated(mebibytes)));
    while let Some(chunk) = bytes.next().await {
        sha256.update(chunk.unwrap());
    }
    let client = reqwest::Client::new();
    let post = async |path: &str, body: Value| {
        let answer = client.post(server.url(path)).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 201, "{text}\n{}", server.log());
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let sha256 = hex::encode(sha256.finalize());
    let begin = json!({"version": version, "validate": "off", "size": mebibytes * MIB, "sha256": sha256});
    let begun = post("/api/firmware/uploads", begin).await;
    let (part, mut tags) = (usize::try_from(begun["part_size"].as_u64().unwrap()).unwrap() / MIB, Vec::new());
    let mut chunks = std::pin::pin!(generated(mebibytes).chunks(part));
    for url in begun["urls"].as_array().unwrap() {
        let chunk: Vec<_> = chunks.next().await.unwrap().into_iter().flat_map(Result::unwrap).collect();
        let put = client.put(url.as_str().unwrap()).body(chunk).send().await.unwrap();
        tags.push(put.error_for_status().unwrap().headers()["etag"].to_str().unwrap().to_owned());
    }
    let path = format!("/api/firmware/uploads/{}/complete", begun["id"].as_str().unwrap());
    post(&path, json!({"parts": tags})).await
}

#[sqlx::test]
async fn a_large_direct_upload_is_read_back_in_the_memory_of_a_part(pool: PgPool) {
    let (s3, folder) = embedded_s3().await;
    let server = start(&pool, &s3).await;
    upload_directly(&server, "1.0.0", 20).await;
    let before = server.peak_memory();
    let began = Instant::now();
    let release = upload_directly(&server, "2.0.0", 200).await;
    let (took, after) = (began.elapsed(), server.peak_memory());
    println!(
        "peak memory: {before} KiB after 20 MiB directly, {after} KiB after 200 MiB (+{} KiB) in {took:?}",
        after - before
    );
    assert_eq!(release["md5"], md5(200));
    assert!(after - before <= MOST_KIB, "200 MiB took {} KiB more than 20 MiB", after - before);
    assert_eq!(objects_in(&folder).len(), 2, "{:#?}", objects_in(&folder));
    assert!(server.terminate().await.success());
    s3.stop().await;
}

#[sqlx::test]
async fn a_process_that_is_killed_in_mid_upload_leaves_no_release(pool: PgPool) {
    let (s3, folder) = embedded_s3().await;
    let server = start(&pool, &s3).await;
    let mut wire = raw::Wire::open(server.address).await;
    wire.send(raw::upload_head(server.address, Some(20 * MIB), "").as_bytes()).await;
    wire.send(&raw::form(&[("version", "1.0.0")], &[]).0).await;
    wire.send(&raw::noise(11 * MIB, 1)).await;
    wait(|| objects_in(&folder).iter().any(|path| path.ends_with(".part-2"))).await;
    server.kill().await;
    let server = start(&pool, &s3).await;
    let list: Value = reqwest::get(server.url("/api/firmware")).await.unwrap().json().await.unwrap();
    assert_eq!(list["total"], 0);
    // Nothing is in the way of the next try.
    assert_eq!(upload(&server, "1.0.0", 6).await["md5"], md5(6));
    assert!(server.terminate().await.success());
    s3.stop().await;
}
