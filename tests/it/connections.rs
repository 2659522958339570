//! Connections: how long they may say nothing, how many there may be, how fast sockets may come.

use std::time::{Duration, Instant};

use paperminder_ota::simulate::image::esp8266_image;
use paperminder_ota::simulate::{Error, Printer};
use sqlx::PgPool;
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use crate::support::raw::{Reply, Wire, ask, form, upload_head};
use crate::support::{SOON, Server};

/// Longer than a head may take.
const LONG: Duration = Duration::from_secs(6);

/// Waits for the server to end a connection without a word.
async fn cut(mut wire: Wire) {
    let mut answer = Vec::new();
    let ended = timeout(SOON, wire.0.read_to_end(&mut answer)).await;
    assert!(matches!(ended, Ok(Ok(0))), "{ended:?} {answer:?}");
}

fn request(server: &Server) -> String {
    format!("GET /api/firmware HTTP/1.1\r\nHost: {}\r\n\r\n", server.app().address)
}

async fn handshake(server: &Server) -> Reply {
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: arduino\r\n";
    let mut wire = Wire::open(server.app().address).await;
    wire.send(format!("GET /ws/demo HTTP/1.1\r\nHost: ota:8000\r\n{headers}\r\n").as_bytes()).await;
    wire.reply(false).await
}

async fn metric(server: &Server, line: &str) -> bool {
    let metrics = reqwest::get(server.internal("/metrics")).await.unwrap().text().await.unwrap();
    metrics.contains(line)
}

#[sqlx::test]
async fn whoever_does_not_ask_is_cut_off_and_whoever_is_slow_about_more_is_not(pool: PgPool) {
    let server = Server::start(pool).await;
    let (address, ask) = (server.app().address, request(&server));
    let mute = async {
        let started = Instant::now();
        cut(Wire::open(address).await).await;
        started.elapsed()
    };
    let half_a_head = async {
        let started = Instant::now();
        let mut wire = Wire::open(address).await;
        wire.send(&ask.as_bytes()[..20]).await;
        // A byte now and then buys no time.
        sleep(Duration::from_secs(2)).await;
        wire.send(&ask.as_bytes()[20..21]).await;
        cut(wire).await;
        started.elapsed()
    };
    let slow_body = async {
        let (head, tail) = form(&[("version", "1.5.0")], &[]);
        let body = [head, esp8266_image(20 << 10, 1), tail].concat();
        let mut wire = Wire::open(address).await;
        wire.send(upload_head(address, Some(body.len()), "").as_bytes()).await;
        for piece in body.chunks(body.len() / 3) {
            wire.send(piece).await;
            sleep(LONG / 2).await;
        }
        assert_eq!(wire.reply(false).await.status, 201);
    };
    let kept_alive = async {
        let mut wire = Wire::open(address).await;
        for _ in 0..2 {
            wire.send(ask.as_bytes()).await;
            assert_eq!(wire.reply(false).await.status, 200);
            sleep(LONG).await;
        }
    };
    let (mute, half, ..) = tokio::join!(mute, half_a_head, slow_body, kept_alive);
    assert!((4..12).contains(&mute.as_secs()), "{mute:?}");
    // Both began together, so a busy machine is late for both.
    assert!(half.as_secs() >= 4 && half < mute + Duration::from_millis(1500), "{half:?} and {mute:?}");
    assert!(metric(&server, "paperminder_connections_refused_total{reason=\"silent\"}").await);
    server.stop().await;
}

#[sqlx::test]
async fn there_is_room_for_so_many_connections_of_any_kind(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_OPEN_CONNECTIONS", "2")]).await;
    let printer = Printer::online(server.printer(1)).await.unwrap();
    let mut kept = Wire::open(server.app().address).await;
    kept.send(request(&server).as_bytes()).await;
    assert_eq!(kept.reply(false).await.status, 200);
    assert!(metric(&server, "paperminder_connections_open{listener=\"public\"}").await);

    let refused = ask(server.app().address, "GET", "/api/firmware", "HTTP/1.1", "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.json()["type"], "/docs/problems/too-many-connections");
    assert!(matches!(Printer::connect(server.printer(2)).await, Err(Error::Refused(503))));
    assert!(metric(&server, "paperminder_connections_refused_total{reason=\"connections\"}").await);

    // A socket gives its room back as any other connection does.
    printer.close().await.unwrap();
    let deadline = Instant::now() + SOON;
    while ask(server.app().address, "GET", "/api/firmware", "HTTP/1.1", "").await.status != 200 {
        assert!(Instant::now() < deadline, "a socket that is gone keeps its room");
        sleep(Duration::from_millis(20)).await;
    }
    drop(kept);
    server.stop().await;
}

#[sqlx::test]
async fn a_rush_of_sockets_is_refused_without_the_database_and_let_in_later(pool: PgPool) {
    for (limit, reason) in
        [("CONNECTS_PER_SECOND", "connect_rate"), ("CONNECTS_PER_ADDRESS", "connect_rate_of_address")]
    {
        let settings = [(limit, if limit == "CONNECTS_PER_SECOND" { "1" } else { "30" })];
        let server = Server::with(pool.clone(), &settings).await;
        // Nothing in here gets a connection to the database.
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(server.app().state.pool.acquire().await.unwrap());
        }
        let started = Instant::now();
        let (refused, took) = loop {
            let asked = Instant::now();
            let reply = handshake(&server).await;
            if reply.status != 101 {
                break (reply, asked.elapsed());
            }
            assert!(started.elapsed() < SOON, "nobody is refused");
            assert_eq!(reply.header("connection"), Some("Upgrade"));
            assert_eq!(reply.header("sec-websocket-protocol"), Some("arduino"));
        };
        let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(refused.status == 503 && (3..=7).contains(&wait), "{refused:?}");
        assert_eq!(refused.json()["type"], "/docs/problems/too-many-connects");
        // Whoever asks for a connection waits for three seconds in here.
        assert!(took < Duration::from_secs(3), "{took:?}");
        drop(held);
        let counted = format!("paperminder_connections_refused_total{{reason=\"{reason}\"}}");
        assert!(metric(&server, &counted).await);

        let deadline = Instant::now() + SOON;
        let mut printer = loop {
            match Printer::connect(server.printer(1)).await {
                Ok(printer) => break printer,
                Err(Error::Refused(503)) => sleep(Duration::from_millis(200)).await,
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "nobody is let in any more");
        };
        printer.subscribe().await.unwrap();
        server.wait("/api/printers?online=true", |list| list["total"] == 1).await;
        printer.close().await.unwrap();
        server.stop().await;
    }
}
