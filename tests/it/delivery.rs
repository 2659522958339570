//! How printers get images: presigned URLs, short links, a CDN.

use std::net::SocketAddr;
use std::time::Duration;

use paperminder_ota::clock::Clock;
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::simulate::{Fleet, FleetOptions, Limits, Offer, Printer, PrinterOptions};
use paperminder_ota::storage::ObjectKey;
use paperminder_ota::words::Channel;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{SOON, Server};

async fn roll_out(server: &Server) -> String {
    server.release("1.5.0", "stable").await;
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"});
    format!("/api/rollouts/{}", server.rollout(wanted).await["number"])
}

async fn offered(server: &Server, options: PrinterOptions) -> (Printer, Offer) {
    let mut printer = Printer::online(options).await.unwrap();
    let offer = printer.next_offer(SOON).await.unwrap();
    assert!(offer.url.starts_with("http://"), "{}", server.url(""));
    (printer, offer)
}

fn path_of(offer: &Offer) -> String {
    url::Url::parse(&offer.url).unwrap().path().to_owned()
}

#[sqlx::test]
async fn a_device_with_a_256_byte_document_updates_through_a_link(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    let size = server.release("1.5.0", "stable").await["file_size"].clone();
    let fleet = Fleet::start(FleetOptions::of(6, |index| PrinterOptions {
        limits: Limits { json: Some(256), ..Limits::default() },
        ..server.device(index)
    }))
    .unwrap();
    fleet.wait_until(SOON, |fleet| fleet.subscribes >= 6).await.unwrap();
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"});
    let path = format!("/api/rollouts/{}", server.rollout(wanted).await["number"]);
    server.wait(&path, |rollout| rollout["confirmed_count"] == 6).await;
    let update = server
        .wait("/api/printers/1/updates", |list| list["updates"][0]["download_ended_at"].is_string())
        .await["updates"][0]
        .clone();
    assert_eq!(update["download_bytes"], size);
    assert!(update["download_started_at"].as_str() <= update["download_ended_at"].as_str());
    server.wait("/api/firmware/1.5.0", |firmware| firmware["download_count"] == 6).await;
    let fleet = fleet.stop().await;
    assert_eq!((fleet.unparsable, fleet.md5_mismatches, fleet.downloads_ok), (0, 0, 6));
    server.stop().await;
}

#[sqlx::test]
async fn a_url_that_is_too_long_for_the_printer_becomes_a_link(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_URL_LENGTH", "120")]).await;
    roll_out(&server).await;
    let said = |length: u64, index: u64| {
        let mut options = server.printer(index);
        options.identity.extra.insert("max_url_length".into(), json!(length));
        options
    };
    assert!(
        offered(&server, server.printer(1)).await.1.url.contains("/d/"),
        "MAX_URL_LENGTH holds for who does not say"
    );
    assert!(
        offered(&server, said(2000, 2)).await.1.url.contains("X-Amz-Signature"),
        "what the printer says wins"
    );
    let (_, offer) = offered(&server, said(64, 3)).await;
    assert!(offer.url.len() <= 64 && offer.url.contains("/d/"), "{} characters", offer.url.len());
    server.stop().await;
}

#[sqlx::test]
async fn by_default_the_url_is_presigned(pool: PgPool) {
    let server = Server::start(pool).await;
    roll_out(&server).await;
    assert!(offered(&server, server.printer(1)).await.1.url.contains("X-Amz-Signature"));
    server.stop().await;
}

#[sqlx::test]
async fn a_token_that_was_never_handed_out_or_expired_downloads_nothing(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    roll_out(&server).await;
    let (_printer, offer) = offered(&server, server.device(1)).await;
    let path = path_of(&offer);
    assert_eq!(path.len(), "/d/".len() + 22);
    let mut tampered = path.clone();
    let last = if tampered.pop() == Some('A') { 'Q' } else { 'A' };
    tampered.push(last);
    for path in
        [tampered.as_str(), "/d/AAAAAAAAAAAAAAAAAAAAAA", "/d/short", "/d/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    {
        assert_eq!(server.get(path).await.expect(404)["type"], "/docs/problems/link-gone", "{path}");
    }
    for _ in 0..2 {
        assert_eq!(
            server.send(server.request(Method::GET, &path)).await.status,
            200,
            "usable again, for a retry"
        );
    }
    sqlx::query("update download_links set expires_at = now()").execute(&server.pool).await.unwrap();
    assert_eq!(server.get(&path).await.expect(404)["type"], "/docs/problems/link-gone");
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select token_hash from download_links").fetch_all(&server.pool).await.unwrap();
    let token = path.trim_start_matches("/d/").as_bytes();
    assert!(
        stored.iter().all(|hash| hash.len() == 32 && !hash.windows(token.len()).any(|part| part == token))
    );
    server.stop().await;
}

#[sqlx::test]
async fn a_link_answers_an_http_1_0_client_with_a_length_and_no_chunks(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    let release = server.release("1.5.0", "stable").await;
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let (_printer, offer) = offered(&server, server.device(1)).await;
    let url = url::Url::parse(&offer.url).unwrap();
    let address: SocketAddr = format!("127.0.0.1:{}", url.port().unwrap()).parse().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: ESP8266-http-Update\r\nConnection: close\r\n\r\n",
        url.path()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.0 200") || head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains(&format!("content-length: {}", release["file_size"])), "{head}");
    assert!(head.contains(&format!("x-md5: {}", release["md5"].as_str().unwrap())), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-encoding"), "{head}");
    assert_eq!(answer.len() - end - 4, usize::try_from(release["file_size"].as_u64().unwrap()).unwrap());
    server.stop().await;
}

#[sqlx::test]
async fn ranges_heads_and_known_images_are_answered_as_the_rfc_says(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    let release = server.release("1.5.0", "stable").await;
    let size = release["file_size"].as_u64().unwrap();
    server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    let (_printer, offer) = offered(&server, server.device(1)).await;
    let path = path_of(&offer);
    let ask = async |method: Method, name: &str, value: &str| {
        let answer = server.request(method, &path).header(name, value).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap())
    };
    let (status, headers, bytes) = ask(Method::HEAD, "accept", "*/*").await;
    assert_eq!(
        (status, bytes.len(), headers["content-length"].to_str().unwrap()),
        (200, 0, size.to_string().as_str())
    );
    let (status, headers, bytes) = ask(Method::GET, "range", "bytes=0-3").await;
    assert_eq!((status, bytes.len(), bytes[0]), (206, 4, 0xE9));
    assert_eq!(headers["content-range"], format!("bytes 0-3/{size}").as_str());
    assert_eq!(ask(Method::GET, "range", "bytes=-16").await.2.len(), 16);
    assert_eq!(ask(Method::GET, "range", &format!("bytes={size}-")).await.0, 416);
    assert_eq!(ask(Method::GET, "range", "pages=1-2").await.0, 200);
    assert_eq!(
        ask(Method::GET, "x-ESP8266-sketch-md5", &release["md5"].as_str().unwrap().to_uppercase()).await.0,
        304
    );
    assert_eq!(ask(Method::GET, "if-none-match", headers["etag"].to_str().unwrap()).await.0, 304);
    server.stop().await;
}

fn key_of(release: &Value) -> ObjectKey {
    let id = FirmwareId(release["id"].as_str().unwrap().parse().unwrap());
    ObjectKey::firmware(id, &"1.5.0".to_owned().into(), Channel::Stable)
}

/// Offers a release to as many printers, and the paths of their links.
async fn links(server: &Server, printers: u64) -> (Value, Vec<String>) {
    roll_out(server).await;
    let mut paths = Vec::new();
    for index in 0..printers {
        paths.push(path_of(&offered(server, server.device(index)).await.1));
    }
    (server.get("/api/firmware/1.5.0").await.expect(200), paths)
}

#[sqlx::test]
async fn many_printers_download_an_image_and_s3_is_asked_once(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    let (release, paths) = links(&server, 3).await;
    let image = server.request(Method::GET, &paths[0]).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(image.len() as u64, release["file_size"].as_u64().unwrap());
    server.app().state.uploads.store.delete(&key_of(&release)).await.unwrap();
    let again = server.request(Method::GET, &paths[1]).send().await.unwrap();
    assert_eq!(again.bytes().await.unwrap(), image);
    let part = server.request(Method::GET, &paths[2]).header("range", "bytes=100-299").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap(), image.slice(100..300));
    server.stop().await;
}

#[sqlx::test]
async fn without_memory_for_images_each_download_comes_from_s3(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[("DOWNLOAD_CACHE_BYTES", "0")]).await;
    let (release, paths) = links(&server, 2).await;
    let image = server.request(Method::GET, &paths[0]).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(image.len() as u64, release["file_size"].as_u64().unwrap());
    server.app().state.uploads.store.delete(&key_of(&release)).await.unwrap();
    assert_eq!(server.request(Method::GET, &paths[1]).send().await.unwrap().status(), 500);
    server.stop().await;
}

#[sqlx::test]
async fn an_object_that_is_not_what_was_uploaded_reaches_no_printer(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    let (release, paths) = links(&server, 3).await;
    let size = release["file_size"].as_u64().unwrap() as usize;
    let store = &server.app().state.uploads.store;
    for (path, wrong) in paths.iter().zip([size, size - 1, size + 1]) {
        store.put(&key_of(&release), vec![0xE9; wrong].into()).await.unwrap();
        let answer = server.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 500, "{wrong} bytes");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["trace_id"].is_string() && !problem.to_string().contains("firmware/"), "{problem}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn an_image_that_does_not_fit_is_refused_before_it_is_sent_and_the_reason_is_kept(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[("MAX_ATTEMPTS", "1")]).await;
    let path = roll_out(&server).await;
    let fleet = Fleet::start(FleetOptions::of(1, |index| PrinterOptions {
        limits: Limits { free_space: 1000, ..Limits::default() },
        ..server.device(index)
    }))
    .unwrap();
    server.wait(&path, |rollout| rollout["failed_count"] == 1).await;
    let update = server.get("/api/printers/1/updates").await.expect(200)["updates"][0].clone();
    assert_eq!((&update["status"], &update["reason"]), (&json!("failed"), &json!("no_space")));
    assert!(update["error_message"].as_str().unwrap().contains("1000 bytes free"), "{update}");
    assert_eq!(fleet.stop().await.bytes, 0);
    server.stop().await;
}

#[sqlx::test]
async fn only_who_says_that_it_follows_is_redirected(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    roll_out(&server).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut follows = server.printer(1);
    follows.identity.extra.insert("follows_redirects".into(), json!(true));
    let (_one, offer) = offered(&server, follows).await;
    let answer = client.get(&offer.url).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    assert!(answer.headers()["location"].to_str().unwrap().contains("X-Amz-Signature"));
    let (_two, offer) = offered(&server, server.printer(2)).await;
    assert_eq!(client.get(&offer.url).send().await.unwrap().status(), 200);
    server.stop().await;
}

#[sqlx::test]
async fn beyond_the_limits_a_download_is_told_when_to_come_back(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[("DOWNLOADS_PER_ADDRESS", "3")]).await;
    roll_out(&server).await;
    let (_printer, offer) = offered(&server, server.device(1)).await;
    let path = path_of(&offer);
    for _ in 0..3 {
        assert_eq!(server.send(server.request(Method::GET, &path)).await.status, 200);
    }
    let full = server.get(&path).await;
    assert_eq!((full.status.as_u16(), full.headers["retry-after"].to_str().unwrap()), (503, "60"));
    assert_eq!(full.body["type"], "/docs/problems/downloads-full");
    server.stop().await;
}

#[sqlx::test]
async fn links_that_expired_are_forgotten(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    roll_out(&server).await;
    let _offered = offered(&server, server.device(1)).await;
    let mut conn = server.pool.acquire().await.unwrap();
    let now = server.app().state.clock.now();
    assert_eq!(paperminder_ota::links::sweep(&mut conn, now).await.unwrap(), 0);
    assert_eq!(paperminder_ota::links::sweep(&mut conn, now + Duration::from_secs(3700)).await.unwrap(), 1);
    drop(conn);
    server.stop().await;
}

/// What a printer was never told, nobody else learns from the log or REST.
#[sqlx::test]
async fn no_answer_of_rest_shows_a_link(pool: PgPool) {
    let server = Server::on_clock(pool, Clock::system(), &[]).await;
    let path = roll_out(&server).await;
    let (_printer, offer) = offered(&server, server.device(1)).await;
    let token = path_of(&offer).trim_start_matches("/d/").to_owned();
    for path in [path.as_str(), "/api/printers/1/updates", "/api/printers", "/api/firmware"] {
        let body: Value = server.get(path).await.expect(200);
        assert!(!body.to_string().contains(&token), "{path}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn with_a_cdn_printers_and_rest_are_told_its_urls(pool: PgPool) {
    let settings =
        [("DELIVERY", "cdn"), ("CDN_BASE_URL", "http://cdn.example.com/"), ("MAX_URL_LENGTH", "512")];
    let server = Server::with(pool, &settings).await;
    roll_out(&server).await;
    let file_url = server.get("/api/firmware/1.5.0").await.expect(200)["file_url"].clone();
    let (_printer, offer) = offered(&server, server.printer(1)).await;
    assert_eq!(file_url, offer.url.as_str());
    assert!(offer.url.starts_with("http://cdn.example.com/firmware/"), "{}", offer.url);
    server.stop().await;
}
