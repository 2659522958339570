//! Forms that are refused: each names what is wrong, and nothing of it stays.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use sqlx::PgPool;

use super::{complaints, file, image, nothing, rows, upload, upload_raw};
use crate::support::{Server, raw};

/// A form of text fields behind a valid file.
fn with(fields: &[(&'static str, &'static str)]) -> Form {
    let form = Form::new().part("file", file(image(1)));
    fields.iter().fold(form, |form, (name, text)| form.text(*name, *text))
}

#[sqlx::test]
async fn every_bad_form_is_answered_by_the_names_of_its_faults(pool: PgPool) {
    let server = Server::start(pool).await;
    let cases: Vec<(&str, Form, &[&str])> = vec![
        ("an unknown field", with(&[("version", "1.0.0"), ("chanel", "beta")]), &["chanel"]),
        ("no version", with(&[("channel", "beta")]), &["version"]),
        ("an empty version", with(&[("version", "")]), &["version"]),
        ("no semver", with(&[("version", "1.5")]), &["version"]),
        ("a leading v", with(&[("version", "v1.5.0")]), &["version"]),
        ("a version twice", with(&[("version", "1.5.0"), ("version", "1.5.0")]), &["version"]),
        ("a channel", with(&[("version", "1.0.0"), ("channel", "nightly")]), &["channel"]),
        ("a channel in capitals", with(&[("version", "1.0.0"), ("channel", "Stable")]), &["channel"]),
        ("a platform", with(&[("version", "1.0.0"), ("platform", "esp9000")]), &["platform"]),
        ("mandatory", with(&[("version", "1.0.0"), ("mandatory", "maybe")]), &["mandatory"]),
        (
            "a lowest version",
            with(&[("version", "1.0.0"), ("min_upgrade_version", "new")]),
            &["min_upgrade_version"],
        ),
        (
            "all of it",
            with(&[("version", "x"), ("channel", "x"), ("platform", "x"), ("mandatory", "x")]),
            &["version", "channel", "platform", "mandatory"],
        ),
        ("NUL in a text", with(&[("version", "1.0.0"), ("release_notes", "a\0b")]), &["release_notes"]),
        ("no file", Form::new().text("version", "1.0.0"), &["file"]),
        ("no file and no version", Form::new().text("channel", "beta"), &["file", "version"]),
        ("an empty file", Form::new().part("file", file(Vec::new())).text("version", "1.0.0"), &["file"]),
        (
            "two files",
            Form::new().part("file", file(image(1))).part("file", file(image(2))).text("version", "1.0.0"),
            &["file"],
        ),
        (
            "text that is no UTF-8",
            with(&[("version", "1.0.0")]).part("changelog", Part::bytes(vec![0xFF, 0xFE])),
            &["changelog"],
        ),
        (
            "a text without end",
            with(&[("version", "1.0.0")]).text("changelog", "x".repeat(300 << 10)),
            &["changelog"],
        ),
    ];
    for (case, form, faults) in cases {
        let refused = upload(&server, form).await.expect(422);
        assert_eq!(complaints(&refused), faults, "{case}: {refused}");
        assert_eq!(refused["type"], "/docs/problems/validation", "{case}");
        assert!(refused["trace_id"].is_string(), "{case}");
        nothing(rows(&server).await, &server.objects());
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_text_before_the_file_is_refused_before_the_file_is_taken(pool: PgPool) {
    let server = Server::start(pool).await;
    for texts in [&[("version", "1.5")][..], &[("version", "1.5.0"), ("channel", "nightly")]] {
        let (head, _) = raw::form(texts, &[]);
        let mut wire = raw::Wire::open(server.app().address).await;
        wire.send(raw::upload_head(server.app().address, Some(4 << 20), "").as_bytes()).await;
        // The file never comes.
        wire.send(&head).await;
        let reply = wire.reply(false).await;
        assert_eq!(reply.status, 422, "{reply:?}");
        assert_eq!(complaints(&reply.json()), [texts.last().unwrap().0]);
    }
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}

#[sqlx::test]
async fn what_is_no_form_is_refused(pool: PgPool) {
    let server = Server::start(pool).await;
    let post = || server.request(Method::POST, "/api/firmware/upload");
    for (kind, request) in [
        ("no body", post()),
        ("JSON", post().json(&serde_json::json!({"version": "1.0.0"}))),
        ("a plain file", post().header("content-type", "application/octet-stream").body(image(1))),
        ("no boundary", post().header("content-type", "multipart/form-data").body(image(1))),
        ("another multipart", post().header("content-type", "multipart/mixed; boundary=b").body("--b--")),
    ] {
        let refused = server.send(request).await.expect(415);
        assert_eq!(complaints(&refused), ["Content-Type"], "{kind}: {refused}");
        assert_eq!(refused["type"], "/docs/problems/media-type");
        assert!(refused["detail"].as_str().unwrap().contains("multipart/form-data"), "{refused}");
        nothing(rows(&server).await, &server.objects());
    }
    let typed =
        |boundary: &str| post().header("content-type", format!("multipart/form-data; boundary={boundary}"));
    for (kind, body) in [
        ("no field at all", "--b--\r\n".to_owned()),
        ("another boundary", "--other\r\n\r\n--other--\r\n".to_owned()),
        ("headers without end", format!("--b\r\nContent-Disposition: {}", "x".repeat(3 << 20))),
        ("a preamble without end", "x".repeat(3 << 20)),
    ] {
        let refused = server.send(typed("b").body(body)).await;
        assert!(matches!(refused.status.as_u16(), 400 | 422), "{kind}: {refused:?}");
        nothing(rows(&server).await, &server.objects());
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_form_with_a_hundred_fields_is_refused(pool: PgPool) {
    let server = Server::start(pool).await;
    let many: Vec<(String, String)> = (0..100).map(|i| (format!("field-{i}"), "x".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let reply = upload_raw(&server, &many, &image(1)).await;
    assert_eq!(reply.status, 422);
    nothing(rows(&server).await, &server.objects());
    server.stop().await;
}
