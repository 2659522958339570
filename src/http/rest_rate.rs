//! How often REST may be asked.
//!
//! Whoever shows a key that opened something lately has a rate of its own. Everybody else shares that of the address,
//! and a key that is not known yet costs a turn of a much lower one: that is what guessing meets, before any query.
//! Credentials are remembered as hashes, and only those that were good.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};

use super::client_ip::ClientIp;
use super::log::Actor;
use super::problem::{self, Problem};
use crate::config::RestQuotas;
use crate::rates::Rate;
use crate::telemetry::metrics;

/// Good credentials that are remembered, and for how long after their last use.
const REMEMBERED: u64 = 20_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The headers that credentials stand in.
const CREDENTIALS: [header::HeaderName; 3] =
    [header::AUTHORIZATION, header::HeaderName::from_static("x-api-key"), header::COOKIE];

/// The rates of one replica. Clones share them.
#[derive(Clone)]
pub struct RestRate(Arc<Inner>);

struct Inner {
    keys: Rate,
    addresses: Rate,
    guesses: Rate,
    /// Whose a credential is.
    good: Cache<[u8; 32], Arc<str>>,
}

impl RestRate {
    /// With nobody known yet.
    pub fn new(quotas: RestQuotas) -> Self {
        let good = Cache::builder().max_capacity(REMEMBERED).time_to_idle(REMEMBERED_FOR).build();
        Self(Arc::new(Inner {
            keys: Rate::per_minute(quotas.per_key),
            addresses: Rate::per_minute(quotas.per_address),
            guesses: Rate::per_minute(quotas.wrong_keys),
            good,
        }))
    }

    /// Takes a turn, or refuses.
    async fn enter(&self, client: ClientIp, credential: Option<&[u8; 32]>) -> Result<(), Problem> {
        let rates = &self.0;
        let known = match credential {
            Some(credential) => rates.good.get(credential).await,
            None => None,
        };
        let (took, limit, who) = match (known, credential) {
            (Some(actor), _) => (rates.keys.take(actor), "REQUESTS_PER_KEY", "This key"),
            (None, None) => {
                (rates.addresses.take(client.household()), "REQUESTS_PER_ADDRESS", "This address")
            }
            (None, Some(_)) => {
                let took = rates.guesses.take(client.household());
                (took, "WRONG_KEYS_PER_ADDRESS", "This address, with keys that opened nothing here lately,")
            }
        };
        took.map_err(|wait| {
            metrics::refused(match limit {
                "REQUESTS_PER_KEY" => "request_rate_of_key",
                "REQUESTS_PER_ADDRESS" => "request_rate_of_address",
                _ => "wrong_keys",
            });
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            let detail = format!(
                "{who} asked more often than {limit} allows in a minute; try again in {seconds} seconds."
            );
            Problem { retry_after: Some(seconds), ..Problem::new(&problem::TOO_MANY_REQUESTS, detail) }
        })
    }

    /// What an answer tells about the credential: whose it is, if anybody's.
    async fn learn(&self, credential: [u8; 32], status: StatusCode, actor: Option<Actor>) {
        if status == StatusCode::UNAUTHORIZED {
            self.0.good.invalidate(&credential).await;
        } else if let Some(Actor(actor)) = actor {
            self.0.good.get_with(credential, async { actor.into() }).await;
        }
    }
}

/// A hash of all that the request shows of itself; none when it shows nothing.
fn credential(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut shown = false;
    for (index, name) in CREDENTIALS.iter().enumerate() {
        for value in headers.get_all(name) {
            shown = true;
            hash.update([index as u8]);
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(HeaderValue::as_bytes(value));
        }
    }
    shown.then(|| hash.finalize().into())
}

/// The middleware, outside of the one that looks keys up.
pub async fn limit(State(rate): State<RestRate>, request: Request, next: Next) -> Response {
    // Every request of the public listener has it.
    let Some(client) = request.extensions().get::<ClientIp>().copied() else {
        return Problem::internal("a request without an address").into_response();
    };
    let credential = credential(request.headers());
    if let Err(problem) = rate.enter(client, credential.as_ref()).await {
        return problem.into_response();
    }
    let response = next.run(request).await;
    if let Some(credential) = credential {
        let actor = response.extensions().get::<Actor>().cloned();
        rate.learn(credential, response.status(), actor).await;
    }
    response
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_key: u32, per_address: u32, guesses: u32) -> RestRate {
        let [per_key, per_address, wrong_keys] =
            [per_key, per_address, guesses].map(|most| NonZeroU32::new(most).unwrap());
        RestRate::new(RestQuotas { per_key, per_address, wrong_keys })
    }

    fn key() -> Option<Actor> {
        Some(Actor("key 1".to_owned()))
    }

    const HERE: ClientIp = ClientIp(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[tokio::test]
    async fn a_good_key_has_a_rate_of_its_own_and_guessing_takes_nothing_from_it() {
        let rate = rate(3, 1, 2);
        assert!(rate.enter(HERE, Some(&[1; 32])).await.is_ok(), "the first time is a guess");
        rate.learn([1; 32], StatusCode::OK, key()).await;
        assert!(rate.enter(HERE, Some(&[2; 32])).await.is_ok());
        rate.learn([2; 32], StatusCode::UNAUTHORIZED, None).await;
        let problem = rate.enter(HERE, Some(&[3; 32])).await.unwrap_err();
        assert_eq!(problem.status, 429);
        assert!(problem.detail.contains("WRONG_KEYS_PER_ADDRESS") && problem.retry_after.is_some());
        for _ in 0..3 {
            assert!(rate.enter(HERE, Some(&[1; 32])).await.is_ok());
        }
        let problem = rate.enter(HERE, Some(&[1; 32])).await.unwrap_err();
        assert!(problem.detail.contains("REQUESTS_PER_KEY"), "{}", problem.detail);
        assert!(rate.enter(HERE, None).await.is_ok());
        let problem = rate.enter(HERE, None).await.unwrap_err();
        assert!(problem.detail.contains("REQUESTS_PER_ADDRESS"), "{}", problem.detail);
    }

    #[tokio::test]
    async fn one_key_is_one_rate_however_it_is_sent_and_one_that_died_is_a_guess_again() {
        let rate = rate(2, 9, 3);
        for way in [1, 2] {
            assert!(rate.enter(HERE, Some(&[way; 32])).await.is_ok());
            rate.learn([way; 32], StatusCode::FORBIDDEN, key()).await;
        }
        assert!(rate.enter(HERE, Some(&[1; 32])).await.is_ok());
        assert!(rate.enter(HERE, Some(&[2; 32])).await.is_ok());
        assert!(rate.enter(HERE, Some(&[1; 32])).await.is_err());
        rate.learn([1; 32], StatusCode::UNAUTHORIZED, None).await;
        assert!(rate.enter(HERE, Some(&[1; 32])).await.is_ok(), "the last guess");
        let problem = rate.enter(HERE, Some(&[1; 32])).await.unwrap_err();
        assert!(problem.detail.contains("WRONG_KEYS"), "{}", problem.detail);
    }

    #[test]
    fn a_credential_is_all_of_it_and_nothing_is_none() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            credential(&headers)
        };
        assert_eq!(of(&[("accept", "a")]), None);
        assert_eq!(of(&[("x-api-key", "a"), ("accept", "b")]), of(&[("x-api-key", "a")]));
        assert_ne!(of(&[("x-api-key", "a")]), of(&[("authorization", "a")]));
        assert_ne!(of(&[("x-api-key", "ab")]), of(&[("x-api-key", "a"), ("x-api-key", "b")]));
    }
}
