//! A printer that breaks the protocol of its socket, or never stops talking.

use std::time::Duration;

use paperminder_ota::simulate::Printer;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::listen;
use crate::support::process::{ServeProcess, database_url};
use crate::support::{SOON, Server};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const FIN: u8 = 0x80;

/// A socket behind its handshake.
async fn open(to: std::net::SocketAddr, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "GET /ws/{user} HTTP/1.1\r\nHost: ota:8000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = timeout(SOON, stream.read_buf(&mut answer)).await.unwrap().unwrap();
        assert!(read > 0, "no handshake");
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// A frame as a client sends it: masked, with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The code of the close frame that stands last in what was heard.
fn close_code(bytes: &[u8]) -> Option<u16> {
    let at = bytes.windows(2).rposition(|pair| pair[0] == FIN | CLOSE && (2..126).contains(&pair[1]))?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

/// Whether the server talks to a printer that behaves.
async fn is_served(printer: &mut Printer) -> bool {
    printer.send_raw("{").await.unwrap();
    printer.next_message(SOON).await.unwrap()["code"] == "malformed_json"
}

#[sqlx::test]
async fn who_breaks_the_protocol_is_told_so_and_let_go(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut bystander = Printer::online(server.printer(1)).await.unwrap();
    let hello = br#"{"printer_id":"p"}"#;
    let masked_bit_off = [FIN | TEXT, hello.len() as u8].iter().chain(hello).copied().collect::<Vec<_>>();
    let huge = [&[FIN | TEXT, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let large = [&[FIN | TEXT, 0x80 | 127][..], &(1u64 << 40).to_be_bytes(), &[0; 4]].concat();
    let pieces = [frame(TEXT, &[b'a'; 4000]), frame(FIN, &[b'a'; 4000])].concat();
    let cases: [(&str, Vec<u8>, u16); 15] = [
        ("not masked", masked_bit_off, 1002),
        ("reserved bit", frame(FIN | 0x40 | TEXT, hello), 1002),
        ("reserved opcode", frame(FIN | 3, hello), 1002),
        ("reserved control opcode", frame(FIN | 0xb, b""), 1002),
        ("a long control frame", frame(FIN | PING, &[0; 126]), 1002),
        ("a ping in pieces", frame(PING, b"a"), 1002),
        ("a continuation of nothing", frame(FIN, b"a"), 1002),
        ("a text within a text", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(), 1002),
        ("a close of one byte", frame(FIN | CLOSE, b"a"), 1002),
        ("no UTF-8", frame(FIN | TEXT, b"\xff\xfe{}"), 1007),
        ("no UTF-8 over two pieces", [frame(TEXT, b"\xc3"), frame(FIN, b"\x28")].concat(), 1007),
        ("4 KiB and more", frame(FIN | TEXT, &[b'a'; 5000]), 1009),
        ("a length of 2^64", huge, 1009),
        ("a length of 2^40", large, 1009),
        ("pieces of more than 4 KiB", pieces, 1009),
    ];
    for (name, bytes, code) in cases {
        let mut stream = open(server.app().address, "demo").await;
        stream.write_all(&bytes).await.unwrap();
        let heard = listen(&mut stream, SOON, |heard| close_code(&heard.bytes).is_some()).await;
        assert!(heard.ended || !heard.bytes.is_empty(), "{name}: silence");
        assert_eq!(close_code(&heard.bytes), Some(code), "{name}: {:?}", heard.bytes);
        assert!(is_served(&mut bystander).await, "{name}");
    }
    // These break nothing, or nothing yet: answered or ignored, and gone with the server at the latest.
    let mut held = Vec::new();
    for bytes in [
        frame(FIN | CLOSE, &999u16.to_be_bytes()),
        frame(FIN | CLOSE, &[0x03, 0xe8, 0xff]),
        frame(FIN | BINARY, &[0; 100]),
        frame(FIN | TEXT, hello)[..7].to_vec(),
        frame(TEXT, b"{"),
        frame(0, b"").repeat(1),
    ] {
        let mut stream = open(server.app().address, "demo").await;
        stream.write_all(&bytes).await.unwrap();
        held.push(stream);
        assert!(is_served(&mut bystander).await);
    }
    server.stop().await;
}

#[sqlx::test]
async fn who_says_too_much_is_told_so_and_heard_to_the_end(pool: PgPool) {
    let server = Server::with(pool, &[("MESSAGES_PER_PRINTER", "60")]).await;
    server.release("1.5.0", "stable").await;
    let mut bystander = Printer::online(server.printer(2)).await.unwrap();
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let wanted = json!({"firmware_version": "1.5.0", "target": {"printer_ids": [printer.id().as_ref()]}, "rollout_type": "immediate"});
    server.rollout(wanted).await;
    printer.next_offer(SOON).await.unwrap();
    for percent in 0..60 {
        printer.send_json(&json!({"kind": "firmware_progress", "percent": percent})).await.unwrap();
    }
    printer.send_json(&json!({"kind": "firmware_failed", "error": "the last word"})).await.unwrap();
    let told = printer.next_message(SOON).await.unwrap();
    assert_eq!((&told["kind"], &told["code"]), (&json!("status"), &json!("too_fast")));
    assert!(is_served(&mut bystander).await, "others are not held up");
    // The next try may be there already.
    let heard = |list: &Value| {
        let mut updates = list["updates"].as_array().unwrap().iter();
        updates.any(|update| update["error_message"] == "the last word")
    };
    let path = format!("/api/printers/{}/updates", printer.id());
    server.wait(&path, heard).await;
    let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("paperminder_messages_delayed_total"));
    server.stop().await;
}

/// Forty printers that never stop, each for a while, and read nothing of what they are told.
#[sqlx::test]
async fn floods_cost_no_memory_and_nobody_elses_turn(pool: PgPool) {
    let (s3, _folder) = crate::support::embedded_s3().await;
    let (database, endpoint) = (database_url(&pool), s3.endpoint());
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("AWS_ENDPOINT_URL_S3", &endpoint),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", secrecy::ExposeSecret::expose_secret(s3.secret_key())),
        ("AWS_REGION", "us-east-1"),
        ("RUST_LOG", "warn,paperminder_ota::cli=info"),
    ];
    let process = ServeProcess::start(&settings).await;
    let quiet = open(process.address, "quiet").await;
    let asked = async || {
        let began = std::time::Instant::now();
        let answer = reqwest::get(process.url("/api/firmware")).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        began.elapsed()
    };
    // The slowest of a few, on this machine at this time.
    let mut alone = Duration::ZERO;
    for _ in 0..10 {
        alone = alone.max(asked().await);
    }
    let before = process.peak_memory();
    let floods: [(&str, Vec<u8>); 4] = [
        ("pings", frame(FIN | PING, &[7; 125])),
        ("messages", frame(FIN | TEXT, b"{")),
        ("empty pieces", frame(0, b"")),
        ("nonsense", frame(FIN | BINARY, &[0; 1000])),
    ];
    let mut tasks = Vec::new();
    for (name, one) in floods {
        for _ in 0..10 {
            let mut stream = open(process.address, "demo").await;
            let many = one.repeat(20_000);
            let start = if name == "empty pieces" { frame(TEXT, b"a") } else { Vec::new() };
            tasks.push(tokio::spawn(async move {
                let sent = timeout(Duration::from_secs(4), async {
                    stream.write_all(&start).await?;
                    stream.write_all(&many).await
                });
                let _ = sent.await;
                stream
            }));
        }
    }
    let mut served = 0;
    // Forty flood here as well, and may have the machine for as long as it takes.
    let patience = (20 * alone).max(Duration::from_secs(2));
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        let took = asked().await;
        assert!(took < patience, "{took:?}, and {alone:?} without floods");
        served += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(served > 3, "the floods were over at once");
    let grown = process.peak_memory().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    drop((tasks, quiet));
    process.kill().await;
    s3.stop().await;
}
