//! Direct upload: parts by presigned URLs, then judged like any other.

use paperminder_ota::ids::FirmwareId;
use paperminder_ota::simulate::image::esp8266_image;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::storage::ground::Ground;
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

/// A server on one of the two S3 servers.
struct Place {
    server: Server,
    weed: Option<Ground>,
}

const LARGER: [(&str, &str); 1] = [("MAX_FIRMWARE_SIZE", "16777216")];

impl Place {
    async fn embedded(pool: PgPool) -> Self {
        Self { server: Server::with(pool, &LARGER).await, weed: None }
    }

    async fn seaweedfs(pool: PgPool) -> Self {
        let ground = Ground::seaweedfs().await;
        Self { server: Server::on_bucket(pool, ground.settings(), &LARGER).await, weed: Some(ground) }
    }

    /// All that is there of an upload, but its release.
    async fn remains(&self, begun: &Value) -> Vec<String> {
        match &self.weed {
            Some(ground) => ground.remains(FirmwareId(begun["id"].as_str().unwrap().parse().unwrap())).await,
            None => {
                let objects = self.server.objects().into_iter();
                objects.filter(|path| !path.contains("/firmware/firmware/")).collect()
            }
        }
    }
}

macro_rules! in_both_places {
    ($($test:ident)+) => {
        mod on_the_embedded_s3 {
            $(#[sqlx::test] async fn $test(pool: sqlx::PgPool) { super::$test(super::Place::embedded(pool).await).await })+
        }
        mod on_seaweedfs {
            $(#[sqlx::test] async fn $test(pool: sqlx::PgPool) { super::$test(super::Place::seaweedfs(pool).await).await })+
        }
    };
}

in_both_places! {
    parts_become_a_release
    what_is_not_as_declared_is_refused_and_removed
    a_slip_with_the_parts_is_told_and_can_be_mended
    a_part_takes_no_more_bytes_than_were_declared
}

async fn parts_become_a_release(place: Place) {
    let server = &place.server;
    // Two parts, and a version as a rehearsal in one.
    for (size, version) in [(PART + 700_000, "1.5.0"), (20 << 10, "1.6.0")] {
        let image = esp8266_image(size, 1);
        let mut body = begin_body(&image);
        body["version"] = version.into();
        let begun = server.post("/api/firmware/uploads", &body).await.expect(201);
        assert_eq!(begun["part_size"], PART);
        let tags = put(&begun, &image).await;
        let release = complete(server, &begun, &tags).await.expect(201);
        assert_eq!((&release["version"], &release["channel"]), (&json!(version), &json!("beta")));
        assert_eq!((&release["file_size"], &release["validated"]), (&json!(image.len()), &json!(true)));
        assert_eq!(release["sha256_checksum"], body["sha256"]);
        let path = format!("/api/firmware/download/{version}?channel=beta");
        let download = reqwest::get(server.url(&path)).await.unwrap().bytes().await.unwrap();
        assert!(download == image);
        complete(server, &begun, &tags).await.expect(404);
        assert_eq!(place.remains(&begun).await, Vec::<String>::new());
    }
    assert_eq!(notes(server).await, 0);
    place.server.stop().await;
}

async fn what_is_not_as_declared_is_refused_and_removed(place: Place) {
    let server = &place.server;
    let image = esp8266_image(30_000, 1);
    let mut flipped = image.clone();
    flipped[20_000] ^= 1;
    let html = b"<!DOCTYPE html><html>Not found</html>".to_vec();
    for (declared, sent, field) in
        [(&image, &flipped, "sha256"), (&flipped, &flipped, "file"), (&html, &html, "file")]
    {
        let begun = server.post("/api/firmware/uploads", &begin_body(declared)).await.expect(201);
        let tags = put(&begun, sent).await;
        let problem = complete(server, &begun, &tags).await.expect(422);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        complete(server, &begun, &tags).await.expect(404);
        assert_eq!((super::rows(server).await, notes(server).await), (0, 0));
        assert_eq!(place.remains(&begun).await, Vec::<String>::new());
    }
    place.server.stop().await;
}

async fn a_slip_with_the_parts_is_told_and_can_be_mended(place: Place) {
    let server = &place.server;
    let image = esp8266_image(PART + 700_000, 1);
    let begun = server.post("/api/firmware/uploads", &begin_body(&image)).await.expect(201);
    let refused = async |parts: &[&str], wanted: &[&str]| {
        let parts: Vec<_> = parts.iter().map(|tag| (*tag).to_owned()).collect();
        let problem = complete(server, &begun, &parts).await.expect(422);
        let errors = problem["errors"].as_array().unwrap();
        let told: Vec<_> = errors.iter().map(|error| error["detail"].as_str().unwrap()).collect();
        assert!(
            errors.iter().all(|error| error["field"] == "parts") && told.len() == wanted.len(),
            "{problem}"
        );
        assert!(told.iter().zip(wanted).all(|(told, wanted)| told.starts_with(wanted)), "{problem}");
        // Nothing is half-done: the upload stands as it did.
        assert_eq!((super::rows(server).await, notes(server).await), (0, 1));
    };
    let none = "\"d41d8cd98f00b204e9800998ecf8427e\"";
    refused(&[none, none], &["part 1 has not arrived", "part 2 has not arrived"]).await;
    let first = json!({"part_size": PART, "urls": [begun["urls"][0]]});
    let one = put(&first, &image[..PART]).await;
    refused(&[&one[0], none], &["part 2 has not arrived"]).await;
    let tags = put(&begun, &image).await;
    let [one, two] = [tags[0].as_str(), tags[1].as_str()];
    refused(&[], &["must have the entity tags of 2 parts, these are 0"]).await;
    refused(&[one], &["must have the entity tags of 2 parts, these are 1"]).await;
    refused(&[one, two, two], &["must have the entity tags of 2 parts, these are 3"]).await;
    // The embedded S3 does not tell entity tags, so there only the file's checksum counts.
    if place.weed.is_some() {
        refused(&[two, one], &["part 1 arrived as", "part 2 arrived as"]).await;
        refused(&[one, one], &["part 2 arrived as"]).await;
        refused(&[one, none], &["part 2 arrived as"]).await;
        refused(&["", "</Part>"], &["part 1 arrived as", "part 2 arrived as"]).await;
    }
    complete(server, &begun, &[one.to_owned(), two.trim_matches('"').to_owned()]).await.expect(201);
    assert_eq!(place.remains(&begun).await, Vec::<String>::new());
    place.server.stop().await;
}

async fn a_part_takes_no_more_bytes_than_were_declared(place: Place) {
    let server = &place.server;
    let image = esp8266_image(30_000, 1);
    let begun = server.post("/api/firmware/uploads", &begin_body(&image)).await.expect(201);
    let url = begun["urls"][0].as_str().unwrap();
    for bytes in [[&image[..], &[0]].concat(), image[1..].to_vec(), Vec::new()] {
        let sent = reqwest::Client::new().put(url).body(bytes.clone()).send().await.unwrap();
        assert_eq!(sent.status(), 403, "{} bytes", bytes.len());
    }
    // Without a length, or with the URL changed so that it is not signed.
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(image.clone())]);
    let sent = reqwest::Client::new().put(url).body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
    assert!(sent.status().is_client_error(), "{sent:?}");
    let unsigned = url.replace("content-length%3B", "");
    assert_ne!(unsigned, url);
    let sent = reqwest::Client::new().put(&unsigned).body(vec![0; 40_000]).send().await.unwrap();
    assert_eq!(sent.status(), 403);
    let problem = complete(server, &begun, &["x".to_owned()]).await.expect(422);
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("has not arrived"), "{problem}");
    let tags = put(&begun, &image).await;
    complete(server, &begun, &tags).await.expect(201);
    place.server.stop().await;
}

#[sqlx::test]
async fn what_cannot_become_a_release_is_not_begun(pool: PgPool) {
    let server = Server::with(pool, &LARGER).await;
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
