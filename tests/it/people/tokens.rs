//! Tokens of the provider that open REST.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::provider::{CLIENT, Key, Provider, message};
use super::{World, person, refused, with_key};
use crate::support::{Answer, Server};

async fn me(server: &Server, token: &str) -> Answer {
    with_key(server, token, Method::GET, "/api/me", None).await
}

#[sqlx::test]
async fn a_token_of_the_issuer_opens_what_its_claims_say(pool: PgPool) {
    let world = World::new(pool, &[("OIDC_AUDIENCE", "ota.example.com")]).await;
    let (server, provider) = (&world.server, &world.provider);
    let claims = provider.claims("ota.example.com", &person("ada", &["ota-admins", "ota-ops"]));
    for key in 0..3 {
        let who = me(server, &provider.token(key, &claims)).await.expect(200);
        assert_eq!(
            (&who["name"], &who["role"]),
            (&json!("person ada@example.com"), &json!("admin")),
            "key {key}"
        );
    }
    let token = provider.token(0, &claims);
    with_key(server, &token, Method::GET, "/api/keys", None).await.expect(200);
    // Not where keys go, and not beside one.
    let header = server.request(Method::GET, "/api/me").header("x-api-key", &token);
    refused(server.send(header).await, 401, "unauthorized");
    let both =
        server.request(Method::GET, "/api/me").bearer_auth(&token).header("x-api-key", super::BOOTSTRAP);
    refused(server.send(both).await, 401, "unauthorized");
    // A pipeline: its claims are of another shape, and it has no mail address.
    let pipeline = json!({"sub": "repo:acme/printer:ref:refs/heads/main", "realm_access": {"roles": "acme/printer:main"}});
    let who =
        me(server, &provider.token(0, &provider.claims("ota.example.com", &pipeline))).await.expect(200);
    let name = json!("subject repo:acme/printer:ref:refs/heads/main");
    assert_eq!((&who["name"], &who["role"]), (&name, &json!("release")));
    let nobody = provider.claims("ota.example.com", &person("eve", &["acme/printer"]));
    refused(me(server, &provider.token(0, &nobody)).await, 403, "not-admitted");
    // An ID token of the console's login is for the console.
    let id_token = provider.claims(CLIENT, &person("ada", &["ota-admins"]));
    let why = refused(me(server, &provider.token(0, &id_token)).await, 401, "unauthorized");
    assert!(why.contains("audience `ota.example.com`"), "{why}");
    world.server.stop().await;
}

#[sqlx::test]
async fn a_token_that_is_not_right_opens_nothing(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let (server, provider) = (&world.server, &world.provider);
    let admin = person("ada", &["ota-admins"]);
    let claims = provider.claims(CLIENT, &admin);
    let now = world.clock.now().timestamp();
    let changed = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        changed
    };
    for (claims, part) in [
        (changed("iss", json!("https://evil.example")), "issuer"),
        (changed("iss", json!(format!("{}/", provider.issuer))), "issuer"),
        (changed("aud", json!("another")), "audience"),
        (changed("aud", json!([])), "audience"),
        (changed("exp", json!(now - 31)), "expired"),
        (changed("exp", Value::Null), "`exp`"),
        (changed("exp", json!("9999999999")), "`exp`"),
        (changed("nbf", json!(now + 60)), "not valid yet"),
        (changed("iat", json!(now + 60)), "not valid yet"),
    ] {
        let why = refused(me(server, &provider.token(0, &claims)).await, 401, "unauthorized");
        assert!(why.contains(part), "{part}: {why}");
    }
    me(server, &provider.token(0, &claims)).await.expect(200);

    let unsigned =
        |algorithm: &str| format!("{}.", message(&json!({"alg": algorithm, "kid": "first"}), &claims));
    // Who mixes up what a key is for takes a public key for a shared secret.
    let shared = |kid: &str, secret: &[u8]| {
        let message = message(&json!({"alg": "HS256", "kid": kid, "typ": "JWT"}), &claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", BASE64.encode(tag))
    };
    let public = provider.using(Key::public_der);
    let stranger = Provider::start(&world.clock, vec![Key::ec("first"), Key::rsa("second")]).await;
    let own = provider.token(0, &claims);
    let (head, rest) = own.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let other = BASE64.encode(provider.claims(CLIENT, &person("eve", &["ota-admins"])).to_string());
    let inside = provider.using(|key| {
        let mine = Key::ec("mine");
        let mut header = mine.header();
        header["jwk"] = json!({"kty": "EC"});
        header["jku"] = json!("https://evil.example/keys");
        header["kid"] = json!(key.kid);
        mine.sign_as(&header, &claims)
    });
    let crit = provider.using(|key| {
        let mut header = key.header();
        header["crit"] = json!(["exp"]);
        key.sign_as(&header, &claims)
    });
    let wrong_kind = provider.using(|key| {
        let mut header = key.header();
        header["alg"] = json!("RS256");
        key.sign_as(&header, &claims)
    });
    for (what, token) in [
        ("none", unsigned("none")),
        ("None", unsigned("None")),
        ("no signature", unsigned("ES256")),
        ("a shared secret", shared("first", &public)),
        ("a shared secret, RSA", shared("second", &public)),
        ("a stranger's key of that name", stranger.token(0, &claims)),
        ("a stranger's token", stranger.token(0, &stranger.claims(CLIENT, &admin))),
        ("another payload", format!("{head}.{other}.{signature}")),
        ("another signature", format!("{head}.{payload}.{}", BASE64.encode([7; 64]))),
        ("nothing signed with zeros", format!("{head}.{payload}.{}", BASE64.encode([0; 64]))),
        ("a key that it brings", inside),
        ("an extension", crit),
        ("another algorithm of the same key", wrong_kind),
        ("dots", "..".into()),
        ("five parts", format!("{own}.a.b")),
    ] {
        let answer = me(server, &token).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.body);
        let why = refused(answer, 401, "unauthorized");
        assert!(!why.contains(&token), "{what}");
    }
    world.server.stop().await;
}

#[sqlx::test]
async fn keys_are_read_again_when_they_change_and_not_for_every_stranger(pool: PgPool) {
    let world = World::new(pool, &[]).await;
    let (server, provider) = (&world.server, &world.provider);
    let claims = |clock_of: &Provider| clock_of.claims(CLIENT, &person("ada", &["ota-ops"]));
    let old = provider.token(0, &claims(provider));
    me(server, &old).await.expect(200);
    assert_eq!(provider.read(), 1);
    let stranger = Key::ec("nobody's").sign(&claims(provider));
    for _ in 0..20 {
        refused(me(server, &stranger).await, 401, "unauthorized");
    }
    assert_eq!(provider.read(), 1, "read a moment ago");
    world.clock.advance(Duration::from_secs(6));
    for _ in 0..20 {
        refused(me(server, &stranger).await, 401, "unauthorized");
    }
    assert_eq!(provider.read(), 2, "once for all of them");
    provider.rotate(Key::rsa("fourth"));
    world.clock.advance(Duration::from_secs(6));
    me(server, &provider.token(0, &claims(provider))).await.expect(200);
    assert_eq!(provider.read(), 3);
    // What the issuer took back opens nothing, although the token has not expired.
    refused(me(server, &old).await, 401, "unauthorized");

    // It goes away: whom it knew gets in for a day, if the token holds.
    provider.away(true);
    for hours in [1, 22] {
        world.clock.advance(Duration::from_secs(hours * 3600));
        me(server, &provider.token(0, &claims(provider))).await.expect(200);
    }
    world.clock.advance(Duration::from_secs(2 * 3600));
    refused(me(server, &provider.token(0, &claims(provider))).await, 503, "unavailable");
    world.server.stop().await;
}
