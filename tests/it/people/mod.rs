//! People: sessions by key, logins through an OpenID provider, and its tokens.

mod browser;
mod logins;
mod logs;
mod provider;
mod sessions;
mod tokens;

use std::time::Duration;

use chrono::{DateTime, Utc};
use paperminder_ota::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::NamedTempFile;

use self::provider::{CLIENT, Key, Provider};
use crate::support::{Answer, Server};

const BOOTSTRAP: &str = "a-key-of-more-than-24-characters";
/// In force on every replica after this.
const ENDED_WITHIN: Duration = Duration::from_secs(2);
/// Until a replica reads a row again.
const BELIEVED: Duration = Duration::from_millis(1200);

fn clock() -> Clock {
    Clock::manual("2026-03-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap())
}

/// A server with a first key, a provider, and a clock that the test moves.
struct World {
    server: Server,
    provider: Provider,
    clock: Clock,
    settings: Vec<(String, String)>,
    _file: NamedTempFile,
}

fn pairs(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl World {
    async fn new(pool: PgPool, more: &[(&str, &str)]) -> Self {
        let clock = clock();
        let provider =
            Provider::start(&clock, vec![Key::ec("first"), Key::rsa("second"), Key::ed("third")]).await;
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), BOOTSTRAP).unwrap();
        let own = [
            ("AUTH", "on"),
            ("BOOTSTRAP_ADMIN_KEY_FILE", file.path().to_str().unwrap()),
            ("OIDC_ISSUER", &provider.issuer),
            ("OIDC_CLIENT_ID", CLIENT),
            ("OIDC_ROLE_CLAIM", "realm_access.roles"),
            ("OIDC_ROLES", "ota-admins=admin,ota-ops=operator,acme/printer:main=release"),
        ];
        // What comes later wins.
        let mut settings: Vec<(String, String)> = Vec::new();
        for (name, value) in own.iter().chain(more) {
            settings.retain(|(known, _)| known != name);
            settings.push(((*name).into(), (*value).into()));
        }
        let server = Server::on_clock(pool, clock.clone(), &pairs(&settings)).await;
        provider.person(person("ada", &["ota-ops"]));
        Self { server, provider, clock, settings, _file: file }
    }

    async fn twin(&self) -> Server {
        self.server.twin_with(&pairs(&self.settings)).await
    }

    /// A key of this role.
    async fn key(&self, role: &str) -> Value {
        let wanted = json!({"name": format!("{role} of the test"), "role": role});
        with_key(&self.server, BOOTSTRAP, Method::POST, "/api/keys", Some(wanted)).await.expect(201)
    }
}

/// What the provider says of somebody.
fn person(sub: &str, roles: &[&str]) -> Value {
    json!({"sub": sub, "email": format!("{sub}@example.com"), "email_verified": true, "realm_access": {"roles": roles}})
}

async fn with_key(server: &Server, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = server.request(method, path).bearer_auth(key);
    server.send(body.iter().fold(request, |request, body| request.json(body))).await
}

/// The detail of a problem of this kind.
#[track_caller]
fn refused(answer: Answer, status: u16, kind: &str) -> String {
    let problem = answer.expect(status);
    assert_eq!(problem["type"], format!("/docs/problems/{kind}"), "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}
