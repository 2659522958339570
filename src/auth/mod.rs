//! Who may call REST.
//!
//! A layer, not a handler's memory: everything under `/api` is closed unless `AUTH=off` says otherwise. The keys are
//! compared by their SHA-256 in constant time.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config;
use crate::http::log::Actor;
use crate::http::problem::{self, Problem};

/// The door of `/api`.
#[derive(Clone)]
pub struct Gate(Option<Arc<[u8; 32]>>);

impl Gate {
    /// As configured.
    pub fn new(auth: &config::Auth) -> Self {
        match auth {
            config::Auth::Off => Self(None),
            config::Auth::On { admin_key } => {
                Self(Some(Arc::new(Sha256::digest(admin_key.expose_secret()).into())))
            }
        }
    }

    fn actor(&self, headers: &HeaderMap) -> Result<Actor, Problem> {
        let Some(expected) = &self.0 else { return Ok(Actor("anonymous".into())) };
        let bearer = headers.get_all(header::AUTHORIZATION).iter();
        let bearer = bearer.map(|value| value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")));
        let plain = headers.get_all("x-api-key").iter().map(|value| value.to_str().ok());
        let given: Vec<Option<&str>> = bearer.chain(plain).collect();
        let refuse = |detail: &str| Err(Problem::new(&problem::UNAUTHORIZED, detail));
        match given.as_slice() {
            [Some(key)] if bool::from(Sha256::digest(key.trim()).as_slice().ct_eq(expected.as_slice())) => {
                Ok(Actor("admin".into()))
            }
            [_] => refuse("The key is not valid; send `Authorization: Bearer <key>` or `X-API-Key: <key>`."),
            [] => refuse("No key was sent; send `Authorization: Bearer <key>` or `X-API-Key: <key>`."),
            _ => refuse("More than one key was sent; send exactly one."),
        }
    }
}

/// The middleware.
pub async fn require(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    match gate.actor(request.headers()) {
        Err(problem) => problem.into_response(),
        Ok(actor) => {
            request.extensions_mut().insert(actor.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(actor);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&'static str, &str)]) -> Result<String, String> {
        let gate = Gate::new(&config::Auth::On { admin_key: "0123456789abcdef01234567".to_owned().into() });
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        gate.actor(&headers).map(|actor| actor.0).map_err(|problem| problem.detail)
    }

    #[test]
    fn exactly_one_right_key_opens_the_door() {
        assert_eq!(ask(&[("authorization", "Bearer 0123456789abcdef01234567")]), Ok("admin".into()));
        assert_eq!(ask(&[("x-api-key", "0123456789abcdef01234567")]), Ok("admin".into()));
        assert!(ask(&[]).unwrap_err().contains("No key"));
        assert!(ask(&[("x-api-key", "0123456789abcdef01234568")]).unwrap_err().contains("not valid"));
        assert!(
            ask(&[("authorization", "Basic 0123456789abcdef01234567")]).unwrap_err().contains("not valid")
        );
        let both =
            [("x-api-key", "0123456789abcdef01234567"), ("authorization", "Bearer 0123456789abcdef01234567")];
        assert!(ask(&both).unwrap_err().contains("More than one"));
    }
}
