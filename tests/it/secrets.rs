//! A secret stands in no log, no error and no metric, whatever `RUST_LOG` says.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use paperminder_ota::simulate::{Mode, Printer, PrinterOptions, image::esp8266_image};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use url::Url;

use crate::support::process::{Leash, database_url, signal};
use crate::support::{SOON, embedded_s3};

const PASSWORD: &str = "swordfish-of-the-database";
const BOOTSTRAP: &str = "bootstrap-key-of-more-than-24-characters";
const WRONG: &str = "wrong-key-of-somebody";
const PRINTERS: &str = "api-key-of-a-printer";
const COOKIE: &str = "session-of-a-browser";

/// The server's name for what it says at its start.
fn serve(folder: &TempDir, output: &str, settings: &[(&str, &str)]) -> std::process::Child {
    let file = std::fs::File::create(folder.path().join(output)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_paperminder-ota"))
        .arg("serve")
        .env_clear()
        .envs([
            ("LISTEN_ADDR", "127.0.0.1:0"),
            ("INTERNAL_ADDR", "127.0.0.1:0"),
            ("DRAIN_SECONDS", "0"),
            ("LOG_FORMAT", "json"),
        ])
        .envs([("RUST_LOG", "trace"), ("AUTH", "on"), ("AWS_REGION", "us-east-1")])
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap()
}

fn said(folder: &TempDir, output: &str) -> String {
    std::fs::read_to_string(folder.path().join(output)).unwrap()
}

async fn json_of(request: RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    let (found, text) = (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or_default()
}

fn end(mut child: std::process::Child) {
    signal(child.id(), "TERM");
    let deadline = Instant::now() + SOON;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the server does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[sqlx::test]
async fn a_story_with_every_secret_leaves_none_in_the_output(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (s3, _s3_folder) = embedded_s3().await;
    let mut database = Url::parse(&database_url(&pool)).unwrap();
    database.set_password(Some(PASSWORD)).unwrap();
    let (database, key) = (file("database", database.as_str()), file("key", BOOTSTRAP));
    let s3_secret = s3.secret_key().expose_secret().to_owned();
    let endpoint = s3.endpoint();
    let common = [
        ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", &s3_secret),
        ("BOOTSTRAP_ADMIN_KEY_FILE", &key),
    ];

    // Starts that fail.
    let unreachable = format!("postgres://paperminder:{PASSWORD}@127.0.0.1:1/paperminder");
    let senseless = format!("mysql://paperminder:{PASSWORD}@127.0.0.1/paperminder");
    let twisted = format!("postgres://paperminder:{PASSWORD}@[::1/paperminder?sslmode=perhaps");
    for (output, url) in [("unreachable", &unreachable), ("senseless", &senseless), ("twisted", &twisted)] {
        let settings = [&common[..], &[("DATABASE_URL", url.as_str())]].concat();
        let mut child = serve(&folder, output, &settings);
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(
            !status.success() && said(&folder, output).contains("DATABASE_URL"),
            "{}",
            said(&folder, output)
        );
    }

    // One that works.
    let settings = [&common[..], &[("DATABASE_URL_FILE", database.as_str())]].concat();
    let child = serve(&folder, "story", &settings);
    let _leash = Leash::on(child.id(), None);
    let deadline = Instant::now() + SOON;
    let (address, internal) = loop {
        let line =
            said(&folder, "story").lines().find(|line| line.contains("\"serving\"")).map(str::to_owned);
        if let Some(line) = line {
            let line: Value = serde_json::from_str(&line).unwrap();
            break (
                line["address"].as_str().unwrap().to_owned(),
                line["internal"].as_str().unwrap().to_owned(),
            );
        }
        assert!(Instant::now() < deadline, "{}", said(&folder, "story"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let url = |path: &str| format!("http://{address}{path}");
    let client = Client::new();
    let wanted = json!({"name": "of the story", "role": "admin"});
    let made = json_of(client.post(url("/api/keys")).bearer_auth(BOOTSTRAP).json(&wanted), 201).await;
    let key = made["key"].as_str().unwrap().to_owned();
    let rotate = format!("/api/keys/{}/rotate", made["id"].as_str().unwrap());
    let rotated = json_of(client.post(url(&rotate)).bearer_auth(&key).json(&json!({})), 200).await;
    let rotated = rotated["key"].as_str().unwrap().to_owned();
    for wrong in [WRONG, &format!("{key}0"), &key.replace("pmk_", "pmk_f")] {
        json_of(client.get(url("/api/me")).header("x-api-key", wrong), 401).await;
        json_of(client.get(url(&format!("/api/me?key={wrong}"))), 401).await;
        json_of(client.get(url(&format!("/{wrong}"))), 404).await;
        json_of(client.get(url("/api/me")).basic_auth("admin", Some(wrong)), 401).await;
    }
    json_of(client.get(url("/api/me")).bearer_auth(&key).header("cookie", format!("s={COOKIE}")), 200).await;

    // A key's row is believed for a second, and so is the secret before the rotation.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let form = Form::new().part("file", Part::bytes(esp8266_image(20 << 10, 1)).file_name("f.bin"));
    let form = form.text("version", "1.5.0").text("channel", "stable");
    json_of(client.post(url("/api/firmware/upload")).bearer_auth(&rotated).multipart(form), 201).await;
    let direct = json!({"version": "1.6.0", "size": 1000, "sha256": "0".repeat(64)});
    let begun = json_of(client.post(url("/api/firmware/uploads")).bearer_auth(&key).json(&direct), 201).await;
    let direct_url = Url::parse(begun["urls"][0].as_str().unwrap()).unwrap();
    let all = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"});
    json_of(client.post(url("/api/rollouts")).bearer_auth(&key).json(&all), 201).await;

    let mut secrets = vec![
        PASSWORD.to_owned(),
        BOOTSTRAP.to_owned(),
        WRONG.to_owned(),
        PRINTERS.to_owned(),
        COOKIE.to_owned(),
        s3_secret.clone(),
        key[17..].to_owned(),
        rotated[17..].to_owned(),
        signature(&direct_url),
    ];
    // A presigned URL, and a link for a printer that cannot take one so long.
    for (index, most) in [(1, None), (2, Some(100))] {
        let options =
            PrinterOptions { mode: Mode::Device, ..PrinterOptions::new(&format!("ws://{address}"), index) };
        let mut printer = Printer::connect(options).await.unwrap();
        let mut hello =
            json!({"printer_id": format!("p-{index}"), "api_key": PRINTERS, "firmware_version": "1.0.0"});
        if let Some(most) = most {
            hello["max_url_length"] = json!(most);
        }
        printer.send_json(&hello).await.unwrap();
        printer.send_raw(format!("{{\"api_key\": \"{PRINTERS}\"")).await.unwrap();
        let offer = loop {
            let message = printer.next_message(SOON).await.unwrap();
            if message["kind"] == "firmware_update" {
                break Url::parse(message["url"].as_str().unwrap()).unwrap();
            }
        };
        secrets.push(match most {
            None => signature(&offer),
            Some(_) => offer.path_segments().unwrap().next_back().unwrap().to_owned(),
        });
        let path = offer[url::Position::BeforePath..].to_owned();
        let from = if most.is_some() { url(&path) } else { offer.to_string() };
        assert_eq!(client.get(from).send().await.unwrap().status(), StatusCode::OK);
        printer.close().await.unwrap();
    }
    let metrics =
        client.get(format!("http://{internal}/metrics")).send().await.unwrap().text().await.unwrap();
    end(child);

    let output =
        ["unreachable", "senseless", "twisted", "story"].map(|name| said(&folder, name)).concat() + &metrics;
    assert!(
        output.lines().count() > 100 && output.contains("\"TRACE\"") | output.contains("\"DEBUG\""),
        "it says too little to prove anything"
    );
    for secret in &secrets {
        assert!(secret.len() >= 15, "{secret} is no secret");
        let shown = output.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(shown, None, "{secret} stands in the output");
    }
    s3.stop().await;
}

/// What makes a presigned URL worth something.
fn signature(url: &Url) -> String {
    let signature = url.query_pairs().find(|(name, _)| name == "X-Amz-Signature");
    signature.map(|(_, value)| value.into_owned()).expect("a presigned URL")
}
