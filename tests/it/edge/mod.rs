//! The edge to the outside: rates, addresses behind proxies, what browsers are told, HTTPS.

mod rates;
mod tls;

use sqlx::PgPool;

use crate::support::raw::ask;
use crate::support::{Answer, Server};

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

async fn from(server: &Server, path: &str, origin: &str) -> Answer {
    server.send(server.request(reqwest::Method::GET, path).header("origin", origin)).await
}

#[sqlx::test]
async fn every_answer_tells_browsers_to_do_nothing_with_it(pool: PgPool) {
    let server = Server::with(pool, &[("BASE_URL", "https://ota.example.com")]).await;
    for (path, status) in [
        ("/api/firmware", 200),
        ("/api/firmware/9.9.9", 404),
        ("/api/openapi.json", 200),
        ("/api/printers?chanel=beta", 422),
        ("/nowhere", 404),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-opener-policy", "same-origin"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(header(&answer, name), Some(value), "{path}: {name}");
        }
        assert!(header(&answer, "cache-control").is_some_and(|value| value.starts_with("no-")), "{path}");
    }
    let docs = server.get("/docs/").await;
    let policy = header(&docs, "content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let page = docs.body.as_str().unwrap();
    assert!(
        !page.contains("<script>") && !page.contains("onload="),
        "the policy forbids scripts in the page:\n{page}"
    );
    // A device reads every line of the head: it gets those that it needs.
    let link = ask(server.app().address, "GET", "/d/unknown", "HTTP/1.0", "").await;
    assert_eq!((link.status, link.header("content-security-policy")), (404, None));
    let link = ask(server.app().address, "PUT", "/d/unknown", "HTTP/1.0", "").await;
    assert_eq!((link.status, link.header("allow")), (405, Some("GET,HEAD")));
    assert_eq!(link.json()["type"], "/docs/problems/method-not-allowed");
    server.stop().await;
}

#[sqlx::test]
async fn without_https_nobody_is_told_to_insist_on_it(pool: PgPool) {
    let server = Server::start(pool).await;
    assert_eq!(header(&server.get("/api/firmware").await, "strict-transport-security"), None);
    server.stop().await;
}

#[sqlx::test]
async fn only_a_listed_origin_may_send_a_cookie(pool: PgPool) {
    const CONSOLE: &str = "https://console.example.com";
    let server = Server::with(pool.clone(), &[("CORS_ALLOWED_ORIGINS", CONSOLE)]).await;
    let cors = |answer: &Answer| {
        ["access-control-allow-origin", "access-control-allow-credentials"]
            .map(|name| header(answer, name).map(str::to_owned))
    };
    let listed = from(&server, "/api/firmware", CONSOLE).await;
    assert_eq!(cors(&listed), [Some(CONSOLE.into()), Some("true".into())]);
    assert!(header(&listed, "access-control-expose-headers").unwrap().contains("etag"));
    assert!(header(&listed, "vary").unwrap().contains("origin"));
    for other in ["https://evil.example", "null", "https://console.example.com.evil.example"] {
        assert_eq!(cors(&from(&server, "/api/firmware", other).await)[0], None, "{other}");
    }
    let preflight = server
        .request(reqwest::Method::OPTIONS, "/api/rollouts/1")
        .header("origin", CONSOLE)
        .header("access-control-request-method", "PATCH")
        .header("access-control-request-headers", "authorization,content-type");
    let preflight = server.send(preflight).await;
    assert!(preflight.status.is_success());
    assert!(header(&preflight, "access-control-allow-methods").unwrap().contains("PATCH"));
    assert_eq!(header(&preflight, "access-control-allow-headers"), Some("authorization,content-type"));
    server.stop().await;

    let server = Server::with(pool.clone(), &[("CORS_ALLOWED_ORIGINS", "*")]).await;
    assert_eq!(cors(&from(&server, "/api/firmware", CONSOLE).await), [Some("*".into()), None]);
    server.stop().await;
    let server = Server::start(pool).await;
    assert_eq!(cors(&from(&server, "/api/firmware", CONSOLE).await), [None, None]);
    server.stop().await;
}
