//! Direct upload: parts by presigned URLs, then judged like any other.

use paperminder_ota::simulate::image::esp8266_image;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::support::{Answer, Server};

const PART: usize = 5 << 20;

fn begin_body(bytes: &[u8]) -> Value {
    json!({"version": "1.5.0", "channel": "beta", "size": bytes.len(), "sha256": hex::encode(Sha256::digest(bytes)), "release_notes": "Straight in"})
}

/// Puts every part, and returns the entity tags.
async fn put(begun: &Value, bytes: &[u8]) -> Vec<String> {
    let size = usize::try_from(begun["part_size"].as_u64().unwrap()).unwrap();
    let urls = begun["urls"].as_array().unwrap();
    assert_eq!(urls.len(), bytes.len().div_ceil(size));
    let mut tags = Vec::new();
    for (url, part) in urls.iter().zip(bytes.chunks(size)) {
        let put = reqwest::Client::new().put(url.as_str().unwrap()).body(part.to_vec()).send().await.unwrap();
        assert!(put.status().is_success(), "{put:?}");
        tags.push(put.headers()["etag"].to_str().unwrap().to_owned());
    }
    tags
}

async fn complete(server: &Server, begun: &Value, parts: &[String]) -> Answer {
    let path = format!("/api/firmware/uploads/{}/complete", begun["id"].as_str().unwrap());
    server.post(&path, &json!({ "parts": parts })).await
}

async fn notes(server: &Server) -> i64 {
    sqlx::query_scalar("select count(*) from firmware_uploads").fetch_one(&server.pool).await.unwrap()
}

async fn server(pool: PgPool) -> Server {
    Server::with(pool, &[("MAX_FIRMWARE_SIZE", "16777216")]).await
}

#[sqlx::test]
async fn parts_become_a_release(pool: PgPool) {
    let server = server(pool).await;
    // Two parts, and a version as a rehearsal in one.
    for (size, version) in [(PART + 700_000, "1.5.0"), (20 << 10, "1.6.0")] {
        let image = esp8266_image(size, 1);
        let mut body = begin_body(&image);
        body["version"] = version.into();
        let begun = server.post("/api/firmware/uploads", &body).await.expect(201);
        assert_eq!(begun["part_size"], PART);
        let tags = put(&begun, &image).await;
        // A slip in the call costs nothing.
        let slip = complete(&server, &begun, &[]).await.expect(422);
        assert_eq!(slip["errors"][0]["field"], "parts", "{slip}");
        let release = complete(&server, &begun, &tags).await.expect(201);
        assert_eq!((&release["version"], &release["channel"]), (&json!(version), &json!("beta")));
        assert_eq!((&release["file_size"], &release["validated"]), (&json!(image.len()), &json!(true)));
        assert_eq!(release["sha256_checksum"], body["sha256"]);
        let path = format!("/api/firmware/download/{version}?channel=beta");
        let download = reqwest::get(server.url(&path)).await.unwrap().bytes().await.unwrap();
        assert!(download == image);
        complete(&server, &begun, &tags).await.expect(404);
    }
    assert_eq!(notes(&server).await, 0);
    let objects = server.objects();
    assert!(
        objects.len() == 2 && objects.iter().all(|path| path.contains("/firmware/firmware/")),
        "{objects:#?}"
    );
    server.stop().await;
}

#[sqlx::test]
async fn what_is_not_as_declared_is_refused_and_removed(pool: PgPool) {
    let server = server(pool).await;
    let image = esp8266_image(30_000, 1);
    let mut flipped = image.clone();
    flipped[20_000] ^= 1;
    let html = b"<!DOCTYPE html><html>Not found</html>".to_vec();
    for (declared, sent, field) in [
        (&image, &flipped, "sha256"),
        (&image, &image[..29_000].to_vec(), "size"),
        (&flipped, &flipped, "file"),
        (&html, &html, "file"),
    ] {
        let begun = server.post("/api/firmware/uploads", &begin_body(declared)).await.expect(201);
        let tags = put(&begun, sent).await;
        let problem = complete(&server, &begun, &tags).await.expect(422);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        complete(&server, &begun, &tags).await.expect(404);
        super::nothing(super::rows(&server).await + notes(&server).await, &server.objects());
    }
    server.stop().await;
}

#[sqlx::test]
async fn what_cannot_become_a_release_is_not_begun(pool: PgPool) {
    let server = server(pool).await;
    let image = esp8266_image(30_000, 1);
    let with = |field: &str, value: Value| {
        let mut body = begin_body(&image);
        body[field] = value;
        body
    };
    for (body, status) in [
        (with("size", json!(0)), 422),
        (with("size", json!(16_777_217)), 413),
        (with("sha256", json!("")), 422),
        (with("sha256", json!("abc")), 422),
        (with("version", json!("v1")), 422),
        (with("channel", json!("nightly")), 422),
        (with("release_notes", json!("a\u{0}b")), 422),
        (with("colour", json!("red")), 422),
    ] {
        server.post("/api/firmware/uploads", &body).await.expect(status);
    }
    // One that expired cannot be completed, and its note goes.
    let begun = server.post("/api/firmware/uploads", &begin_body(&image)).await.expect(201);
    let tags = put(&begun, &image).await;
    sqlx::query("update firmware_uploads set expires_at = now() - interval '1 minute'")
        .execute(&server.pool)
        .await
        .unwrap();
    complete(&server, &begun, &tags).await.expect(404);
    server.upload_bytes(image.clone(), &[("version", "1.5.0"), ("channel", "beta")]).await.expect(201);
    server.post("/api/firmware/uploads", &begin_body(&image)).await.expect(409);
    server.stop().await;
}
