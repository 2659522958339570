//! How it is known who somebody is: by a key, by a token of the OpenID issuer, by a session. Exactly one of them.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;

use super::key::Fingerprint;
use super::oidc::{self, Oidc, looks_like_token};
use super::session::{Origins, Person, Session, Sessions, Who, cookie};
use super::{Caller, Keys, given};
use crate::audit::Actor;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::http::problem::{self, Problem};

/// The header of what must come along with a session.
const CSRF: &str = "x-csrf-token";

/// Everything that tells who somebody is.
pub struct Access {
    keys: Keys,
    /// Who is logged in.
    pub sessions: Sessions,
    /// Whom the issuer knows.
    pub oidc: Option<Oidc>,
    /// Whose pages may log somebody in, and change something.
    pub origins: Origins,
}

impl From<Person> for Caller {
    fn from(person: Person) -> Self {
        Self {
            actor: Actor { identity: person.id.into(), ..Actor::named(&person.name) },
            key: None,
            role: person.role,
            scope: Arc::new(person.scope),
            once: None,
        }
    }
}

fn refused(detail: impl Into<String>) -> Problem {
    Problem::new(&problem::UNAUTHORIZED, detail)
}

fn bad_key() -> Problem {
    refused("The key is not valid; send `Authorization: Bearer <key>` or `X-API-Key: <key>`.")
}

impl Access {
    /// As configured; none when everybody is an administrator.
    pub fn new(config: &Config, pool: &PgPool, clock: &Clock) -> Result<Option<Arc<Self>>, reqwest::Error> {
        let config::Auth::On { admin_key } = &config.auth else { return Ok(None) };
        let people = &config.people;
        let oidc = people.oidc.as_ref().map(|oidc| Oidc::new(oidc, &config.base_url, pool, clock));
        Ok(Some(Arc::new(Self {
            keys: Keys::new(admin_key.as_ref(), pool, clock),
            sessions: Sessions::new(pool, clock, people.session, people.idle),
            oidc: oidc.transpose()?,
            origins: Origins::new(&config.base_url, &config.cors),
        })))
    }

    /// Whoever makes a request, and the session, where it is one. `is_use` as in [`Sessions::find`].
    pub(super) async fn caller(
        &self,
        method: &Method,
        headers: &HeaderMap,
        is_use: bool,
    ) -> Result<(Caller, Option<Session>), Problem> {
        let keys = given(headers);
        match (keys.as_slice(), cookie::values(headers, cookie::SESSION).as_slice()) {
            ([Some(key)], []) => {
                let is_bearer = headers.contains_key(header::AUTHORIZATION);
                self.with(key.trim(), is_bearer).await.map(|caller| (caller, None))
            }
            ([], [cookie]) => {
                let (caller, session) = self.in_session(cookie, is_use).await?;
                self.is_meant(method, headers, &session)?;
                Ok((caller, Some(session)))
            }
            ([None], []) => Err(bad_key()),
            ([], []) => Err(refused(
                "No key was sent; send `Authorization: Bearer <key>` or `X-API-Key: <key>`, or log in.",
            )),
            (_, []) => Err(refused("More than one key was sent; send exactly one.")),
            _ => Err(refused(
                "A key and a session's cookie were sent, or two of them; send exactly one, or log out.",
            )),
        }
    }

    async fn with(&self, text: &str, is_bearer: bool) -> Result<Caller, Problem> {
        if let Some(caller) = self.keys.find(text).await? {
            return Ok(caller);
        }
        let oidc = self.oidc.as_ref().filter(|_| is_bearer && looks_like_token(text));
        let Some(oidc) = oidc else { return Err(bad_key()) };
        let person = oidc.call(text).await.map_err(|error| match error {
            oidc::Error::Bad(bad) => {
                refused(format!("The token is not valid: {bad}; get a new one from the issuer."))
            }
            other => other.into(),
        })?;
        Ok(person.into())
    }

    /// Whoever holds a key, and what a session keeps of it.
    pub async fn with_key(&self, key: &SecretString) -> Result<(Caller, Who), Problem> {
        let key = key.expose_secret().trim();
        let caller = self.keys.find(key).await?.ok_or_else(bad_key)?;
        let who = Who::Key(caller.key.clone(), Fingerprint::of(key));
        Ok((caller, who))
    }

    async fn in_session(&self, cookie: &str, is_use: bool) -> Result<(Caller, Session), Problem> {
        let over = || refused("The session is over; log in again.");
        let (session, who) = self.sessions.find(cookie, is_use).await?.ok_or_else(over)?;
        let caller = match who {
            Who::Person(person) => person.into(),
            Who::Key(id, fingerprint) => self.keys.open(id, &fingerprint).await?.ok_or_else(over)?,
        };
        Ok((caller, session))
    }

    /// Refuses what a page of somebody else may have sent.
    fn is_meant(&self, method: &Method, headers: &HeaderMap, session: &Session) -> Result<(), Problem> {
        if method.is_safe() {
            return Ok(());
        }
        self.origins.check(method, headers)?;
        let mut tokens = headers.get_all(CSRF).iter();
        let token = tokens.next().filter(|_| tokens.next().is_none()).and_then(|token| token.to_str().ok());
        if token.is_some_and(|token| session.has_token(token)) {
            return Ok(());
        }
        let detail =
            "The header X-CSRF-Token is missing, or not this session's; GET /api/session tells `csrf_token`.";
        Err(Problem::new(&problem::CSRF, detail))
    }
}
