//! Which printers are let in, with real sockets.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{SOON, Server};

const KEY: &str = "its-own-key";

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(server: &Server, user: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let url = server.url(&format!("/ws/{user}")).replace("http://", "ws://");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// What it hears; none when nothing comes.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            match timeout(SOON, self.0.next()).await {
                Err(_) | Ok(None | Some(Err(_))) => return None,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(message))) => return Some(message),
            }
        }
    }

    /// Whether the server closes it soon.
    async fn is_closed(&mut self) -> bool {
        matches!(self.hear().await, Some(Message::Close(_)))
    }
}

fn subscribe(printer: &str, key: Option<&str>) -> Value {
    let mut message = json!({"printer_id": printer, "printer_name": "Desk", "firmware_version": "1.0.0"});
    if let Some(key) = key {
        message["api_key"] = key.into();
    }
    message
}

/// Whether this printer is let in, and the socket if so.
async fn enters(server: &Server, user: &str, printer: &str, key: Option<&str>) -> Option<Socket> {
    let mut socket = Socket::open(server, user, &[("origin", "file://")]).await.unwrap();
    // Whoever is let in hears nothing of it, but an answer to what comes next. Both in one piece, as the server may close
    // the socket after the first.
    socket.0.feed(Message::text(subscribe(printer, key).to_string())).await.unwrap();
    socket.0.send(Message::text("{")).await.unwrap();
    match socket.hear().await {
        Some(Message::Text(text)) => {
            let status: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(status["kind"], "status", "{status}");
            if status["code"] == "malformed_json" {
                return Some(socket);
            }
            assert_eq!(status["code"], "unauthorized");
            assert_eq!(
                status["detail"], "The printer or its api_key is not accepted.",
                "tells which part was wrong"
            );
            assert!(socket.is_closed().await);
            None
        }
        other => panic!("{other:?}"),
    }
}

async fn is_in(server: &Server, user: &str, printer: &str, key: Option<&str>) -> bool {
    enters(server, user, printer, key).await.is_some()
}

#[sqlx::test]
async fn the_first_key_that_a_printer_shows_is_its_key(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "enroll")]).await;
    assert!(!is_in(&server, "user-1", "p-1", None).await, "a printer without a key");
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await);
    for (user, key) in
        [("user-1", Some("another-key")), ("user-1", None), ("user-2", Some(KEY)), ("user-1", Some(""))]
    {
        assert!(!is_in(&server, user, "p-1", key).await, "{user} with {key:?}");
    }
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await, "its own key opens ever after");
    let printer = server.get("/api/printers/p-1").await.expect(200);
    assert_eq!((&printer["user_id"], &printer["shared_key"]), (&json!("user-1"), &json!(false)));
    let keys = server.get("/api/printer-keys?printer_id=p-1").await.expect(200);
    assert_eq!((&keys["total"], &keys["keys"][0]["enrolled"]), (&json!(1), &json!(true)));
    assert!(!keys.to_string().contains(KEY));

    // Reset: its socket is closed, and the next key is bound.
    let mut socket = enters(&server, "user-1", "p-1", Some(KEY)).await.unwrap();
    server.post("/api/printers/p-1/reset-key", &json!({})).await.expect(204);
    assert!(socket.is_closed().await, "a socket outlives its key");
    assert!(is_in(&server, "user-1", "p-1", Some("a-second-key")).await);
    assert!(!is_in(&server, "user-1", "p-1", Some(KEY)).await);
    server.stop().await;
}

#[sqlx::test]
async fn two_sockets_that_enroll_one_printer_at_once_bind_one_key(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "enroll")]).await;
    for round in 0..10 {
        let printer = format!("p-{round}");
        let (a, b) = tokio::join!(
            is_in(&server, "user-1", &printer, Some("key-of-the-one")),
            is_in(&server, "user-1", &printer, Some("key-of-the-other")),
        );
        // Who came second is refused, or was first and was replaced: never do both keys open.
        let again = [
            is_in(&server, "user-1", &printer, Some("key-of-the-one")).await,
            is_in(&server, "user-1", &printer, Some("key-of-the-other")).await,
        ];
        assert_eq!(again.iter().filter(|open| **open).count(), 1, "{a} {b} {again:?}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn registered_printers_alone_are_let_in(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "registered")]).await;
    assert!(!is_in(&server, "user-1", "p-1", Some(KEY)).await);
    let body = json!({"user_id": "user-1", "printer_id": "p-1", "api_key": KEY});
    let made = server.post("/api/printer-keys", &body).await.expect(201);
    assert_eq!(made["api_key"], Value::Null, "a key that was sent is not told again");
    assert_eq!(
        server.post("/api/printer-keys", &body).await.expect(409)["type"],
        "/docs/problems/printer-key-conflict"
    );
    // What was refused a moment ago is believed for five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await);

    // One key for all printers of a user, made up by the server, marks them.
    let shared = server.post("/api/printer-keys", &json!({"user_id": "user-2"})).await.expect(201);
    let key = shared["api_key"].as_str().unwrap();
    assert!(
        is_in(&server, "user-2", "p-2", Some(key)).await && is_in(&server, "user-2", "p-3", Some(key)).await
    );
    assert!(!is_in(&server, "user-1", "p-4", Some(key)).await, "it opens under its user only");
    assert_eq!(server.get("/api/printers/p-2").await.expect(200)["shared_key"], true);
    // A printer that has a key of its own must show that one.
    let own = json!({"user_id": "user-2", "printer_id": "p-3", "api_key": KEY});
    server.post("/api/printer-keys", &own).await.expect(201);
    assert!(
        !is_in(&server, "user-2", "p-3", Some(key)).await && is_in(&server, "user-2", "p-3", Some(KEY)).await
    );

    // Rotation: both open in the overlap, then the new one alone.
    let path = format!("/api/printer-keys/{}/rotate", made["id"].as_str().unwrap());
    let rotated = server.post(&path, &json!({"overlap_seconds": 6})).await.expect(200);
    let since = Instant::now();
    let new = rotated["api_key"].as_str().unwrap().to_owned();
    assert!(
        is_in(&server, "user-1", "p-1", Some(&new)).await && is_in(&server, "user-1", "p-1", Some(KEY)).await
    );
    tokio::time::sleep(Duration::from_secs(7).saturating_sub(since.elapsed())).await;
    assert!(
        !is_in(&server, "user-1", "p-1", Some(KEY)).await
            && is_in(&server, "user-1", "p-1", Some(&new)).await
    );

    // Deleting the key of a user closes the sockets that came in with it, on another replica as well.
    let twin = server.twin().await;
    let mut socket = enters(&twin, "user-2", "p-2", Some(key)).await.unwrap();
    server.delete(&format!("/api/printer-keys/{}", shared["id"].as_str().unwrap())).await.expect(204);
    assert!(socket.is_closed().await);
    twin.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn many_keys_are_made_at_once_or_none(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "registered")]).await;
    let import = async |csv: &str| {
        let request = server.request(reqwest::Method::POST, "/api/printer-keys/import");
        server.send(request.header("content-type", "text/csv").body(csv.to_owned())).await
    };
    let made = import("user_id,printer_id,api_key\nuser-1,p-1,its-own-key\nuser-1,p-2,\nuser-2,,\n")
        .await
        .expect(201);
    assert_eq!(made["created"], 3);
    let made_up = made["made_up"].as_array().unwrap();
    assert_eq!(made_up.iter().map(|key| &key["line"]).collect::<Vec<_>>(), [3, 4]);
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await);
    assert!(is_in(&server, "user-1", "p-2", made_up[0]["api_key"].as_str()).await);
    assert!(is_in(&server, "user-2", "p-9", made_up[1]["api_key"].as_str()).await);
    for (csv, status, said) in [
        ("user_id,printer_id,api_key\nuser-1,p-3,good-enough\nuser-1,p-1,good-enough\n", 409, "line 3"),
        ("user_id,printer_id,api_key\nuser-1,p-3,short\n", 422, "line 2, api_key must have 8 to 256"),
        ("user_id,printer_id,api_key\n,p-3,good-enough\n", 422, "line 2, user_id"),
        ("user_id,printer_id,api_key\n", 422, "has no lines"),
        ("printer\np-3\n", 422, "line 2"),
        ("user_id,printer_id,api_key\nuser-1,p-3,good-enough,more\n", 422, "line 2"),
    ] {
        let problem = import(csv).await.expect(status);
        assert!(problem.to_string().contains(said), "{problem}");
    }
    assert_eq!(server.get("/api/printer-keys").await.expect(200)["total"], 3, "half of an import stays");
    let request = server.request(reqwest::Method::POST, "/api/printer-keys/import").json(&json!({}));
    server.send(request).await.expect(415);
    server.stop().await;
}

#[sqlx::test]
async fn a_blocked_printer_stays_outside_whatever_it_shows(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "open")]).await;
    let mut socket = enters(&server, "user-1", "p-1", None).await.unwrap();
    let blocked = server.post("/api/printers/p-1/block", &json!({})).await.expect(200);
    assert!(blocked["blocked_at"].is_string() && blocked["online"] == false, "{blocked}");
    assert!(socket.is_closed().await);
    assert!(!is_in(&server, "user-1", "p-1", Some(KEY)).await);
    assert!(is_in(&server, "user-1", "p-2", None).await);
    assert_eq!(
        server.post("/api/printers/p-1/unblock", &json!({})).await.expect(200)["blocked_at"],
        Value::Null
    );
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await);
    server.stop().await;
}

#[sqlx::test]
async fn wrong_keys_cost_no_query_and_keep_nobody_out_who_is_known(pool: PgPool) {
    let settings = [("PRINTER_AUTH", "enroll"), ("WRONG_PRINTER_KEYS_PER_ADDRESS", "5")];
    let server = Server::with(pool, &settings).await;
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await);
    for guess in 0..8 {
        assert!(!is_in(&server, "user-1", "p-1", Some(&format!("guess-{guess}"))).await);
    }
    // The address guesses: even a printer that could enroll is not heard, but one that is known is.
    assert!(!is_in(&server, "user-1", "p-2", Some("a-fresh-key")).await);
    assert!(is_in(&server, "user-1", "p-1", Some(KEY)).await);
    server.stop().await;
}

#[sqlx::test]
async fn no_browser_page_and_no_cookie_opens_a_socket(pool: PgPool) {
    let settings = [("CORS_ALLOWED_ORIGINS", "https://console.example.com"), ("PRINTER_AUTH", "enroll")];
    let server = Server::with(pool, &settings).await;
    for origin in [
        "https://evil.example",
        "null",
        "http://console.example.com",
        "file:///etc/passwd",
        "https://console.example.com.evil.example",
    ] {
        assert_eq!(Socket::open(&server, "user-1", &[("origin", origin)]).await.err(), Some(403), "{origin}");
    }
    for origin in ["file://", "https://console.example.com"] {
        assert!(Socket::open(&server, "user-1", &[("origin", origin)]).await.is_ok(), "{origin}");
    }
    let mut socket =
        Socket::open(&server, "user-1", &[("cookie", "__Host-paperminder=anything; api_key=its-own-key")])
            .await
            .unwrap();
    socket.say(&subscribe("p-1", None)).await;
    let Some(Message::Text(text)) = socket.hear().await else { panic!("not refused") };
    assert!(text.contains("unauthorized"), "{text}");
    server.stop().await;
}

#[sqlx::test]
async fn thresholds_can_be_told_to_leave_out_who_shows_a_shared_key(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "registered"), ("MAX_ATTEMPTS", "1")]).await;
    server.release("1.5.0", "stable").await;
    let make =
        async |body: Value| server.post("/api/printer-keys", &body).await.expect(201)["api_key"].clone();
    let shared = make(json!({"user_id": "demo"})).await;
    let mut printers = Vec::new();
    for index in 0..6 {
        let mut printer = server.printer(index);
        let (key, fate) = match index {
            0..3 => (shared.clone(), Fate::FailDownload),
            _ => (
                make(json!({"user_id": "demo", "printer_id": printer.identity.label()})).await,
                Fate::Install,
            ),
        };
        printer.identity.api_key = Some(key.as_str().unwrap().into());
        printer.behaviour = Behaviour::Always(fate);
        printers.push(printer);
    }
    let fleet = Fleet::start(FleetOptions::from(printers)).unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 6).await;
    let body = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate", "own_keys_only": true,
        "abort_on": {"failure_rate": 10, "min_sample": 1}});
    let rollout = server.rollout(body).await;
    let path = format!("/api/rollouts/{}", rollout["number"]);
    let ended = |rollout: &Value| rollout["failed_count"] == 3 && rollout["confirmed_count"] == 3;
    let ended = server.wait(&path, ended).await;
    assert_eq!((&ended["failed_count"], &ended["confirmed_count"]), (&json!(3), &json!(3)), "{ended}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.get(&path).await.expect(200)["status"], "completed", "three that share a key ended it");
    let marked = ended["targets"].as_array().unwrap().iter().filter(|target| target["shared_key"] == true);
    assert!(marked.clone().count() == 3 && marked.into_iter().all(|target| target["status"] == "failed"));
    fleet.stop().await;
    server.stop().await;
}

#[sqlx::test]
async fn nobody_takes_over_a_printer_of_another_user(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "registered")]).await;
    let make = async |user: &str| {
        server.post("/api/printer-keys", &json!({"user_id": user})).await.expect(201)["api_key"].clone()
    };
    let (a, b) = (make("user-a").await, make("user-b").await);
    assert!(is_in(&server, "user-a", "p-1", a.as_str()).await);
    assert!(
        !is_in(&server, "user-b", "p-1", b.as_str()).await,
        "a key of one user opens a printer of another"
    );
    assert_eq!(server.get("/api/printers/p-1").await.expect(200)["user_id"], "user-a");
    // An administrator gives it to the other user by making its key there, and the old socket is closed.
    let mut socket = enters(&server, "user-a", "p-1", a.as_str()).await.unwrap();
    let own = json!({"user_id": "user-b", "printer_id": "p-1", "api_key": KEY});
    server.post("/api/printer-keys", &own).await.expect(201);
    assert!(socket.is_closed().await);
    assert!(is_in(&server, "user-b", "p-1", Some(KEY)).await);
    assert_eq!(server.get("/api/printers/p-1").await.expect(200)["user_id"], "user-b");
    server.stop().await;
}

#[sqlx::test]
async fn a_deleted_shared_key_does_not_enroll_and_a_socket_does_not_outlive_its_key(pool: PgPool) {
    let server = Server::with(pool, &[("PRINTER_AUTH", "enroll")]).await;
    let shared = server.post("/api/printer-keys", &json!({"user_id": "user-1"})).await.expect(201);
    let key = shared["api_key"].as_str().unwrap();
    let mut socket = enters(&server, "user-1", "p-1", Some(key)).await.unwrap();
    let own = server
        .post("/api/printer-keys", &json!({"user_id": "user-1", "printer_id": "p-1", "api_key": KEY}))
        .await
        .expect(201);
    assert!(
        socket.is_closed().await,
        "a socket that came in with the shared key stays beside a key of its own"
    );
    let mut socket = enters(&server, "user-1", "p-1", Some(KEY)).await.unwrap();
    let rotate = format!("/api/printer-keys/{}/rotate", own["id"].as_str().unwrap());
    server.post(&rotate, &json!({"overlap_seconds": 0})).await.expect(200);
    assert!(socket.is_closed().await, "a socket outlives a key that opens nothing any more");
    server.delete(&format!("/api/printer-keys/{}", shared["id"].as_str().unwrap())).await.expect(204);
    assert!(!is_in(&server, "user-1", "p-2", Some(key)).await, "a deleted key is bound to a printer");
    assert!(is_in(&server, "user-1", "p-2", Some("a-key-of-its-own")).await);
    assert!(!is_in(&server, "user-1", "p-3", Some("")).await, "nothing is a key");
    server.stop().await;
}
