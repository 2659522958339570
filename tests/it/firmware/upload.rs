//! What an upload says, and what it makes.

use reqwest::multipart::Form;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{file, image, upload};
use crate::support::{Server, raw::checksums};

#[sqlx::test]
async fn the_answer_has_every_documented_field_and_the_object_is_the_image(pool: PgPool) {
    let server = Server::with(pool, &[("BASE_URL", "https://ota.example.com/")]).await;
    let bytes = image(1);
    let form = Form::new()
        .part("file", file(bytes.clone()))
        .text("version", "1.5.0")
        .text("channel", "beta")
        .text("platform", "esp32-c3")
        .text("release_notes", "Fixed critical security issues")
        .text("changelog", "- Fixed CVE-2024-1234\n- Ünïcode 🖨")
        .text("mandatory", "true")
        .text("min_upgrade_version", "1.0.0")
        .text("validate", "off");
    let answer = upload(&server, form).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let mut release = answer.expect(201);
    let (md5, sha256) = checksums(&bytes);
    let id = release["id"].as_str().unwrap().to_owned();
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    let released_at = release["released_at"].as_str().unwrap().to_owned();
    assert!(released_at.ends_with('Z') && released_at.parse::<chrono::DateTime<chrono::Utc>>().is_ok());
    assert_eq!(
        release,
        json!({
            "id": id, "number": 1, "version": "1.5.0", "channel": "beta", "platform": "esp32-c3",
            "file_url": "https://ota.example.com/api/firmware/download/1.5.0?channel=beta&platform=esp32-c3",
            "file_size": bytes.len(), "md5": md5, "md5_checksum": md5, "sha256_checksum": sha256,
            "release_notes": "Fixed critical security issues", "changelog": "- Fixed CVE-2024-1234\n- Ünïcode 🖨",
            "mandatory": true, "min_upgrade_version": "1.0.0", "released_at": released_at,
            "uploaded_at": released_at, "deprecated_at": null, "download_count": 0, "success_count": 0,
            "failure_count": 0, "image": null, "validated": false, "warnings": [],
        })
    );
    // What Location names is this release, to the last field, whichever platform it is for.
    assert_eq!(server.get(&location).await.expect(200), release);
    let [object] = &server.objects()[..] else { panic!("{:#?}", server.objects()) };
    assert!(object.ends_with(&format!("/firmware/firmware/{id}/paperminder-1.5.0-beta.bin")), "{object}");
    assert_eq!(std::fs::read(object).unwrap(), bytes);
    assert_eq!(release["release_notes"].take(), "Fixed critical security issues");
    server.stop().await;
}

#[sqlx::test]
async fn what_is_not_said_has_the_documented_default(pool: PgPool) {
    let server = Server::start(pool).await;
    let release =
        server.upload_bytes(image(1), &[("version", "1.5.0"), ("release_notes", "")]).await.expect(201);
    let chosen = ["channel", "platform", "mandatory", "release_notes", "changelog", "min_upgrade_version"]
        .map(|name| release[name].clone());
    assert_eq!(
        chosen,
        [json!("stable"), json!("esp8266"), json!(false), Value::Null, Value::Null, Value::Null]
    );
    server.stop().await;
}

#[sqlx::test]
async fn the_file_may_stand_anywhere_in_the_form(pool: PgPool) {
    let server = Server::start(pool).await;
    // curl's order, that of Python's requests, and one in between.
    for (version, before) in [("1.0.0", 0), ("1.0.1", 3), ("1.0.2", 1)] {
        let bytes = image(before);
        let texts = [("version", version), ("channel", "canary"), ("platform", "esp8266")];
        let mut form = Form::new();
        for (name, text) in texts.into_iter().take(before as usize) {
            form = form.text(name, text);
        }
        form = form.part("file", file(bytes.clone()));
        for (name, text) in texts.into_iter().skip(before as usize) {
            form = form.text(name, text);
        }
        let release = upload(&server, form).await.expect(201);
        assert_eq!((&release["version"], &release["channel"]), (&json!(version), &json!("canary")));
        assert_eq!(release["md5"], checksums(&bytes).0);
    }
    server.stop().await;
}

#[sqlx::test]
async fn mandatory_is_understood_as_shells_and_python_write_it(pool: PgPool) {
    let server = Server::start(pool).await;
    for (patch, (text, mandatory)) in
        [("true", true), ("True", true), ("1", true), ("false", false), ("False", false), ("0", false)]
            .into_iter()
            .enumerate()
    {
        let version = format!("1.0.{patch}");
        let release =
            server.upload_bytes(image(1), &[("version", &version), ("mandatory", text)]).await.expect(201);
        assert_eq!(release["mandatory"], mandatory, "{text}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_version_may_stand_on_every_channel_and_platform_once(pool: PgPool) {
    let server = Server::start(pool).await;
    let triples = [
        ("stable", "esp8266"),
        ("beta", "esp8266"),
        ("canary", "esp8266"),
        ("stable", "esp32"),
        ("beta", "esp32-s3"),
    ];
    for (channel, platform) in triples {
        let fields =
            [("version", "1.5.0"), ("channel", channel), ("platform", platform), ("validate", "off")];
        server.upload_bytes(image(1), &fields).await.expect(201);
    }
    for (channel, platform) in triples {
        let fields =
            [("version", "1.5.0"), ("channel", channel), ("platform", platform), ("validate", "off")];
        let refused = server.upload_bytes(image(2), &fields).await.expect(409);
        assert_eq!(refused["type"], "/docs/problems/firmware-exists");
        assert_eq!(refused["title"], "Firmware version already exists");
    }
    assert_eq!((server.objects().len(), super::rows(&server).await), (5, 5));
    server.stop().await;
}

#[sqlx::test]
async fn a_version_with_build_metadata_keeps_its_plus_everywhere(pool: PgPool) {
    let server = Server::start(pool).await;
    let bytes = image(1);
    let release = server.upload_bytes(bytes.clone(), &[("version", "1.5.0+abc.7")]).await.expect(201);
    assert_eq!(release["version"], "1.5.0+abc.7");
    for path in ["/api/firmware/1.5.0+abc.7", "/api/firmware/1.5.0%2Babc.7"] {
        assert_eq!(server.get(path).await.expect(200), release);
    }
    let url = release["file_url"].as_str().unwrap();
    assert!(url.contains("/1.5.0%2Babc.7?"), "{url}");
    let path = url.strip_prefix("http://localhost:8000").unwrap();
    let answer = server.request(reqwest::Method::GET, path).send().await.unwrap();
    assert_eq!(
        answer.headers()["content-disposition"],
        "attachment; filename=\"paperminder-1.5.0+abc.7.bin\""
    );
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    assert_eq!(server.delete("/api/firmware/1.5.0+abc.7").await.status, 204);
    assert_eq!(server.objects(), Vec::<String>::new());
    server.stop().await;
}
