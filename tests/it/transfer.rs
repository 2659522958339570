//! Many transfers at once through the real process: what it holds then has a bound, however many there are and however
//! slow the other end is.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use paperminder_ota::clock::Clock;
use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::ids::{FirmwareId, PrinterRef, UpdateId};
use paperminder_ota::links::{self, NewLink, Token};
use reqwest::multipart::{Form, Part};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use socket2::SockRef;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::process::{ServeProcess, server_url};
use crate::support::{embedded_s3, raw};

const UPLOADS: usize = 100;
const UPLOAD_SIZE: usize = 5 << 20;
const DOWNLOADS: usize = 1000;
const DOWNLOAD_SIZE: usize = 1 << 20;
/// So many begin at a time, so that a debug build beside a compiler opens each within the time-outs.
const BEGIN: usize = 50;
/// The most that one replica may hold, in KiB.
const MOST_KIB: u64 = 300 << 10;
/// What a download has read before it stands.
const BUFFER: u64 = 4 << 10;
/// A download that stands takes a buffer, so often: more than who is let go, less than would soon empty the image.
const SIP_EVERY: Duration = Duration::from_secs(2);
/// For all of them to begin, for one upload to end, and for a download to get some bytes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of them at a time: a machine that drops packets for want of memory or time measures nothing.
static TURN: Mutex<()> = Mutex::const_new(());

/// An S3 on a thread of its own: on that of a thousand clients it would be late.
async fn s3() -> (EmbeddedS3, TempDir, Runtime) {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (s3, folder) = threads.spawn(embedded_s3()).await.unwrap();
    (s3, folder, threads)
}

async fn start(pool: &PgPool, s3: &EmbeddedS3) -> ServeProcess {
    ServeProcess::start(&[
        ("DATABASE_URL", &server_url(pool).await),
        ("AWS_ENDPOINT_URL_S3", &s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret()),
        ("AWS_REGION", "us-east-1"),
        ("DELIVERY", "link"),
        ("DOWNLOADS_PER_ADDRESS", "1000000"),
        // Every download a stream of its own, which costs most.
        ("DOWNLOAD_CACHE_BYTES", "0"),
    ])
    .await
}

/// Uploads an image. A busy server says 503 and when to come back, which is done; returns how often, and the release.
async fn upload(client: &reqwest::Client, url: &str, image: Bytes, version: String) -> (u32, Value) {
    let mut refused = 0;
    loop {
        let file = Part::stream_with_length(image.clone(), image.len() as u64).file_name("firmware.bin");
        let form = Form::new().text("version", version.clone()).text("validate", "off").part("file", file);
        let answer = client.post(url).multipart(form).send().await.unwrap();
        match answer.status().as_u16() {
            201 => return (refused, answer.json().await.unwrap()),
            503 => {
                let wait = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                tokio::time::sleep(Duration::from_secs(wait)).await;
                refused += 1;
            }
            status => panic!("{status}: {}", answer.text().await.unwrap()),
        }
    }
}

#[sqlx::test]
async fn many_uploads_at_once_stay_within_the_bound(pool: PgPool) {
    let _turn = TURN.lock().await;
    let (s3, folder, threads) = s3().await;
    let server = start(&pool, &s3).await;
    let before = server.peak_memory();
    // Most wait for a buffer; reqwest gives a peer that takes no bytes 30 seconds, and this machine may be slower.
    let client = reqwest::Client::builder().tcp_user_timeout(None).build().unwrap();
    let url = server.url("/api/firmware/upload");
    let image = Bytes::from(raw::noise(UPLOAD_SIZE, 1));
    let (md5, _) = raw::checksums(&image);
    let began = Instant::now();
    let mut uploads = JoinSet::new();
    for index in 0..UPLOADS {
        let (client, url, image) = (client.clone(), url.clone(), image.clone());
        uploads.spawn(async move { upload(&client, &url, image, format!("1.0.{index}")).await });
    }
    let mut refused = 0;
    while let Some(done) = timeout(PATIENCE, uploads.join_next()).await.unwrap() {
        let (times, release) = done.unwrap();
        assert_eq!(release["md5"], md5, "{release}");
        refused += times;
    }
    let took = began.elapsed();
    let peak = server.peak_memory();
    println!(
        "{UPLOADS} uploads of {UPLOAD_SIZE} bytes in {took:?}: at most {peak} KiB, {before} KiB before, {refused} times 503"
    );
    assert!(peak < MOST_KIB, "{peak} KiB");
    assert!(server.terminate().await.success());
    s3.stop().await;
    threads.shutdown_background();
    drop(folder);
}

/// A link for each of so many printers, as claims would have made them.
async fn hand_out(pool: &PgPool, release: FirmwareId, version: &str, count: usize) -> Vec<Token> {
    let printers: Vec<_> = (0..count).map(|_| uuid::Uuid::now_v7()).collect();
    let updates: Vec<_> = (0..count).map(|_| uuid::Uuid::now_v7()).collect();
    sqlx::query(
        "insert into printers (id, printer_id, user_id, bucket, version_key) \
         select id, id::text, 'somebody', 0, '' from unnest($1::uuid[]) as p (id)",
    )
    .bind(&printers)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt) \
         select u.id, u.printer, $3, $4, '0.0.0', 1 from unnest($1::uuid[], $2::uuid[]) as u (id, printer)",
    )
    .bind(&updates)
    .bind(&printers)
    .bind(release.0)
    .bind(version)
    .execute(pool)
    .await
    .unwrap();
    let now = Clock::system().now();
    let links: Vec<_> = updates
        .into_iter()
        .zip(printers)
        .map(|(update, printer)| NewLink {
            token: Token::generate(),
            printer: PrinterRef(printer),
            release,
            update: UpdateId(update),
            expires_at: now + Duration::from_secs(3600),
        })
        .collect();
    links::create(&mut pool.acquire().await.unwrap(), &links, now).await.unwrap();
    links.into_iter().map(|link| link.token).collect()
}

/// Downloads as a device does: HTTP/1.0, small segments, a small window. It takes the head and one buffer, all but stands
/// until all others are as far and it is told to go on, and takes the rest.
async fn slow_download(
    server: SocketAddr,
    path: String,
    begin: Arc<Semaphore>,
    both: Arc<Barrier>,
) -> (u32, Vec<u8>) {
    let mut again = 0;
    let (mut stream, mut answer) = loop {
        let _beginning = begin.acquire().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        // Loopback's segments of 64 KiB would let the kernel take whole images off the server's hands.
        SockRef::from(&socket).set_tcp_mss(1460).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = (&mut stream).take(BUFFER).read_to_end(&mut answer).await;
        if answer.len() as u64 == BUFFER {
            break (stream, answer);
        }
        // A busy server says 503 in fewer bytes than an image has, and when to come back. On a busy machine the request
        // may come too late for it to wait: then it says nothing.
        let answer = String::from_utf8_lossy(&answer);
        let wait = match answer.lines().find_map(|line| line.strip_prefix("retry-after: ")) {
            None if answer.is_empty() => 1,
            Some(seconds) if answer.starts_with("HTTP/1.0 503 ") => seconds.parse().unwrap(),
            _ => panic!("{read:?} {answer}"),
        };
        tokio::time::sleep(Duration::from_secs(wait)).await;
        again += 1;
    };
    assert!(answer.starts_with(b"HTTP/1.0 200 "), "{}", String::from_utf8_lossy(&answer));
    let mut others = pin!(async {
        both.wait().await;
        both.wait().await;
    });
    // Whoever takes nothing at all for long is let go, and rightly.
    while timeout(SIP_EVERY, &mut others).await.is_err() {
        let mut sip = [0; BUFFER as usize];
        stream.read_exact(&mut sip).await.unwrap();
        answer.extend_from_slice(&sip);
    }
    while timeout(PATIENCE, stream.read_buf(&mut answer)).await.unwrap().unwrap() > 0 {}
    (again, answer)
}

#[sqlx::test]
async fn slow_downloads_cost_a_few_buffers_each(pool: PgPool) {
    let _turn = TURN.lock().await;
    let (s3, folder, threads) = s3().await;
    let server = start(&pool, &s3).await;
    let image = Bytes::from(raw::noise(DOWNLOAD_SIZE, 2));
    let url = server.url("/api/firmware/upload");
    upload(&reqwest::Client::new(), &url, image.clone(), "1.5.0".into()).await;
    let id = sqlx::query_scalar("select id from firmware_versions").fetch_one(&pool).await.unwrap();
    let release = FirmwareId(id);
    let tokens = hand_out(&pool, release, "1.5.0", DOWNLOADS).await;
    let before = server.peak_memory();
    let began = Instant::now();
    let both = Arc::new(Barrier::new(DOWNLOADS + 1));
    let begin = Arc::new(Semaphore::new(BEGIN));
    let mut downloads = JoinSet::new();
    for token in tokens {
        downloads.spawn(slow_download(server.address, token.path(), begin.clone(), both.clone()));
    }
    tokio::select! {
        begun = timeout(PATIENCE, both.wait()) => drop(begun.unwrap_or_else(|_| panic!("not all begin:\n{}", server.log()))),
        ended = downloads.join_next() => panic!("{:?}", ended.map(|ended| ended.map(|(again, _)| again))),
    }
    // What may still be filled on the way is filled by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let count = "select count(*) from update_history where download_started_at is not null and download_ended_at is null";
    let under_way: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(usize::try_from(under_way).unwrap(), DOWNLOADS, "all at once");
    let (stood, held) = (began.elapsed(), server.peak_memory());
    both.wait().await;
    let mut again = 0;
    while let Some(done) = downloads.join_next().await {
        let (times, answer) = done.unwrap();
        assert!(
            answer.ends_with(&image),
            "{} bytes, {}\n{}",
            answer.len(),
            String::from_utf8_lossy(&answer[..200]),
            server.log()
        );
        again += times;
    }
    let (took, peak) = (began.elapsed(), server.peak_memory());
    println!(
        "{DOWNLOADS} downloads of {DOWNLOAD_SIZE} bytes in {took:?}: at most {peak} KiB, {held} KiB while all stood \
         after {stood:?}, {before} KiB before, begun again {again} times"
    );
    assert!(peak < MOST_KIB, "{peak} KiB");
    assert!(server.terminate().await.success());
    s3.stop().await;
    threads.shutdown_background();
    drop(folder);
}
