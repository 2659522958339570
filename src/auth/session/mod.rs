//! People who are logged in. The browser holds a random id in a cookie, the database its SHA-256 and who it is, so that
//! every replica knows a login, and none knows it longer than a second after it ended.
//!
//! A session by key is that key, remembered: it opens what the key opens now, and nothing once the secret that was shown
//! opens no more. A session by OpenID Connect holds what the provider said at the login. The cookie is sent by a browser
//! whoever wrote the page, so what changes something needs a second secret, which only our own pages can read:
//! [`csrf`]. It is made of the id, so that nothing has to be kept for it.

pub mod cookie;
mod db;
pub mod http;
mod origin;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;

pub use self::db::sweep;
pub use self::origin::Origins;
use super::key::{Fingerprint, KeyId, NoChance, is_hex, random};
use super::role::Role;
use super::scope::Scope;
use super::{BELIEVED, REMEMBERED};
use crate::clock::{Clock, Time};
use crate::http::problem::{self, Problem};

/// Bytes of an id, which is written in hexadecimal digits.
const ID: usize = 32;
/// How exactly it is kept when somebody was last there.
const USE: Duration = Duration::from_secs(60);
/// Logins of one person at once; a further one ends the oldest.
pub const MOST: i64 = 10;

/// Who logged in.
#[derive(Clone)]
pub enum Who {
    /// Somebody with a key; the bootstrap key has no id.
    Key(Option<KeyId>, Fingerprint),
    /// Somebody whom the OpenID provider knows.
    Person(Person),
}

/// Somebody whom the OpenID provider knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// `oidc <issuer> <sub>`: the same person for ever.
    pub id: String,
    /// What the log calls them.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How much of the fleet they see.
    pub scope: Scope,
}

impl Who {
    fn person(&self) -> String {
        match self {
            Self::Key(Some(id), _) => format!("key {id}"),
            Self::Key(None, _) => "bootstrap".into(),
            Self::Person(person) => person.id.clone(),
        }
    }
}

/// A login that holds. Handlers find it in the request's extensions.
#[derive(Clone)]
pub struct Session {
    /// SHA-256 of what the cookie holds.
    id: Fingerprint,
    /// What must come along with whatever changes something.
    csrf: String,
    /// When it ends, however much it is used.
    expires_at: Time,
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let session = parts.extensions.get::<Self>().cloned();
        let detail = "The request has no session: whoever sends a key, or a token, is not logged in; GET /api/me tells who that is.";
        session.ok_or_else(|| Problem::new(&problem::NO_SESSION, detail))
    }
}

/// A session that was made a moment ago.
pub struct NewSession {
    /// For the cookie, and nowhere else.
    pub id: SecretString,
    /// It.
    pub session: Session,
}

/// All that are logged in.
pub struct Sessions {
    pool: PgPool,
    clock: Clock,
    life: Duration,
    idle: Duration,
    rows: Cache<Vec<u8>, Option<Arc<db::Row>>>,
}

/// What must come along in `X-CSRF-Token`: it follows from the id, and the id does not follow from it.
fn csrf(id: &str) -> String {
    hex::encode(Fingerprint::of(&format!("paperminder-ota csrf token of {id}")).bytes())
}

impl Session {
    /// Whether this is its token, in a time that does not tell how much of it is right.
    pub fn has_token(&self, given: &str) -> bool {
        Fingerprint::of(given).is(Fingerprint::of(&self.csrf).bytes())
    }
}

impl Sessions {
    /// None yet known here.
    pub fn new(pool: &PgPool, clock: &Clock, life: Duration, idle: Duration) -> Self {
        let rows = Cache::builder().max_capacity(REMEMBERED).time_to_live(BELIEVED).build();
        Self { pool: pool.clone(), clock: clock.clone(), life, idle, rows }
    }

    /// Logs somebody in, under an id that nobody had before, and logs out whoever the browser was until now.
    pub async fn begin(&self, who: &Who, earlier: Option<&str>) -> Result<NewSession, Error> {
        let (id, now) = (random::<ID>()?, self.clock.now());
        let session = Session { id: Fingerprint::of(&id), csrf: csrf(&id), expires_at: now + self.life };
        let mut tx = self.pool.begin().await?;
        if let Some(earlier) = earlier {
            db::end(&mut tx, &Fingerprint::of(earlier)).await?;
        }
        db::insert(&mut tx, &session.id, who, &who.person(), now, session.expires_at).await?;
        db::trim(&mut tx, &who.person(), MOST).await?;
        tx.commit().await?;
        if let Some(earlier) = earlier {
            self.rows.invalidate(Fingerprint::of(earlier).bytes()).await;
        }
        Ok(NewSession { id: id.into(), session })
    }

    /// Whose cookie this is; none when it is nobody's, or the login is over. `is_use`: somebody does something, and is not
    /// only listening still.
    pub async fn find(&self, text: &str, is_use: bool) -> Result<Option<(Session, Who)>, Problem> {
        if !is_hex(text, ID) {
            return Ok(None);
        }
        let (id, now) = (Fingerprint::of(text), self.clock.now());
        let read =
            async { db::find(&mut *self.pool.acquire().await?, &id).await.map(|row| row.map(Arc::new)) };
        let row = self.rows.try_get_with(id.bytes().to_vec(), read).await;
        let row = row.map_err(|error: Arc<sqlx::Error>| Problem::unavailable("The database", error))?;
        let Some(row) = row.filter(|row| row.is_live(now, self.idle)) else { return Ok(None) };
        if is_use && now >= row.last_used_at + USE {
            db::touch(&mut *self.pool.acquire().await?, &id, &row, now).await?;
            self.rows.invalidate(id.bytes()).await;
        }
        let session = Session { csrf: csrf(text), expires_at: row.expires_at, id };
        Ok(Some((session, row.who.clone())))
    }

    /// Logs somebody out: here at once, elsewhere a second later.
    pub async fn end(&self, session: &Session) -> Result<(), sqlx::Error> {
        db::end(&mut *self.pool.acquire().await?, &session.id).await?;
        self.rows.invalidate(session.id.bytes()).await;
        Ok(())
    }

    /// The cookie that a browser keeps of it.
    pub fn cookie(&self, new: &NewSession) -> axum::http::HeaderValue {
        cookie::set(cookie::SESSION, new.id.expose_secret(), cookie::SameSite::Strict, self.life)
    }
}

/// Why nobody could be logged in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// No chance.
    #[error(transparent)]
    NoChance(#[from] NoChance),
}
