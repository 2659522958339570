//! HTTP that is wrong, huge, or two things at once.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::PgPool;

use super::{Heard, exchange};
use crate::support::Server;

/// Longer than the head and the body of a request may take.
const WITHIN: Duration = Duration::from_secs(25);

/// For a connection that the server must end.
const UNTIL_ITS_END: fn(&Heard) -> bool = |_| false;

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: ota\r\n\r\n").into_bytes()
}

fn with(headers: &str) -> Vec<u8> {
    format!("GET /api/firmware HTTP/1.1\r\nHost: ota\r\n{headers}\r\n\r\n").into_bytes()
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST {path} HTTP/1.1\r\nHost: ota\r\n{headers}\r\n\r\n").as_bytes(), body].concat()
}

fn json(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    post("/api/rollouts", &format!("Content-Type: application/json\r\nContent-Length: {}", body.len()), body)
}

fn form(boundary: &str, body: &[u8]) -> Vec<u8> {
    let headers =
        format!("Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {}", body.len());
    post("/api/firmware/upload", &headers, body)
}

/// No name is the server's to tell: either an answer below 500 or the end of the connection.
#[sqlx::test]
async fn nothing_on_the_wire_is_answered_by_5xx_or_silence(pool: PgPool) {
    let server = Server::start(pool).await;
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes));
    for path in [
        "/api/\0",
        "/api/firmware\0",
        "/api/printers/%00",
        "/api/printers/%ff",
        "/api/printers/%c3%28",
        "/api/printers/%",
        "/api/printers/%zz",
        "/api/printers/%E0%80%80",
        "/api/printers/%F4%90%80%80",
        "/api/printers/..%2f..%2fetc%2fpasswd",
        "/api/../../etc/passwd",
        "//",
        "/api//firmware",
        "*",
        "api/firmware",
        "/api/firmware/%u0031",
        "/api/printers/\u{202e}\u{1f5a8}",
        "/api/printers/e\u{301}",
        "/api/users/%00",
        "/ws/%00",
        "/d/%00",
        "/d/%ff",
        "/docs/problems/%00",
        "/docs/..%2f..%2fCargo.toml",
        "http://evil.example/api/firmware",
        "/api/rollouts/9223372036854775807",
        "/api/rollouts/9223372036854775808",
        "/api/rollouts/-9223372036854775809",
        "/api/rollouts/1e400",
        "/api/rollouts/NaN",
        "/api/printers/99999999999999999999999999",
        "/api/firmware/99999999999999999999.0.0",
        "/api/firmware/18446744073709551615.18446744073709551615.18446744073709551615",
        "/api/printers?limit=99999999999999999999999999",
        "/api/printers?limit=-1",
        "/api/printers?limit=%00",
        "/api/printers?user_id=%00",
        "/api/printers?user_id=%ff",
        "/api/printers?cursor=%00",
        "/api/printers?cursor=AAAA",
        "/api/printers?cursor=eyJrIjoiIiwibiI6OTIyMzM3MjAzNjg1NDc3NTgwOCwiZiI6IiJ9",
        "/api/printers?%00=%00",
        "/api/updates?error=%00",
        "/api/updates?error=%25%25%5c",
        "/api/updates?started_after=9999-12-31T23:59:60Z",
        "/api/updates?started_after=-262144-01-01T00:00:00Z",
        "/api/updates?started_after=%2B262143-12-31T23:59:59Z",
        "/api/updates?firmware_version=%00",
        "/api/firmware?sort=%00",
        "/api/stats?%f0%9f",
        "/api/events?kind=%00",
        "/api/events?last_event_id=99999999999999999999-99999999999999999999",
        "/api/printers/export?format=%00",
    ] {
        add(path, get(path));
    }
    for length in [2_000, 30_000, 70_000, 200_000] {
        add("a long path", get(&format!("/api/printers/{}", "a".repeat(length))));
        add("a long query", get(&format!("/api/printers?user_id={}", "%41".repeat(length / 3))));
        add("a long header", with(&format!("X-Long: {}", "a".repeat(length))));
    }
    add("many parameters", get(&format!("/api/printers?{}", "a=b&".repeat(10_000))));
    add("many headers", with(&"X-Many: 1\r\n".repeat(5_000)));
    for header in [
        "X-Nul: a\0b",
        "X-No-Colon",
        "X-Space : a",
        ": empty",
        "X-Fold: a\r\n b",
        "X-Bare: a\n\nb",
        "X-\u{e9}: a",
        "X-Control: \x01",
        "Host: a",
        "Host: b\r\nHost: c",
        "Authorization: Bearer a\r\nAuthorization: Bearer b",
        "Authorization: \u{e9}",
        "X-API-Key: \u{1f511}",
        "Range: bytes=18446744073709551615-0",
        "If-None-Match: \"\"\"\",,,*",
        "If-Match: \u{e9}",
        "traceparent: 00-zz-zz-zz",
        "traceparent: 00-00000000000000000000000000000000-0000000000000000-ff",
        "baggage: =;=,,",
        "Last-Event-ID: -1",
        "Accept: */*;q=9999999999999999",
        "Accept-Encoding: \0",
        "Origin: null",
        "Origin: \u{e9}",
        "Origin: http://[::1",
        "X-Forwarded-For: \u{e9},,,[",
        "Cookie: =;=;\u{1}",
        "Connection: close, keep-alive, upgrade, ,",
        "Expect: 200-maybe",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAAA",
        "Content-Length: 0\r\nContent-Length: 0",
        "Access-Control-Request-Method: \u{e9}",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        add(header, with(header));
    }
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: 0x5",
        "Content-Length: 18446744073709551616",
        "Content-Length: 9223372036854775807",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \tchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length:",
    ] {
        let headers = format!("Content-Type: application/json\r\n{framing}");
        add(framing, post("/api/rollouts", &headers, b"0\r\n\r\n"));
    }
    for chunks in [
        &b"ffffffffffffffff\r\n"[..],
        b"fffffffffffffffff\r\n",
        b"-1\r\n\r\n",
        b"1;\r\nxx\r\n0\r\n\r\n",
        b"5\r\nab",
        b"zz\r\n\r\n",
        b"\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX-Trailer: \0\r\n\r\n",
    ] {
        add(
            "chunks",
            post(
                "/api/rollouts",
                "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close",
                chunks,
            ),
        );
    }
    add(
        "a long chunk extension",
        post(
            "/api/rollouts",
            "Content-Type: application/json\r\nTransfer-Encoding: chunked",
            format!("1;{}\r\n", "a".repeat(100_000)).as_bytes(),
        ),
    );
    let deep = |open: &str, depth: usize| open.repeat(depth);
    for body in [
        deep("[", 33), deep("[", 100_000), deep("{\"a\":", 100_000), format!("{{\"target\":{}", deep("[", 500_000)), "1e999".into(), "-0".into(),
        "{\"rollout_percentage\":1e308}".into(), "{\"rollout_percentage\":99999999999999999999999999999}".into(), "null".into(), "[]".into(), "\u{feff}{}".into(),
        "{\"firmware_version\":\"\\u0000\"}".into(), "{\"firmware_version\":\"\\ud800\"}".into(), "{\"a\":1,\"a\":2}".into(), "{} {}".into(), String::new(),
        "{\"firmware_version\":\"1.5.0\",\"rollout_type\":\"immediate\",\"target\":{\"printer_ids\":[\"\\u0000\"]}}".into(),
        "{\"firmware_version\":\"1.5.0\",\"rollout_type\":\"immediate\",\"target\":{\"user_ids\":[\"\u{1f5a8}\"]}}".into(),
        "{\"firmware_version\":\"1.5.0\",\"rollout_type\":\"scheduled\",\"scheduled_for\":\"+262143-01-01T00:00:00Z\",\"target\":{\"all\":true}}".into(),
        "{\"firmware_version\":\"1.5.0\",\"rollout_type\":\"gradual\",\"stuck_after\":\"99999999999999999999 years\",\"target\":{\"all\":true}}".into(),
        "{\"firmware_version\":\"1.5.0\",\"rollout_type\":\"gradual\",\"confirm_within\":\"584542046090years\",\"target\":{\"all\":true}}".into(),
        "{\"firmware_version\":\"1.5.0\",\"rollout_type\":\"gradual\",\"steps\":[{\"percentage\":1,\"soak\":\"10000000years\"}],\"target\":{\"all\":true}}".into(),
    ] {
        let name: String = body.chars().take(60).collect();
        add(&name, json(body));
    }
    add("no UTF-8", json(b"{\"firmware_version\":\"\xff\xfe\"}"));
    add("a body that is too large", json(vec![b' '; (1 << 20) + 1]));
    add("a text body", post("/api/rollouts", "Content-Type: text/plain\r\nContent-Length: 2", b"{}"));
    for start in [
        "GET / HTTP/0.9",
        "GET /",
        "GET / HTTP/1.0",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/9999999999.1",
        "get / HTTP/1.1",
        "FOO /api/firmware HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "TRACE / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "\u{1f5a8} / HTTP/1.1",
        "PRI * HTTP/2.0",
        "HEAD /api/firmware HTTP/1.1",
        "DELETE /api/firmware HTTP/1.1",
    ] {
        add(start, format!("{start}\r\n\r\n").into_bytes());
        add(start, format!("{start}\r\nHost: ota\r\n\r\n").into_bytes());
    }
    add("a long method", format!("{} / HTTP/1.1\r\nHost: ota\r\n\r\n", "A".repeat(70_000)).into_bytes());
    add("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20));
    add("noise", (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    add("empty lines", b"\r\n".repeat(100_000));
    let handshake = |more: &str| format!("GET /ws/demo HTTP/1.1\r\nHost: ota\r\n{more}\r\n\r\n").into_bytes();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for more in [
        "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAA",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \u{e9}",
    ] {
        add(more, handshake(&format!("{upgrade}{more}")));
    }
    add("no upgrade", handshake("Connection: close"));
    for body in [
        &b""[..], b"--b\r\n\r\n", b"--b--\r\n", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=\"ver\0sion\"\r\n\r\n1.5.0\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=\"version\"\r\n\r\n\xff\xfe\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=\"version\"\r\n\r\n1.5.0\r\n--b\r\nContent-Disposition: form-data; name=\"version\"\r\n\r\n1.6.0\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../etc/passwd\0\"\r\n\r\n\xe9\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name*=UTF-8''%ff\r\n\r\nx\r\n--b--\r\n",
    ] {
        add("a form", form("b", body));
        add("a form that says another boundary", form("c", body));
    }
    add("a long boundary", form(&"b".repeat(5_000), b"--b--\r\n"));
    add(
        "no boundary",
        post("/api/firmware/upload", "Content-Type: multipart/form-data\r\nContent-Length: 2", b"{}"),
    );
    add(
        "headers of a part",
        form("b", format!("--b\r\n{}\r\n\r\nx\r\n--b--\r\n", "X-Many: 1\r\n".repeat(20_000)).as_bytes()),
    );

    let address = server.app().address;
    let answers = cases
        .iter()
        .map(async |(name, bytes)| (name, exchange(address, bytes, WITHIN, Heard::is_answered).await));
    let answers = join_all(answers).await;
    let mut wrong = Vec::new();
    for (name, heard) in &answers {
        let statuses = heard.statuses();
        let silent = statuses.is_empty() && !heard.ended;
        if silent || statuses.iter().any(|status| *status >= 500) {
            let text = String::from_utf8_lossy(&heard.bytes);
            wrong.push(format!("{name:?}: {statuses:?} {}", text.chars().take(900).collect::<String>()));
        }
    }
    assert!(
        answers.len() > 150 && wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        answers.len(),
        wrong.join("\n")
    );
    let all = |name: &str| {
        answers
            .iter()
            .filter(|(known, _)| *known == name)
            .flat_map(|(_, heard)| heard.statuses())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("many headers"), [431]);
    assert!(all("a long header").contains(&431) && all("a long header").contains(&200));
    let deep = answers
        .iter()
        .find(|(name, _)| **name == "[".repeat(33))
        .map(|(_, heard)| String::from_utf8_lossy(&heard.bytes));
    assert!(
        deep.as_ref().is_some_and(|text| text.contains(" 422 ") && text.contains("nests deeper than 32")),
        "{deep:?}"
    );
    assert_eq!(all("Content-Length: 5\r\nContent-Length: 6"), [400]);
    assert_eq!(all("a body that is too large"), [413]);
    server.get("/api/firmware").await.expect(200);
    server.stop().await;
}

/// A proxy that believes Content-Length and we who believe Transfer-Encoding must never see two different requests.
#[sqlx::test]
async fn what_has_two_lengths_is_one_request_at_most(pool: PgPool) {
    let server = Server::start(pool).await;
    let address = server.app().address;
    let hidden = "GET /api/firmware HTTP/1.1\r\nHost: ota\r\n\r\n";
    let both = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ];
    for framing in both {
        let headers = format!("Content-Type: application/json\r\n{framing}");
        let bytes = post("/api/rollouts", &headers, format!("0\r\n\r\n{hidden}").as_bytes());
        let heard = exchange(address, &bytes, WITHIN, UNTIL_ITS_END).await;
        let statuses = heard.statuses();
        assert!(
            statuses.len() == 1 && statuses[0] < 500 && heard.ended,
            "{framing}: {statuses:?}, ended: {}",
            heard.ended
        );
    }
    for framing in [
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Content-Length: 5\r\nContent-Length: 6",
    ] {
        let headers = format!("Content-Type: application/json\r\n{framing}");
        let heard = exchange(
            address,
            &post("/api/rollouts", &headers, format!("0\r\n\r\n{hidden}").as_bytes()),
            WITHIN,
            UNTIL_ITS_END,
        )
        .await;
        assert!(heard.statuses() == [400] && heard.ended, "{framing}: {:?}", heard.statuses());
    }
    server.stop().await;
}

#[sqlx::test]
async fn requests_in_a_row_are_answered_in_a_row(pool: PgPool) {
    let server = Server::start(pool).await;
    let row = get("/api/firmware").repeat(50);
    let all = |heard: &Heard| heard.statuses().len() >= 50;
    let heard = exchange(server.app().address, &row, WITHIN, all).await;
    assert_eq!(heard.statuses(), [200; 50]);
    let old = b"GET /api/firmware HTTP/1.0\r\n\r\n".repeat(2);
    let heard = exchange(server.app().address, &old, WITHIN, UNTIL_ITS_END).await;
    assert!(heard.statuses() == [200] && heard.ended, "HTTP/1.0 keeps no connection: {:?}", heard.statuses());
    server.stop().await;
}

#[sqlx::test]
async fn a_body_that_does_not_come_is_408(pool: PgPool) {
    let server = Server::start(pool).await;
    let headers = "Content-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue";
    let started = std::time::Instant::now();
    let bytes = post("/api/rollouts", headers, b"");
    let mut stream = tokio::net::TcpStream::connect(server.app().address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&408) {
        let heard =
            super::listen(&mut stream, Duration::from_secs(30), |heard| !heard.bytes.is_empty()).await;
        statuses.extend(heard.statuses());
        assert!(!heard.ended || statuses.last() == Some(&408), "{statuses:?}");
    }
    assert_eq!(statuses, [100, 408]);
    assert!((19..26).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    server.stop().await;
}

/// serde takes an array of values for a struct; the document says objects.
#[sqlx::test]
async fn an_array_is_no_object(pool: sqlx::PgPool) {
    let server = crate::support::Server::start(pool).await;
    let rollout = |field: &str, value: serde_json::Value| {
        let mut body = serde_json::json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual"});
        body[field] = value;
        body
    };
    let array = serde_json::json!([null, null]);
    for (path, body) in [
        ("/api/keys", serde_json::json!({"name": "n", "role": "viewer", "scope": array})),
        ("/api/keys", serde_json::json!(["n", "viewer"])),
        ("/api/rollouts", rollout("target", array.clone())),
        ("/api/rollouts", rollout("steps", serde_json::json!([[10, "1h"]]))),
        ("/api/rollouts", rollout("abort_on", serde_json::json!([10, 20]))),
        ("/api/rollouts", rollout("windows", array.clone())),
    ] {
        let problem = server.post(path, &body).await.expect(422);
        assert!(problem["detail"].as_str().unwrap().contains("object"), "{problem}");
    }
    server.stop().await;
}
