//! No secret of a login stands in the log, at whatever level.

use paperminder_ota::clock::Clock;
use paperminder_ota::dev::EmbeddedS3;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::PgPool;

use super::browser::Browser;
use super::provider::{CLIENT, Key, Provider, SECRET};
use super::{BOOTSTRAP, person};
use crate::support::free_address;
use crate::support::process::{ServeProcess, database_url};

#[sqlx::test]
async fn no_secret_of_a_login_stands_in_the_log(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let s3 = EmbeddedS3::start(folder.path(), ([127, 0, 0, 1], 0).into(), &["firmware"]).await.unwrap();
    let provider = Provider::start(&Clock::system(), vec![Key::ec("only")]).await;
    provider.wants_secret(true);
    provider.person(person("ada", &["ota-ops"]));
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret, bootstrap) = (file("client", SECRET), file("key", BOOTSTRAP));
    let (address, database) = (free_address().to_string(), database_url(&pool));
    let base = format!("http://{address}");
    let server = ServeProcess::start(&[
        ("DATABASE_URL", &database),
        ("AWS_ENDPOINT_URL_S3", &s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret()),
        ("LISTEN_ADDR", &address),
        ("BASE_URL", &base),
        ("AUTH", "on"),
        ("BOOTSTRAP_ADMIN_KEY_FILE", &bootstrap),
        ("OIDC_ISSUER", &provider.issuer),
        ("OIDC_CLIENT_ID", CLIENT),
        ("OIDC_CLIENT_SECRET_FILE", &secret),
        ("OIDC_ROLE_CLAIM", "realm_access.roles"),
        ("OIDC_ROLES", "ota-ops=operator"),
        ("RUST_LOG", "info,paperminder_ota=trace"),
    ])
    .await;
    let mut secrets = vec![SECRET.to_owned(), BOOTSTRAP.to_owned()];
    let mut browser = Browser::new();
    let mut half_way = async |secrets: &mut Vec<String>| {
        let (back, _) = browser.go(&server.url("/auth/login"), Some(&server.url("/auth/callback"))).await;
        let url = url::Url::parse(&back).unwrap();
        let pairs = url.query_pairs().filter(|(name, _)| name == "state" || name == "code");
        secrets.extend(pairs.map(|(_, value)| value.into_owned()));
        secrets.extend(browser.cookies.values().cloned());
        (browser.clone(), back)
    };
    let (mut browser, back) = half_way(&mut secrets).await;
    // What fails is logged with its cause.
    for wrong in [back.replace("state=", "state=0"), back.replace("localhost", "evil")] {
        browser.ask(Method::GET, &wrong, &[], None).await.expect(400);
    }
    let (mut browser, back) = half_way(&mut secrets).await;
    assert_eq!(browser.ask(Method::GET, &back, &[], None).await.status, 303);
    let session = browser.ask(Method::GET, &server.url("/api/session"), &[], None).await.expect(200);
    secrets.push(session["csrf_token"].as_str().unwrap().to_owned());
    secrets.extend(browser.cookies.values().cloned());
    let token = provider.token(0, &provider.claims("another", &person("ada", &["ota-ops"])));
    let bearer = format!("Bearer {token}");
    Browser::new()
        .ask(Method::GET, &server.url("/api/me"), &[("authorization", &bearer)], None)
        .await
        .expect(401);
    secrets.push(token);
    let login = Some(json!({"key": BOOTSTRAP}));
    let url = server.url("/api/session");
    Browser::new().ask(Method::POST, &url, &[], login).await.expect(201);
    let wrong = json!({"key": format!("pmk_000000000000_{}", "7".repeat(64))});
    Browser::new().ask(Method::POST, &url, &[], Some(wrong)).await.expect(401);
    secrets.push("7".repeat(64));

    let log = server.log();
    for line in ["logged in", "/auth/callback", "person ada@example.com", "login-failed"] {
        assert!(log.contains(line), "{line} is not in the log");
    }
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} stands in the log:\n{log}");
    }
    server.terminate().await;
    s3.stop().await;
}
