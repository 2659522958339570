//! What the issuer publishes: where its parts are, and its keys. Read when it is first needed, and again when it is old or
//! a token names a key that is not in it. An issuer that is away stops nobody whose token is signed with a key that was
//! read before.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use chrono::TimeDelta;
use jsonwebtoken::jwk::Jwk;
use reqwest::{Client, RequestBuilder, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::clock::{Clock, Time};
use crate::config::is_private;

/// How long what was read is believed, as long as the issuer answers.
const BELIEVED: TimeDelta = TimeDelta::minutes(10);
/// How long it is believed while the issuer is away.
const BELIEVED_ALONE: TimeDelta = TimeDelta::hours(24);
/// Shortest time between two tries, whatever tokens name.
const PAUSE: TimeDelta = TimeDelta::seconds(5);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const LARGEST: usize = 256 << 10;
/// Most keys that are kept.
const MOST_KEYS: usize = 100;

/// The issuer does not answer, or not as it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Away {
    /// Nothing that can be read.
    #[error("{0}")]
    Silent(String),
    /// An answer that is none.
    #[error("{what} cannot be read: it answers {status}")]
    Says {
        /// What was asked for.
        what: &'static str,
        /// The status of HTTP.
        status: u16,
    },
}

/// Where the issuer's parts are (OpenID Connect Discovery, section 3).
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    issuer: String,
    jwks_uri: Url,
    /// Where people log in; an issuer for machines has none.
    pub authorization_endpoint: Option<Url>,
    /// Where codes are exchanged.
    pub token_endpoint: Option<Url>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether it names itself when it sends somebody back (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Whether a client's secret goes into the form, because the issuer does not take it in the header.
    pub fn secret_in_form(&self) -> bool {
        self.token_endpoint_auth_methods_supported.as_ref().is_some_and(|methods| {
            !methods.iter().any(|method| method == "client_secret_basic")
                && methods.iter().any(|method| method == "client_secret_post")
        })
    }
}

/// What was read.
pub struct Known {
    /// Where its parts are.
    pub metadata: Metadata,
    /// What it signs with.
    pub keys: Vec<Jwk>,
    read_at: Time,
}

/// The issuer, as far as it is known.
pub struct Issuer {
    name: String,
    client: Client,
    clock: Clock,
    known: RwLock<Option<Arc<Known>>>,
    /// When it was last tried; whoever holds it tries.
    tried: Mutex<Option<Time>>,
}

impl Issuer {
    /// Not asked yet.
    pub fn new(name: &str, clock: &Clock) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(PATIENCE / 2)
            .timeout(PATIENCE);
        Ok(Self {
            name: name.to_owned(),
            client: client.build()?,
            clock: clock.clone(),
            known: RwLock::default(),
            tried: Mutex::default(),
        })
    }

    fn remembered(&self) -> Option<Arc<Known>> {
        // Whoever panicked while writing left what was there before.
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// What it publishes, some minutes old at most while it answers.
    pub async fn known(&self) -> Result<Arc<Known>, Away> {
        let now = self.clock.now();
        match self.remembered() {
            Some(known) if now < known.read_at + BELIEVED => Ok(known),
            // One asks; the others go on with what there is.
            Some(known) if now < known.read_at + BELIEVED_ALONE => match self.tried.try_lock() {
                Err(_) => Ok(known),
                Ok(tried) => Ok(self.read(tried, None).await.unwrap_or(known)),
            },
            _ => self.read(self.tried.lock().await, None).await,
        }
    }

    /// What it publishes, read again because `seen` lacks a key; `seen` itself when it was asked a moment ago.
    pub async fn newer(&self, seen: Arc<Known>) -> Arc<Known> {
        let tried = self.tried.lock().await;
        self.read(tried, Some(&seen)).await.unwrap_or(seen)
    }

    /// Reads it, unless somebody did while we waited for the turn, or a moment ago.
    async fn read(
        &self,
        mut tried: tokio::sync::MutexGuard<'_, Option<Time>>,
        seen: Option<&Arc<Known>>,
    ) -> Result<Arc<Known>, Away> {
        let now = self.clock.now();
        if let Some(known) = self.remembered() {
            let is_new = seen.is_none_or(|seen| !Arc::ptr_eq(seen, &known)) && now < known.read_at + BELIEVED;
            if is_new {
                return Ok(known);
            }
        }
        if tried.is_some_and(|at| now < at + PAUSE) {
            return Err(Away::Silent("it was asked a moment ago".into()));
        }
        let read = self.read_now().await;
        let now = self.clock.now();
        *tried = Some(now);
        match read {
            Ok((metadata, keys)) => {
                let known = Arc::new(Known { metadata, keys, read_at: now });
                *self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(known.clone());
                Ok(known)
            }
            Err(away) => {
                tracing::warn!(issuer = self.name, error = %away, "the OpenID issuer cannot be read");
                Err(away)
            }
        }
    }

    async fn read_now(&self) -> Result<(Metadata, Vec<Jwk>), Away> {
        let address = format!("{}/.well-known/openid-configuration", self.name.trim_end_matches('/'));
        let metadata: Metadata = self.ask(self.client.get(&address), "its discovery document").await?;
        if metadata.issuer != self.name {
            let Metadata { issuer, .. } = metadata;
            return Err(Away::Silent(format!(
                "it calls itself {issuer}; OIDC_ISSUER must be that, to the letter"
            )));
        }
        let parts = [
            Some(&metadata.jwks_uri),
            metadata.authorization_endpoint.as_ref(),
            metadata.token_endpoint.as_ref(),
        ];
        if let Some(open) = parts.into_iter().flatten().find(|url| !is_private(url)) {
            return Err(Away::Silent(format!("it names {open}, which is no https:// URL")));
        }
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = self.ask(self.client.get(metadata.jwks_uri.clone()), "its keys").await?;
        // One key of a kind that nobody knows here does not spoil the others.
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok((metadata, keys.take(MOST_KEYS).collect()))
    }

    /// Sends a request that was made with [`client`](Self::client); `what` names the answer.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        what: &'static str,
    ) -> Result<T, Away> {
        let away = |why: String| Away::Silent(format!("{what} cannot be read: {why}"));
        // The address may hold no secret, but what reqwest says of it is long.
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            let source =
                std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            away(format!("{error}{source}"))
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(Away::Says { what, status: status.as_u16() });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST {
                return Err(away(format!("it has more than {LARGEST} bytes")));
            }
        }
        // What a parser says may repeat what it read.
        serde_json::from_slice(&bytes)
            .map_err(|error| away(format!("it is not what it should be, at byte {}", error.column())))
    }

    /// For requests to it.
    pub fn client(&self) -> &Client {
        &self.client
    }
}
