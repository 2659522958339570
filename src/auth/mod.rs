//! Who may call REST, and what they may do.
//!
//! A layer, not a handler's memory: everything under `/api` is closed unless `AUTH=off` says otherwise. Whoever calls shows
//! exactly one key ([`key`]), whose row gives it a role; the operation that the route belongs to needs a right, and an
//! operation that nobody gave one is closed to all ([`role`]).

pub mod db;
pub mod http;
pub mod key;
pub mod role;
mod scope;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use moka::future::Cache;
use secrecy::ExposeSecret;
use sqlx::{PgPool, Postgres, Transaction};
use utoipa::openapi::OpenApi;

use self::key::{Fingerprint, KeyId};
use self::role::{Right, Role};
pub use self::scope::Scope;
use crate::audit::{self, Actor};
use crate::clock::Clock;
use crate::config;
use crate::http::ClientIp;
use crate::http::log::{self, TraceId};
use crate::http::problem::{self, Problem};

/// How long a row is believed: what was revoked anywhere opens nothing here after this.
const BELIEVED: Duration = Duration::from_secs(1);
/// Rows that are remembered at once.
const REMEMBERED: u64 = 10_000;

/// The name of everybody while authentication is off.
pub const ANONYMOUS: &str = "anonymous";

/// Whoever made a request; handlers find it in its extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is, for the trail.
    pub actor: Actor,
    /// The key, where it is one that has a row.
    pub key: Option<KeyId>,
    /// What it may do.
    pub role: Role,
    /// How much of the fleet it sees.
    pub scope: Arc<Scope>,
}

impl Caller {
    /// Somebody who may do everything everywhere.
    pub fn admin(name: &str) -> Self {
        let actor = Actor { name: name.into(), ..Actor::default() };
        Self { actor, key: None, role: Role::Admin, scope: Arc::default() }
    }

    /// Begins a transaction whose changes are this caller's.
    pub async fn begin(&self, pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        audit::begin(pool, &self.actor).await
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::internal("a route outside of the gate asks who calls"))
    }
}

/// The door of `/api`.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    /// None: everybody is an administrator.
    keys: Option<Keys>,
    /// By method and route: the operation, and what it needs.
    operations: HashMap<(Method, String), (Arc<str>, Option<Right>)>,
}

struct Keys {
    bootstrap: Option<Fingerprint>,
    pool: PgPool,
    clock: Clock,
    rows: Cache<KeyId, Option<Arc<db::Key>>>,
}

impl Gate {
    /// As configured, for the operations of this document.
    pub fn new(auth: &config::Auth, pool: &PgPool, clock: &Clock, document: &OpenApi) -> Self {
        let keys = match auth {
            config::Auth::Off => None,
            config::Auth::On { admin_key } => Some(Keys {
                bootstrap: admin_key.as_ref().map(|key| Fingerprint::of(key.expose_secret())),
                pool: pool.clone(),
                clock: clock.clone(),
                rows: Cache::builder().max_capacity(REMEMBERED).time_to_live(BELIEVED).build(),
            }),
        };
        let operations = operations(document).into_iter();
        let operations =
            operations.map(|(method, route, id)| ((method, route.to_owned()), (id.into(), role::needs(id))));
        Self(Arc::new(Inner { keys, operations: operations.collect() }))
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Some(keys) = &self.0.keys else {
            return Ok(Caller::admin(ANONYMOUS));
        };
        let refuse = |detail: &str| Err(Problem::new(&problem::UNAUTHORIZED, detail));
        let invalid = "The key is not valid; send `Authorization: Bearer <key>` or `X-API-Key: <key>`.";
        let given = match given(headers).as_slice() {
            [Some(key)] => key.trim().to_owned(),
            [None] => return refuse(invalid),
            [] => {
                return refuse("No key was sent; send `Authorization: Bearer <key>` or `X-API-Key: <key>`.");
            }
            _ => return refuse("More than one key was sent; send exactly one."),
        };
        match keys.find(&given).await? {
            Some(caller) => Ok(caller),
            None => refuse(invalid),
        }
    }

    fn operation(&self, method: &Method, route: &str) -> Option<&(Arc<str>, Option<Right>)> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.operations.get(&(method.clone(), route.to_owned()))
    }

    fn admit(&self, caller: &Caller, method: &Method, route: &str) -> Result<(), Problem> {
        // The router answers who asks for a method that the path does not take.
        let Some((operation, needs)) = self.operation(method, route) else {
            return Ok(());
        };
        if let Some(right) = needs.filter(|right| caller.role.may(*right)) {
            let refuse = |why: &str| Problem::new(&problem::FORBIDDEN, format!("{operation} {why}."));
            return right.within(&caller.scope).map_err(refuse);
        }
        let holders = needs.map_or_else(|| "what nobody has".to_owned(), Right::holders);
        let detail = format!(
            "The key has the role {}, and {operation} needs {holders}; ask an administrator for another key.",
            caller.role
        );
        Err(Problem::new(&problem::FORBIDDEN, detail))
    }
}

impl Keys {
    async fn find(&self, given: &str) -> Result<Option<Caller>, Problem> {
        let fingerprint = Fingerprint::of(given);
        if self.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.is(fingerprint.bytes())) {
            return Ok(Some(Caller::admin("bootstrap")));
        }
        let Some((id, fingerprint)) = key::parse(given) else { return Ok(None) };
        let now = self.clock.now();
        let mut row = self.row(&id).await?;
        // The row may be a second old, and the key may have got another secret since.
        if row.as_ref().is_some_and(|row| row.is_live(now) && !row.opens_to(&fingerprint, now)) {
            self.rows.invalidate(&id).await;
            row = self.row(&id).await?;
        }
        let open = row.filter(|row| row.opens_to(&fingerprint, now));
        Ok(open.map(|row| Caller {
            actor: Actor { name: format!("key {id}").into(), ..Actor::default() },
            key: Some(id),
            role: row.role,
            scope: Arc::new(row.scope.clone()),
        }))
    }

    async fn row(&self, id: &KeyId) -> Result<Option<Arc<db::Key>>, Problem> {
        let now = self.clock.now();
        let read =
            async { db::used(&mut *self.pool.acquire().await?, id, now).await.map(|row| row.map(Arc::new)) };
        let row = self.rows.try_get_with(id.clone(), read).await;
        row.map_err(|error: Arc<sqlx::Error>| Problem::unavailable("The database", error))
    }
}

/// Every key that the request carries; none where there is something else.
fn given(headers: &HeaderMap) -> Vec<Option<&str>> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key)
    });
    bearer.chain(headers.get_all("x-api-key").iter().map(|value| value.to_str().ok())).collect()
}

/// The operations of a document: method, route and id.
pub fn operations(document: &OpenApi) -> Vec<(Method, &str, &str)> {
    let mut found = Vec::new();
    for (route, item) in &document.paths.paths {
        for (method, operation) in [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::DELETE, &item.delete),
            (Method::PATCH, &item.patch),
        ] {
            let id = operation.iter().map(|operation| operation.operation_id.as_deref().unwrap_or_default());
            found.extend(id.map(|id| (method.clone(), route.as_str(), id)));
        }
    }
    found
}

/// The middleware.
pub async fn require(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let mut caller = match gate.caller(request.headers()).await {
        Err(problem) => return problem.into_response(),
        Ok(caller) => caller,
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let admitted = gate.admit(&caller, request.method(), route);
    let operation = gate.operation(request.method(), route).map(|(operation, _)| operation.clone());
    let extensions = request.extensions();
    let address = extensions.get::<ClientIp>().map(|client| client.0);
    let trace_id = extensions.get::<TraceId>().map(|trace| trace.0.clone());
    caller.actor = Actor { address, operation, trace_id, ..caller.actor };
    let actor = log::Actor(caller.actor.name.to_string());
    request.extensions_mut().insert(caller);
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(actor);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_document_needs_a_right_and_every_right_is_of_one() {
        let document = crate::app::api().into_openapi();
        let named: Vec<_> = operations(&document).into_iter().map(|(.., id)| id).collect();
        for id in &named {
            assert!(
                role::needs(id).is_some(),
                "{id} is closed to everybody: say in src/auth/role.rs what it needs"
            );
        }
        for id in role::named() {
            assert!(named.contains(&id), "{id} is no operation");
        }
    }

    #[test]
    fn one_key_is_one_key_however_it_is_sent() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            given(&headers).into_iter().map(|key| key.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(read(&[("authorization", "Bearer k")]), [Some("k".into())]);
        assert_eq!(read(&[("authorization", "bearer k")]), [Some("k".into())], "RFC 9110, section 11.1");
        assert_eq!(read(&[("x-api-key", "k")]), [Some("k".into())]);
        assert_eq!(read(&[("authorization", "Basic azo=")]), [None]);
        assert_eq!(read(&[("x-api-key", "k"), ("authorization", "Bearer k")]).len(), 2);
        assert_eq!(read(&[]).len(), 0);
    }
}
