//! Sessions by key.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::browser::Browser;
use super::{BELIEVED, BOOTSTRAP, ENDED_WITHIN, World, refused, with_key};
use crate::support::{Answer, SOON, Server};

const COOKIE: &str = "__Host-paperminder";

/// Somebody who is logged in.
struct Guest {
    browser: Browser,
    csrf: String,
}

impl Guest {
    async fn log_in(server: &Server, key: &str) -> Self {
        let mut guest = Self { browser: Browser::new(), csrf: String::new() };
        guest.again(server, key).await;
        guest
    }

    /// Logs in in the same browser.
    async fn again(&mut self, server: &Server, key: &str) -> Value {
        let url = server.url("/api/session");
        let session = self.browser.ask(Method::POST, &url, &[], Some(json!({"key": key}))).await.expect(201);
        self.csrf = session["csrf_token"].as_str().unwrap().to_owned();
        session
    }

    async fn get(&mut self, server: &Server, path: &str) -> Answer {
        // Cookies know no ports: what a replica gave, another one gets.
        let value = self.id().to_owned();
        self.browser.cookies.clear();
        let url = server.url(path);
        let host = url.split('/').nth(2).unwrap().to_owned();
        self.browser.cookies.insert((host, COOKIE.into()), value);
        self.browser.ask(Method::GET, &url, &[], None).await
    }

    async fn is_in(&mut self, server: &Server) -> bool {
        let id = self.browser.cookies.clone();
        let status = self.get(server, "/api/me").await.status.as_u16();
        // For the next question, even when the answer took it away.
        self.browser.cookies = id;
        assert!([200, 401].contains(&status), "{status}");
        status == 200
    }

    fn id(&self) -> &str {
        self.browser.cookies.values().next().map_or("", String::as_str)
    }

    async fn make_key(&mut self, server: &Server, headers: &[(&str, &str)]) -> Answer {
        let body = json!({"name": "made in a session", "role": "viewer"});
        self.browser.ask(Method::POST, &server.url("/api/keys"), headers, Some(body)).await
    }
}

#[sqlx::test]
async fn a_key_logs_in_and_the_session_opens_what_the_key_opens(pool: PgPool) {
    let world = World::new(pool.clone(), &[]).await;
    let (server, other) = (&world.server, world.twin().await);
    let key = world.key("operator").await;
    let text = key["key"].as_str().unwrap();
    let mut guest = Guest { browser: Browser::new(), csrf: String::new() };
    let session = guest.again(server, text).await;
    let name = format!("key {}", key["id"].as_str().unwrap());
    assert_eq!((&session["name"], &session["role"]), (&json!(name), &json!("operator")));
    assert_eq!(session["expires_at"], "2026-03-02T00:00:00Z");
    assert!(!session.to_string().contains(guest.id()), "the cookie's secret stands in the body");
    let kept: Vec<Vec<u8>> =
        sqlx::query_scalar("select id_sha256 from sessions").fetch_all(&pool).await.unwrap();
    assert!(kept.len() == 1 && kept[0] != hex::decode(guest.id()).unwrap());
    for replica in [server, &other] {
        let again = guest.get(replica, "/api/session").await;
        assert_eq!(again.headers["cache-control"], "no-store");
        assert_eq!(again.expect(200), session);
        assert_eq!(guest.get(replica, "/api/me").await.expect(200)["key_id"], key["id"]);
        let why = refused(guest.get(replica, "/api/keys").await, 403, "forbidden");
        assert!(why.contains("operator"), "{why}");
    }
    for wrong in ["pmk_000000000000_00", "", BOOTSTRAP.trim_end_matches('s'), &text[..text.len() - 1]] {
        let answer = server.post("/api/session", &json!({"key": wrong})).await;
        assert!(!answer.headers.contains_key("set-cookie"));
        refused(answer, 401, "unauthorized");
    }
    // About a session, and there is none.
    refused(with_key(server, text, Method::GET, "/api/session", None).await, 404, "no-session");
    refused(server.get("/api/session").await, 401, "unauthorized");
    other.stop().await;
    world.server.stop().await;
}

#[sqlx::test]
async fn a_request_shows_one_thing_and_a_strange_cookie_is_none(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let server = &world.server;
    let mut guest = Guest::log_in(server, BOOTSTRAP).await;
    let url = server.url("/api/me");
    for (name, value) in [
        ("authorization", format!("Bearer {BOOTSTRAP}")),
        ("x-api-key", BOOTSTRAP.into()),
        ("authorization", "Basic azo=".into()),
    ] {
        let answer = guest.browser.ask(Method::GET, &url, &[(name, &value)], None).await;
        assert!(!answer.headers.contains_key("set-cookie"), "a login is not ended by a mistake");
        refused(answer, 401, "unauthorized");
    }
    let twice = format!("{COOKIE}={}; {COOKIE}={0}", guest.id());
    refused(
        server.send(server.request(Method::GET, "/api/me").header("cookie", twice)).await,
        401,
        "unauthorized",
    );
    let strange =
        server.request(Method::GET, "/api/me").header("cookie", "theme=dark; paperminder=x; __Host-other=y");
    server.send(strange.bearer_auth(BOOTSTRAP)).await.expect(200);
    for value in ["", "x", &"0".repeat(64), &"A".repeat(64), "%00"] {
        let answer = server
            .send(server.request(Method::GET, "/api/me").header("cookie", format!("{COOKIE}={value}")))
            .await;
        assert!(
            answer.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"),
            "a dead cookie is taken away"
        );
        refused(answer, 401, "unauthorized");
    }
    world.server.stop().await;
}

#[sqlx::test]
async fn what_changes_something_needs_the_token_of_this_session_and_a_page_of_ours(pool: PgPool) {
    let world = World::new(pool, &[("CORS_ALLOWED_ORIGINS", "https://console.example.com")]).await;
    let server = &world.server;
    let (mut guest, stranger) =
        (Guest::log_in(server, BOOTSTRAP).await, Guest::log_in(server, BOOTSTRAP).await);
    let token = guest.csrf.clone();
    let own = server.url("");
    let twice = format!("{token}, {token}");
    let id = guest.id().to_owned();
    let token = token.as_str();
    for headers in [
        &[][..],
        &[("x-csrf-token", "")],
        &[("x-csrf-token", &token[1..])],
        &[("x-csrf-token", &twice)],
        &[("x-csrf-token", token), ("x-csrf-token", token)],
        &[("x-csrf-token", &stranger.csrf)],
        &[("x-csrf-token", &id)],
        &[("x-csrf-token", token), ("sec-fetch-site", "cross-site")],
        &[("x-csrf-token", token), ("origin", "https://evil.example")],
        &[("x-csrf-token", token), ("origin", "null")],
        &[("x-csrf-token", token), ("origin", "http://127.0.0.1")],
    ] {
        refused(guest.make_key(server, headers).await, 403, "csrf");
    }
    let url = server.url("/api/session");
    refused(guest.browser.ask(Method::DELETE, &url, &[], None).await, 403, "csrf");
    for headers in [
        &[("x-csrf-token", token)][..],
        &[("x-csrf-token", token), ("origin", &own), ("sec-fetch-site", "same-origin")],
        &[
            ("x-csrf-token", token),
            ("origin", "https://console.example.com"),
            ("sec-fetch-site", "same-site"),
        ],
    ] {
        guest.make_key(server, headers).await.expect(201);
    }
    let keys = guest.get(server, "/api/keys").await.expect(200);
    assert_eq!(keys["total"], 3, "what was refused changed something");
    // Nobody is logged in by another site either.
    for header in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let login = server
            .request(Method::POST, "/api/session")
            .header(header.0, header.1)
            .json(&json!({"key": BOOTSTRAP}));
        let answer = server.send(login).await;
        assert!(!answer.headers.contains_key("set-cookie"));
        refused(answer, 403, "csrf");
    }
    world.server.stop().await;
}

#[sqlx::test]
async fn a_session_ends_by_logout_by_its_key_and_by_time_on_every_replica(pool: PgPool) {
    let settings = [("SESSION_SECONDS", "3600"), ("SESSION_IDLE_SECONDS", "600")];
    let world = World::new(pool.clone(), &settings).await;
    let (server, other) = (&world.server, world.twin().await);
    let key = world.key("viewer").await;
    let (text, path) = (key["key"].as_str().unwrap(), format!("/api/keys/{}", key["id"].as_str().unwrap()));
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(Guest::log_in(server, text).await);
    }
    for guest in &mut guests {
        assert!(guest.is_in(server).await && guest.is_in(&other).await);
    }
    let [a, b, c] = &mut guests[..] else { panic!() };
    let (id, csrf, url) = (a.browser.clone(), a.csrf.clone(), other.url("/api/session"));
    let cookie = format!("{COOKIE}={}", a.id());
    let out = other
        .send(
            other
                .request(Method::DELETE, "/api/session")
                .header("cookie", &cookie)
                .header("x-csrf-token", &csrf),
        )
        .await;
    assert!(
        out.headers["set-cookie"].to_str().unwrap().starts_with("__Host-paperminder=; Path=/; Max-Age=0"),
        "{url}"
    );
    out.expect(204);
    a.browser = id;
    assert!(!a.is_in(&other).await, "here at once");
    tokio::time::sleep(ENDED_WITHIN).await;
    assert!(!a.is_in(server).await && b.is_in(server).await && c.is_in(&other).await);

    // The secret that was shown is gone: so is what it opened.
    let second = with_key(
        server,
        BOOTSTRAP,
        Method::POST,
        &format!("{path}/rotate"),
        Some(json!({"overlap_seconds": 0})),
    )
    .await
    .expect(200);
    tokio::time::sleep(ENDED_WITHIN).await;
    assert!(!b.is_in(server).await && !c.is_in(&other).await, "the rotated secret's sessions are over");
    let mut d = Guest::log_in(&other, second["key"].as_str().unwrap()).await;
    assert!(d.is_in(server).await && d.is_in(&other).await);
    let cookie = format!("{COOKIE}={}", d.id());
    let watch =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().error_for_status().unwrap();
    let mut streams = vec![
        watch(other.request(Method::GET, "/api/events").header("cookie", cookie)).await,
        watch(server.request(Method::GET, "/api/events").bearer_auth(second["key"].as_str().unwrap())).await,
    ];
    let mut kept = watch(server.request(Method::GET, "/api/events").bearer_auth(BOOTSTRAP)).await;
    with_key(server, BOOTSTRAP, Method::DELETE, &path, None).await.expect(204);
    tokio::time::sleep(ENDED_WITHIN).await;
    for stream in &mut streams {
        let rest = async { while stream.chunk().await.unwrap().is_some() {} };
        tokio::time::timeout(SOON, rest).await.expect("what it opened is over, too");
    }
    let rest = async { while kept.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(BELIEVED, rest).await.expect_err("others go on");
    drop(kept);
    assert!(!d.is_in(server).await && !d.is_in(&other).await, "the revoked key's session is over");

    let mut e = Guest::log_in(server, BOOTSTRAP).await;
    for _ in 0..6 {
        world.clock.advance(Duration::from_secs(599));
        tokio::time::sleep(BELIEVED).await;
        assert!(e.is_in(server).await, "somebody uses it");
    }
    world.clock.advance(Duration::from_secs(3600 - 6 * 599));
    assert!(!e.is_in(server).await, "however much it is used");
    let mut f = Guest::log_in(server, BOOTSTRAP).await;
    world.clock.advance(Duration::from_secs(600));
    assert!(!f.is_in(&other).await, "nobody uses it");
    world.clock.advance(Duration::from_secs(3600));
    paperminder_ota::auth::session::sweep(&mut pool.acquire().await.unwrap(), world.clock.now())
        .await
        .unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from sessions").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
    other.stop().await;
    world.server.stop().await;
}

#[sqlx::test]
async fn a_login_is_new_whatever_the_browser_brought_and_nobody_has_too_many(pool: PgPool) {
    let world = World::new(pool.clone(), &[]).await;
    let server = &world.server;
    let mut guest = Guest::log_in(server, BOOTSTRAP).await;
    // Planted by somebody who knows it: live, or made up.
    let mut planted = Guest { browser: guest.browser.clone(), csrf: guest.csrf.clone() };
    guest.again(server, BOOTSTRAP).await;
    assert!(guest.id() != planted.id() && guest.csrf != planted.csrf, "the session is another one");
    assert!(guest.is_in(server).await && !planted.is_in(server).await, "the earlier one is over");
    let host = server.url("").replace("http://", "");
    let mut made_up = Guest { browser: Browser::new(), csrf: String::new() };
    made_up.browser.cookies.insert((host, COOKIE.into()), "5".repeat(64));
    made_up.again(server, BOOTSTRAP).await;
    assert_ne!(made_up.id(), "5".repeat(64));

    for _ in 0..12 {
        world.clock.advance(Duration::from_secs(1));
        Guest::log_in(server, BOOTSTRAP).await;
    }
    let count: i64 = sqlx::query_scalar("select count(*) from sessions").fetch_one(&pool).await.unwrap();
    assert_eq!(count, 10);
    tokio::time::sleep(BELIEVED).await;
    assert!(!guest.is_in(server).await, "the oldest make room");
    world.server.stop().await;
}

#[sqlx::test]
async fn the_cookie_opens_no_socket_and_no_download(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let server = &world.server;
    let guest = Guest::log_in(server, BOOTSTRAP).await;
    let cookie = format!("{COOKIE}={}", guest.id());
    let ask =
        async |path: &str| server.send(server.request(Method::GET, path).header("cookie", &cookie)).await;
    refused(ask("/d/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await, 404, "link-gone");
    // An upgrade of a route of REST is an ordinary request; one to a printer's socket knows nobody.
    let mut request = server.url("/ws/user-1").replace("http", "ws").into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    socket
        .send(r#"{"kind": "firmware_progress", "percent": 5, "status": "downloading"}"#.into())
        .await
        .unwrap();
    let said = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(said.contains("subscribe_first"), "{said}");
    drop(socket);
    let printers = with_key(server, BOOTSTRAP, Method::GET, "/api/printers", None).await.expect(200);
    assert_eq!(printers["total"], 0);
    world.server.stop().await;
}
