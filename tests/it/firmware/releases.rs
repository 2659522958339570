//! What makes a release trustworthy: the image's check, declared digests, promotion, withdrawal.

use paperminder_ota::simulate::Printer;
use paperminder_ota::simulate::image::esp8266_image;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::support::{SOON, Server};

const VERSION: (&str, &str) = ("version", "1.5.0");

#[sqlx::test]
async fn a_good_image_is_described_and_a_bad_one_is_refused_with_what_was_found_where(pool: PgPool) {
    let server = Server::start(pool).await;
    let good = esp8266_image(30_000, 1);
    let mut flipped = good.clone();
    flipped[20_000] ^= 1;
    let mut esp32 = vec![0u8; 200];
    (esp32[0], esp32[1], esp32[12]) = (0xE9, 1, 0);
    for (bytes, said) in [
        (flipped, "CRC"),
        (good[..20_000].to_vec(), "file"),
        ([good.as_slice(), &[0; 7]].concat(), "file"),
        (b"\x7fELF\x01\x01\x01 and so on".to_vec(), "ELF"),
        (b"<!DOCTYPE html><html>Not found</html>".to_vec(), "HTML"),
        (b"PK\x03\x04 and so on, and on".to_vec(), "ZIP"),
        (vec![], "empty"),
        (esp32, "file"),
    ] {
        let length = bytes.len();
        let problem = server.upload_bytes(bytes, &[VERSION]).await.expect(422);
        assert_eq!(problem["errors"][0]["field"], "file", "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said) && detail.len() > 40, "{length} bytes: {detail}");
    }
    assert_eq!(server.get("/api/firmware").await.expect(200)["total"], 0);
    assert!(server.objects().is_empty(), "{:?}", server.objects());
    let firmware = server.upload_bytes(good, &[VERSION]).await.expect(201);
    assert_eq!((&firmware["validated"], &firmware["warnings"]), (&json!(true), &json!([])));
    assert_eq!(
        (&firmware["image"]["platform"], &firmware["image"]["format"]),
        (&json!("esp8266"), &json!("plain"))
    );
    assert!(firmware["image"]["crc"].as_str().unwrap().starts_with("0x"), "{firmware}");
    assert_eq!(server.get("/api/firmware/1.5.0").await.expect(200)["image"], firmware["image"]);
    server.stop().await;
}

#[sqlx::test]
async fn an_image_for_another_platform_is_refused_and_the_check_can_be_waived(pool: PgPool) {
    let server = Server::start(pool).await;
    let fields = [VERSION, ("platform", "esp32")];
    let problem = server.upload_bytes(esp8266_image(30_000, 1), &fields).await.expect(422);
    assert!(problem["detail"].as_str().unwrap().contains("esp8266"), "{problem}");
    let waived = server
        .upload_bytes(b"something of my own".to_vec(), &[VERSION, ("validate", "off")])
        .await
        .expect(201);
    assert_eq!((&waived["validated"], &waived["image"]), (&json!(false), &Value::Null));
    let problem = server.upload_bytes(vec![1], &[VERSION, ("validate", "maybe")]).await.expect(422);
    assert_eq!(problem["errors"][0]["field"], "validate");
    server.stop().await;
}

#[sqlx::test]
async fn what_arrives_must_be_what_the_client_says_it_sent(pool: PgPool) {
    let server = Server::start(pool).await;
    let image = esp8266_image(30_000, 1);
    let sha256 = hex::encode(Sha256::digest(&image));
    for (field, wrong) in
        [("md5", "0".repeat(32)), ("sha256", "0".repeat(64)), ("md5", "xyz".into()), ("sha256", "12".into())]
    {
        let problem =
            server.upload_bytes(image.clone(), &[VERSION, (field, wrong.as_str())]).await.expect(422);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    let with_header = async |digest: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("content-digest", HeaderValue::from_str(digest).unwrap());
        let part = Part::bytes(image.clone()).file_name("f.bin").headers(headers);
        let form = Form::new().part("file", part).text("version", "1.5.0");
        server.send(server.request(Method::POST, "/api/firmware/upload").multipart(form)).await
    };
    let wrong = with_header("sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:").await.expect(422);
    assert_eq!(wrong["errors"][0]["field"], "Content-Digest");
    with_header("sha-256=:nonsense:").await.expect(422);
    assert!(server.objects().is_empty());
    let upper = sha256.to_uppercase();
    server.upload_bytes(image.clone(), &[VERSION, ("sha256", &upper)]).await.expect(201);
    server.stop().await;
}

#[sqlx::test]
async fn a_promoted_release_has_the_same_bytes_under_a_key_of_its_own(pool: PgPool) {
    let server = Server::start(pool).await;
    let canary = server.release("1.5.0", "canary").await;
    let promote = async |body: Value| server.post("/api/firmware/1.5.0/promote", &body).await;
    let beta = promote(json!({"to": "beta"})).await.expect(201);
    assert_eq!(
        (&beta["channel"], &beta["md5"], &beta["image"]),
        (&json!("beta"), &canary["md5"], &canary["image"])
    );
    assert_ne!(beta["id"], canary["id"]);
    assert_eq!(server.objects().len(), 2);
    let download = reqwest::get(server.url("/api/firmware/download/1.5.0?channel=beta")).await.unwrap();
    assert_eq!(download.bytes().await.unwrap().len() as u64, canary["file_size"].as_u64().unwrap());
    assert_eq!(promote(json!({"to": "beta"})).await.expect(409)["type"], "/docs/problems/firmware-exists");
    let several = promote(json!({"to": "stable"})).await.expect(409);
    assert!(several["detail"].as_str().unwrap().contains("beta, canary"), "{several}");
    assert_eq!(promote(json!({"from": "beta", "to": "stable"})).await.expect(201)["channel"], "stable");
    promote(json!({"from": "beta", "to": "beta"})).await.expect(422);
    promote(json!({"from": "beta", "to": "nightly"})).await.expect(422);
    server.post("/api/firmware/9.9.9/promote", &json!({"to": "beta"})).await.expect(404);
    assert_eq!(server.objects().len(), 3, "a refusal leaves nothing behind");
    server.stop().await;
}

#[sqlx::test]
async fn a_withdrawn_release_is_offered_to_nobody_until_it_is_restored(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.4.0", "stable").await;
    server.release("1.5.0", "stable").await;
    let path = "/api/firmware/1.5.0?channel=stable";
    let withdrawn = server.patch(path, &json!({"deprecated": true})).await.expect(200);
    assert!(withdrawn["deprecated_at"].is_string());
    assert_eq!(server.get("/api/firmware/latest").await.expect(200)["version"], "1.4.0");
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"});
    let refused = server.post("/api/rollouts", &wanted).await.expect(404);
    assert!(refused["detail"].as_str().unwrap().contains("deprecated"), "{refused}");
    server.patch(path, &json!({"deprecated": false})).await.expect(200);
    server.rollout(wanted).await;
    server.patch(path, &json!({"deprecated": true})).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    assert!(printer.next_offer(std::time::Duration::from_millis(500)).await.is_err(), "it was withdrawn");
    let excluded = server.get("/api/rollouts/1").await.expect(200);
    assert_eq!(
        (&excluded["total_targets"], &excluded["excluded"]),
        (&json!(0), &json!({"no_release_for_platform": 1}))
    );
    server.patch(path, &json!({"deprecated": false})).await.expect(200);
    printer.next_offer(SOON).await.unwrap();
    server.stop().await;
}

#[sqlx::test]
async fn notes_and_rules_change_and_whoever_decided_on_old_ones_is_told_so(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let path = "/api/firmware/1.5.0";
    let tag = server.get(path).await.headers["etag"].clone();
    let wanted =
        json!({"release_notes": "New", "changelog": null, "mandatory": true, "min_upgrade_version": "1.0.0"});
    let patch = async |tag: &HeaderValue| {
        server.send(server.request(Method::PATCH, path).header("if-match", tag).json(&wanted)).await
    };
    let changed = patch(&tag).await.expect(200);
    assert_eq!(
        (&changed["release_notes"], &changed["mandatory"], &changed["min_upgrade_version"]),
        (&json!("New"), &json!(true), &json!("1.0.0"))
    );
    assert_eq!(patch(&tag).await.expect(412)["type"], "/docs/problems/precondition-failed");
    assert_eq!(
        server.patch(path, &json!({"min_upgrade_version": null})).await.expect(200)["min_upgrade_version"],
        Value::Null
    );
    for body in [
        json!({}),
        json!({"md5": "x"}),
        json!({"mandatory": "yes"}),
        json!({"min_upgrade_version": "1"}),
        json!({"release_notes": "\0"}),
    ] {
        server.patch(path, &body).await.expect(422);
    }
    server.patch("/api/firmware/9.9.9", &json!({"mandatory": true})).await.expect(404);
    server.stop().await;
}
