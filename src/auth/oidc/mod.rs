//! People and pipelines whom an OpenID Connect issuer knows.
//!
//! Two ways in, one rule. A person logs in ([`login`]): the browser goes to the issuer and comes back with a code, which
//! is worth an ID token only together with what the database keeps of this login, and only in the browser that began it.
//! A pipeline, or whoever has a token already, sends it with each request ([`Oidc::call`]). Both tokens must be signed
//! with a key that the issuer publishes ([`issuer`]), be made by it for us and for now ([`jwt`]), and say something that
//! has a role here ([`grants`]).
//!
//! A token cannot be taken back: it opens until it expires, and what the issuer says of somebody counts from the next
//! token, or login, on.

mod db;
mod grants;
pub mod http;
mod issuer;
mod jwt;
mod login;

use sqlx::PgPool;

pub use self::grants::Refused;
use self::issuer::{Away, Issuer};
pub use self::jwt::Bad;
use self::jwt::{Claims, Expected, check, header, signed};
pub use self::login::Begun;
use super::key::NoChance;
use super::session::Person;
use crate::clock::Clock;
use crate::config;

/// An issuer, and what its word is worth here.
pub struct Oidc {
    settings: config::Oidc,
    issuer: Issuer,
    pool: PgPool,
    clock: Clock,
    /// Where the issuer sends browsers back to.
    callback: String,
}

/// Why somebody does not get in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The issuer is away.
    #[error("the OpenID provider does not answer as it should: {0}")]
    Away(#[from] Away),
    /// A token is worth nothing.
    #[error("{0}")]
    Bad(#[from] Bad),
    /// Nobody who may come in.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The way back is none of ours.
    #[error("return_to must be a path of this server, as in /console?tab=rollouts")]
    ReturnTo,
    /// Nobody logs in here.
    #[error("OIDC_ISSUER and OIDC_CLIENT_ID are not set")]
    NoLogin,
    /// The provider said no.
    #[error("the provider let nobody in: {0}")]
    Denied(String),
    /// The provider gives nothing for the code.
    #[error(
        "the provider gives no token for the code and answers {0}; if it stays, compare OIDC_CLIENT_ID and OIDC_CLIENT_SECRET_FILE with the provider's settings"
    )]
    Exchange(u16),
    /// Not our login, or not this browser's.
    #[error("this login was ended already, is older than ten minutes, or was begun in another browser")]
    Unknown,
    /// The provider's answer lacks something.
    #[error("the provider's answer has no `{0}`")]
    Lacks(&'static str),
    /// No database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// No chance.
    #[error(transparent)]
    NoChance(#[from] NoChance),
}

impl Oidc {
    /// As configured; the issuer is asked when somebody comes.
    pub fn new(
        settings: &config::Oidc,
        base_url: &str,
        pool: &PgPool,
        clock: &Clock,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            issuer: Issuer::new(&settings.issuer, clock)?,
            settings: settings.clone(),
            pool: pool.clone(),
            clock: clock.clone(),
            callback: format!("{base_url}/auth/callback"),
        })
    }

    /// Whether people can log in.
    pub fn has_login(&self) -> bool {
        self.settings.client.is_some()
    }

    /// Who sends this token with a request.
    pub async fn call(&self, token: &str) -> Result<Person, Error> {
        let (claims, _) = self.read(token, &self.settings.audience).await?;
        Ok(grants::person(&self.settings, &claims)?)
    }

    /// What a token says, when it is the issuer's and made for this audience.
    async fn read(&self, token: &str, audience: &str) -> Result<(Claims, jsonwebtoken::Algorithm), Error> {
        let header = header(token)?;
        let known = self.issuer.known().await?;
        let claims = match signed(token, &header, &known.keys) {
            Err(Bad::UnknownKey) => signed(token, &header, &self.issuer.newer(known).await.keys)?,
            read => read?,
        };
        check(&claims, Expected { issuer: &self.settings.issuer, audience, now: self.clock.now() })?;
        Ok((claims, header.alg))
    }
}

/// Whether a text may be a token, and not a key.
pub fn looks_like_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}
