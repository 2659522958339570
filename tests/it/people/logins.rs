//! Logins through the provider.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::NamedTempFile;
use url::Url;

use super::browser::Browser;
use super::provider::{Key, SECRET};
use super::{BELIEVED, BOOTSTRAP, World, person, refused};
use crate::support::{Answer, Server};

const SESSION: &str = "__Host-paperminder";
const LOGIN: &str = "__Host-paperminder-login";

/// A browser that is about to come back from the provider, and where to.
async fn half_way(server: &Server, return_to: &str) -> (Browser, String) {
    let mut browser = Browser::new();
    let start = server.url(&format!("/auth/login{return_to}"));
    let (back, _) = browser.go(&start, Some(&server.url("/auth/callback"))).await;
    (browser, back)
}

async fn finish(browser: &mut Browser, back: &str) -> Answer {
    browser.ask(Method::GET, back, &[], None).await
}

/// A whole login.
async fn log_in(server: &Server) -> (Browser, Answer) {
    let (mut browser, back) = half_way(server, "?return_to=/console%3Ftab%3Drollouts").await;
    let answer = finish(&mut browser, &back).await;
    (browser, answer)
}

async fn session(browser: &mut Browser, server: &Server) -> Answer {
    browser.ask(Method::GET, &server.url("/api/session"), &[], None).await
}

/// The same URL with another value of a parameter; without it when there is none.
fn with(url: &str, name: &str, value: Option<&str>) -> String {
    let url = Url::parse(url).unwrap();
    let rest: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(rest).extend_pairs(value.map(|value| (name, value)));
    changed.to_string()
}

#[sqlx::test]
async fn somebody_logs_in_and_out_again(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let (server, other) = (&world.server, world.twin().await);
    let (mut browser, answer) = log_in(server).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    assert_eq!(answer.headers["location"].to_str().unwrap(), server.url("/console?tab=rollouts"));
    assert_eq!(answer.headers["referrer-policy"], "no-referrer");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(browser.cookie(&server.url(""), LOGIN), None, "it is used up");
    let who = session(&mut browser, server).await.expect(200);
    assert_eq!((&who["name"], &who["role"]), (&json!("person ada@example.com"), &json!("operator")));
    let me = browser.ask(Method::GET, &server.url("/api/me"), &[], None).await.expect(200);
    assert_eq!((&me["name"], &me["key_id"]), (&who["name"], &Value::Null));
    let why = browser.ask(Method::GET, &server.url("/api/keys"), &[], None).await;
    assert!(refused(why, 403, "forbidden").starts_with("You have the role operator"));
    let token = [("x-csrf-token", who["csrf_token"].as_str().unwrap())];
    // Another replica ends it.
    let cookie = format!("{SESSION}={}", browser.cookie(&server.url(""), SESSION).unwrap());
    let request = other.request(Method::DELETE, "/api/session").header("cookie", cookie);
    other.send(request.header(token[0].0, token[0].1)).await.expect(204);
    tokio::time::sleep(BELIEVED).await;
    refused(session(&mut browser, server).await, 401, "unauthorized");
    other.stop().await;
    world.server.stop().await;
}

#[sqlx::test]
async fn every_kind_of_key_and_client_logs_in(pool: PgPool) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let world = World::new(pool, &[("OIDC_CLIENT_SECRET_FILE", file.path().to_str().unwrap())]).await;
    world.provider.wants_secret(true);
    for (round, key) in [Key::rsa("r"), Key::ed("d"), Key::ec("c")].into_iter().enumerate() {
        world.provider.rotate(key);
        world.clock.advance(Duration::from_secs(6));
        assert_eq!(log_in(&world.server).await.1.status, 303, "key {round}");
    }
    world.provider.wants_secret(false);
    let why = refused(log_in(&world.server).await.1, 400, "login-failed");
    assert!(why.contains("answers 401") && why.contains("OIDC_CLIENT_SECRET_FILE"), "{why}");
    world.server.stop().await;
}

#[sqlx::test]
async fn a_login_belongs_to_one_browser_and_is_ended_once(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let server = &world.server;
    let begin = async || half_way(server, "").await;
    // Somebody else's code, sent to a victim: who has no login, or one of their own.
    let (_, theirs) = begin().await;
    refused(finish(&mut Browser::new(), &theirs).await, 400, "login-failed");
    let (mut victim, own) = begin().await;
    refused(finish(&mut victim, &theirs).await, 400, "login-failed");
    assert!(victim.cookie(&server.url(""), SESSION).is_none());
    // Their code under the victim's own state: the provider wants the other verifier.
    let code =
        Url::parse(&theirs).unwrap().query_pairs().find(|(name, _)| name == "code").unwrap().1.to_string();
    let why = refused(finish(&mut victim, &with(&own, "code", Some(&code))).await, 400, "login-failed");
    assert!(why.contains("answers 400"), "{why}");

    for (name, value) in [("state", Some("0".repeat(64))), ("state", None), ("state", Some(String::new()))] {
        let (mut browser, back) = begin().await;
        refused(finish(&mut browser, &with(&back, name, value.as_deref())).await, 400, "login-failed");
        let twice = format!("{back}&state=x");
        refused(finish(&mut browser, &twice).await, 400, "login-failed");
        // Nothing of this used the login up.
        assert_eq!(finish(&mut browser, &back).await.status, 303);
        // This did, whatever the provider thinks of a second use.
        let why = refused(finish(&mut browser, &back).await, 400, "login-failed");
        assert!(why.contains("ended already"), "{why}");
    }
    let (mut browser, back) = begin().await;
    let copy = browser.clone();
    assert_eq!(finish(&mut browser, &back).await.status, 303);
    let why = refused(finish(&mut copy.clone(), &back).await, 400, "login-failed");
    assert!(why.contains("ended already"), "{why}");

    // Another issuer's answer (RFC 9207), none, no code, a refusal.
    for (name, value, part) in [
        ("iss", Some("https://evil.example"), "issuer"),
        ("iss", None, "issuer"),
        ("code", None, "`code`"),
        ("error", Some("access_denied"), "access_denied"),
        ("error", Some("<script>"), "script"),
    ] {
        let (mut browser, back) = begin().await;
        let why = refused(finish(&mut browser, &with(&back, name, value)).await, 400, "login-failed");
        assert!(why.contains(part) && !why.contains('<') && why.contains("/auth/login"), "{why}");
    }
    let (mut browser, back) = begin().await;
    world.clock.advance(Duration::from_secs(600));
    refused(finish(&mut browser, &back).await, 400, "login-failed");
    world.server.stop().await;
}

#[sqlx::test]
async fn an_id_token_that_is_not_right_logs_nobody_in(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 9] = [
        ("nonce", |claims| claims["nonce"] = json!("of another login")),
        ("nonce", |claims| claims["nonce"] = Value::Null),
        ("audience", |claims| claims["aud"] = json!("another client")),
        ("azp", |claims| claims["azp"] = json!("another client")),
        ("issuer", |claims| claims["iss"] = json!("https://evil.example")),
        ("expired", |claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 31)),
        ("not valid yet", |claims| claims["iat"] = json!(claims["iat"].as_i64().unwrap() + 60)),
        ("at_hash", |claims| claims["at_hash"] = json!("AAAAAAAAAAAAAAAAAAAAAA")),
        ("exp", |claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
    ];
    for (part, change) in changes {
        world.provider.twist(change);
        let (browser, answer) = log_in(&world.server).await;
        let why = refused(answer, 400, "login-failed");
        assert!(why.contains(part), "{part}: {why}");
        assert!(browser.cookie(&world.server.url(""), SESSION).is_none());
    }
    world.provider.honest();
    // Known, and nobody here.
    world.provider.person(person("eve", &["ota-admin", "viewer", "*"]));
    let why = refused(log_in(&world.server).await.1, 403, "not-admitted");
    assert!(why.contains("realm_access.roles") && why.contains("OIDC_ROLES"), "{why}");
    world.provider.person(json!({"realm_access": {"roles": ["ota-ops"]}}));
    refused(log_in(&world.server).await.1, 403, "not-admitted");
    world.server.stop().await;
}

#[sqlx::test]
async fn nobody_is_sent_elsewhere(pool: PgPool) {
    let world = World::new(pool.clone(), &[]).await;
    let server = &world.server;
    for evil in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "evil",
        "",
        "/\r\nSet-Cookie:a=b",
    ] {
        let query: String = url::form_urlencoded::byte_serialize(evil.as_bytes()).collect();
        let answer = server.get(&format!("/auth/login?return_to={query}")).await;
        assert!(refused(answer, 422, "validation").contains("return_to"), "{evil:?}");
    }
    refused(server.get("/auth/login?redirect=/x").await, 422, "validation");
    let left: i64 = sqlx::query_scalar("select count(*) from logins").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
    // Even if such a path got in, it stays behind our own host.
    let (mut browser, back) = half_way(server, "").await;
    sqlx::query("update logins set return_to = '//evil.example'").execute(&pool).await.unwrap();
    let answer = finish(&mut browser, &back).await;
    assert!(answer.headers["location"].to_str().unwrap().starts_with(&server.url("/")));
    world.server.stop().await;
}

#[sqlx::test]
async fn tenants_see_their_printers_only(pool: PgPool) {
    let world = World::new(pool, &[("OIDC_USERS_CLAIM", "tenants")]).await;
    let server = &world.server;
    let mut ada = person("ada", &["ota-ops"]);
    for (tenants, users) in
        [(json!(["user-2", "user-1"]), json!(["user-1", "user-2"])), (json!("*"), Value::Null)]
    {
        ada["tenants"] = tenants;
        world.provider.person(ada.clone());
        let (mut browser, answer) = log_in(server).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        assert_eq!(session(&mut browser, server).await.expect(200)["scope"]["user_ids"], users);
        let me = browser.ask(Method::GET, &server.url("/api/me"), &[], None).await.expect(200);
        assert_eq!(me["scope"]["user_ids"], users);
    }
    ada["tenants"] = json!([]);
    world.provider.person(ada);
    refused(log_in(server).await.1, 403, "not-admitted");
    world.server.stop().await;
}

#[sqlx::test]
async fn a_provider_that_is_away_keeps_nobody_with_a_key_out(pool: PgPool) {
    let clock = super::clock();
    let provider = super::Provider::start(&clock, vec![Key::ec("only")]).await;
    provider.away(true);
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BOOTSTRAP).unwrap();
    let settings = [
        ("AUTH", "on"),
        ("BOOTSTRAP_ADMIN_KEY_FILE", file.path().to_str().unwrap()),
        ("OIDC_ISSUER", provider.issuer.as_str()),
        ("OIDC_CLIENT_ID", super::CLIENT),
        ("OIDC_ROLES", "*=viewer"),
    ];
    let server = Server::on_clock(pool, clock.clone(), &settings).await;
    let mut browser = Browser::new();
    let start = server.url("/auth/login");
    let answer = finish(&mut browser, &start).await;
    assert_eq!(answer.headers["retry-after"], "5");
    let why = refused(answer, 503, "unavailable");
    assert!(why.starts_with("The OpenID provider does not answer"), "{why}");
    server.send(server.request(Method::GET, "/api/me").bearer_auth(BOOTSTRAP)).await.expect(200);
    provider.away(false);
    refused(finish(&mut browser, &start).await, 503, "unavailable");
    clock.advance(Duration::from_secs(6));
    let (mut browser, answer) = log_in(&server).await;
    assert_eq!(answer.status, 303);
    assert_eq!(session(&mut browser, &server).await.expect(200)["role"], "viewer");
    server.stop().await;
}

#[sqlx::test]
async fn a_provider_that_is_not_what_it_says_is_not_listened_to(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let (server, issuer) = (&world.server, &world.provider.issuer);
    for lies in [
        json!({"issuer": "https://evil.example"}),
        json!({"issuer": format!("{issuer}/")}),
        json!({"token_endpoint": "http://evil.example/token"}),
        json!({"authorization_endpoint": "javascript:alert(1)"}),
        json!({"jwks_uri": "http://192.0.2.1/keys"}),
        json!({"jwks_uri": "file:///etc/passwd"}),
        json!({"jwks_uri": null}),
        // More than anybody needs to say.
        json!({"padding": "x".repeat(300 << 10)}),
    ] {
        world.provider.lie(lies);
        world.clock.advance(Duration::from_secs(6));
        refused(finish(&mut Browser::new(), &server.url("/auth/login")).await, 503, "unavailable");
    }
    world.provider.lie(json!({}));
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(log_in(server).await.1.status, 303);
    world.server.stop().await;
}

#[sqlx::test]
async fn without_a_provider_nobody_logs_in_through_one(pool: PgPool) {
    let server = Server::start(pool).await;
    refused(server.get("/auth/login").await, 404, "login-not-configured");
    refused(server.get("/auth/callback?code=a&state=b").await, 404, "login-not-configured");
    refused(server.post("/api/session", &json!({"key": "x"})).await, 404, "login-not-configured");
    refused(server.get("/api/session").await, 404, "no-session");
    server.stop().await;
}
