//! Updates through a CDN, end to end: nginx caches what it reads without a key from a bucket on SeaweedFS.

use std::io::Write as _;

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use paperminder_ota::config::Storage;
use paperminder_ota::simulate::{Fleet, FleetOptions, Printer};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::storage::ground::Ground;
use crate::support::nginx::{Nginx, Served};
use crate::support::weed::PUBLIC_BUCKET;
use crate::support::{SOON, Server};

const PRINTERS: u64 = 6;

/// A CDN, and the settings of the bucket behind it.
async fn cdn() -> (Nginx, Storage) {
    let ground = Ground::seaweedfs().await;
    // It is there already when another test was faster.
    let _ = ground.client.create_bucket().bucket(PUBLIC_BUCKET).send().await;
    let nginx = Nginx::before(&format!("{}/{PUBLIC_BUCKET}", ground.endpoint)).await;
    (nginx, Storage { bucket: PUBLIC_BUCKET.into(), ..ground.settings() })
}

/// Releases a version and lets polite printers update to it; the release as it is afterwards.
async fn update_all(server: &Server, version: &str) -> Value {
    server.release(version, "stable").await;
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| server.printer(index))).unwrap();
    fleet.wait_until(SOON, |fleet| fleet.subscribes >= PRINTERS).await.unwrap();
    let wanted = json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "immediate"});
    let path = format!("/api/rollouts/{}", server.rollout(wanted).await["number"]);
    let rollout = server.wait(&path, |rollout| rollout["confirmed_count"] == PRINTERS).await;
    assert_eq!((&rollout["status"], &rollout["failed_count"]), (&json!("completed"), &json!(0)), "{rollout}");
    let fleet = fleet.stop().await;
    assert_eq!((fleet.downloads_ok, fleet.md5_mismatches, fleet.double_offers), (PRINTERS, 0, 0));
    let release = server
        .wait(&format!("/api/firmware/{version}"), |release| release["success_count"] == PRINTERS)
        .await;
    assert_eq!(fleet.bytes, PRINTERS * release["file_size"].as_u64().unwrap());
    let update = server.get("/api/printers/1/updates").await.expect(200)["updates"][0].clone();
    assert_eq!(update["status"], "completed", "{update}");
    release
}

/// What the printers downloaded through the CDN: the bucket was asked once.
fn hits_but_one(nginx: &Nginx, release: &Value) -> Vec<Served> {
    let served = nginx.served();
    assert_eq!(served.len() as u64, PRINTERS, "{served:#?}");
    for download in &served {
        assert_eq!(
            (download.status, json!(download.bytes)),
            (200, release["file_size"].clone()),
            "{download:?}"
        );
    }
    let asked = served.iter().filter(|download| download.cache != "HIT").count();
    assert_eq!(asked, 1, "{served:#?}");
    served
}

#[sqlx::test]
async fn polite_printers_update_through_a_cdn_that_asks_the_bucket_once(pool: PgPool) {
    let (nginx, storage) = cdn().await;
    let settings = [("DELIVERY", "cdn"), ("CDN_BASE_URL", nginx.url.as_str())];
    let server = Server::on_bucket(pool, storage.clone(), &settings).await;
    // A build number, because a `+` is what proxies and buckets disagree about.
    let release = update_all(&server, "1.5.0+b.7").await;
    hits_but_one(&nginx, &release);

    let url = release["file_url"].as_str().unwrap();
    let reply = nginx.fetch(url).await;
    let header = |name| reply.header(name).unwrap_or_default().to_owned();
    assert_eq!((reply.status, header("x-cache-status")), (200, "HIT".into()), "{:?}", reply.headers);
    assert_eq!(header("content-length"), release["file_size"].to_string());
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!((reply.header("transfer-encoding"), reply.header("content-encoding")), (None, None));
    assert_eq!(hex::encode(<md5::Md5 as md5::Digest>::digest(&reply.body)), release["md5"].as_str().unwrap());

    // What is not there is not kept, and nobody reads the other buckets without a key.
    let absent = url.replace("paperminder-", "paperminder-9");
    for _ in 0..2 {
        let reply = nginx.fetch(&absent).await;
        assert_eq!((reply.status, reply.header("x-cache-status")), (404, Some("MISS")));
    }
    let private = storage.endpoint.unwrap().join("firmware/anything").unwrap();
    assert_eq!(reqwest::get(private).await.unwrap().status(), 403);
    server.stop().await;
}

#[sqlx::test]
async fn polite_printers_update_through_presigned_urls_of_seaweedfs(pool: PgPool) {
    let (nginx, storage) = cdn().await;
    let server = Server::on_bucket(pool, storage.clone(), &[]).await;
    update_all(&server, "1.5.0").await;
    assert!(nginx.served().is_empty());
    server.stop().await;
}

#[sqlx::test]
async fn signed_urls_of_a_cdn_differ_and_share_what_is_cached(pool: PgPool) {
    let (nginx, storage) = cdn().await;
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(private_key().as_bytes()).unwrap();
    let settings = [
        ("DELIVERY", "cdn"),
        ("CDN_BASE_URL", nginx.url.as_str()),
        ("CDN_KEY_PAIR_ID", "K2JCJMDEHXQW5F"),
        ("CDN_PRIVATE_KEY_FILE", key.path().to_str().unwrap()),
    ];
    let server = Server::on_bucket(pool.clone(), storage.clone(), &settings).await;
    let release = update_all(&server, "1.5.0").await;
    for download in hits_but_one(&nginx, &release) {
        assert!(download.uri.contains("?Expires=") && download.uri.ends_with("&Hash-Algorithm=SHA256"));
    }
    // Another replica signs for itself, and the CDN has what it points at.
    let other = Server::on_bucket(pool, storage, &settings).await;
    let mut printer = Printer::online(other.printer(99)).await.unwrap();
    let offer = printer.next_offer(SOON).await.unwrap();
    assert!(offer.url.starts_with(&nginx.url) && offer.url.len() < 310, "{}", offer.url);
    assert_ne!(offer.url.strip_prefix(&nginx.url), Some(nginx.served()[0].uri.as_str()));
    let reply = nginx.fetch(&offer.url).await;
    assert_eq!((reply.status, reply.header("x-cache-status")), (200, Some("HIT")));
    drop(printer);
    other.stop().await;
    server.stop().await;
}

/// As `openssl ecparam -name prime256v1 -genkey -noout` makes them.
fn private_key() -> String {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n")
}
