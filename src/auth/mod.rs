//! Who may call REST, and what they may do.
//!
//! A layer, not a handler's memory: everything under `/api` is closed unless `AUTH=off` says otherwise. Whoever calls shows
//! exactly one thing ([`access`]): a key ([`key`]), whose row gives it a role; a token of an OpenID issuer ([`oidc`]), whose
//! claims do; or a session ([`session`]), which remembers one of them. The operation that the route belongs to needs a
//! right, and an operation that nobody gave one is closed to all ([`role`]).

pub mod access;
pub mod db;
pub mod http;
pub mod key;
pub mod oidc;
pub mod role;
mod scope;
pub mod session;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{PgPool, Postgres, Transaction};
use utoipa::openapi::OpenApi;

pub use self::access::Access;
use self::key::{Fingerprint, KeyId};
use self::role::{Right, Role};
pub use self::scope::Scope;
use self::session::{Session, cookie};
use crate::audit::{self, Actor};
use crate::clock::Clock;
use crate::http::ClientIp;
use crate::http::log::{self, TraceId};
use crate::http::problem::{self, Problem};
use crate::idempotency::Once;

/// How long a row is believed: what was revoked anywhere opens nothing here after this.
const BELIEVED: Duration = Duration::from_secs(1);
/// Rows that are remembered at once.
const REMEMBERED: u64 = 10_000;

/// The name of everybody while authentication is off.
pub const ANONYMOUS: &str = "anonymous";
/// The operation whose answer does not end by itself: it ends with the key, token or session that opened it.
const ENDLESS: &str = "watchEvents";

/// Whoever made a request; handlers find it in its extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is, for the trail: `anonymous` without authentication, `bootstrap`, `key <id>`, `person <mail address>` or
    /// `subject <sub>`.
    pub actor: Actor,
    /// The key, where it is one that has a row.
    pub key: Option<KeyId>,
    /// What it may do.
    pub role: Role,
    /// How much of the fleet it sees.
    pub scope: Arc<Scope>,
    /// The request may be sent again.
    pub once: Option<Arc<Once>>,
}

impl Caller {
    /// Somebody who may do everything everywhere.
    pub fn admin(name: &str) -> Self {
        Self { actor: Actor::named(name), key: None, role: Role::Admin, scope: Arc::default(), once: None }
    }

    /// Begins a transaction whose changes are this caller's.
    pub async fn begin(&self, pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut tx = audit::begin(pool, &self.actor).await?;
        if let Some(once) = &self.once {
            once.claim(&mut tx).await?;
        }
        Ok(tx)
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
    access: Option<Arc<Access>>,
    /// By method and route: the operation, and what it needs.
    operations: HashMap<(Method, String), (Arc<str>, Option<Right>)>,
}

/// The keys.
struct Keys {
    bootstrap: Option<Fingerprint>,
    pool: PgPool,
    clock: Clock,
    rows: Cache<KeyId, Option<Arc<db::Key>>>,
}

impl Gate {
    /// For the operations of this document.
    pub fn new(access: Option<Arc<Access>>, document: &OpenApi) -> Self {
        let operations = operations(document).into_iter();
        let operations =
            operations.map(|(method, route, id)| ((method, route.to_owned()), (id.into(), role::needs(id))));
        Self(Arc::new(Inner { access, operations: operations.collect() }))
    }

    fn operation(&self, method: &Method, route: &str) -> Option<&(Arc<str>, Option<Right>)> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.operations.get(&(method.clone(), route.to_owned()))
    }

    /// Whether nobody has to say who they are.
    fn is_open(&self, method: &Method, route: &str) -> bool {
        self.operation(method, route).is_some_and(|(_, needs)| *needs == Some(Right::Open))
    }

    async fn caller(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(Caller, Option<Session>), Problem> {
        match &self.0.access {
            Some(access) => access.caller(method, headers, true).await,
            None => Ok((Caller::admin(ANONYMOUS), None)),
        }
    }

    /// Ends when what a request showed opens nothing any more.
    async fn until_over(self, headers: HeaderMap) {
        let Some(access) = &self.0.access else { return std::future::pending().await };
        loop {
            tokio::time::sleep(BELIEVED).await;
            let still = access.caller(&Method::GET, &headers, false).await;
            // A database that is away ends nobody's.
            if still.is_err_and(|problem| problem.is(&problem::UNAUTHORIZED)) {
                return;
            }
        }
    }

    fn admit(&self, caller: &Caller, method: &Method, route: &str) -> Result<(), Problem> {
        // The router answers who asks for a method that the path does not take.
        let Some((operation, needs)) = self.operation(method, route) else { return Ok(()) };
        if let Some(right) = needs.filter(|right| caller.role.may(*right)) {
            let refuse = |why: &str| Problem::new(&problem::FORBIDDEN, format!("{operation} {why}."));
            return right.within(&caller.scope).map_err(refuse);
        }
        let holders = needs.map_or_else(|| "what nobody has".to_owned(), Right::holders);
        let (holder, what) = if caller.key.is_some() { ("The key has", "key") } else { ("You have", "role") };
        let detail = format!(
            "{holder} the role {}, and {operation} needs {holders}; ask an administrator for another {what}.",
            caller.role
        );
        Err(Problem::new(&problem::FORBIDDEN, detail))
    }
}

impl Keys {
    fn new(bootstrap: Option<&SecretString>, pool: &PgPool, clock: &Clock) -> Self {
        Self {
            bootstrap: bootstrap.map(|key| Fingerprint::of(key.expose_secret())),
            pool: pool.clone(),
            clock: clock.clone(),
            rows: Cache::builder().max_capacity(REMEMBERED).time_to_live(BELIEVED).build(),
        }
    }

    /// Whoever holds this key.
    async fn find(&self, given: &str) -> Result<Option<Caller>, Problem> {
        let fingerprint = Fingerprint::of(given);
        if let Some(caller) = self.open(None, &fingerprint).await? {
            return Ok(Some(caller));
        }
        let Some((id, fingerprint)) = key::parse(given) else { return Ok(None) };
        self.open(Some(id), &fingerprint).await
    }

    /// Whoever holds the key with this id and fingerprint; the bootstrap key has no id.
    async fn open(&self, id: Option<KeyId>, fingerprint: &Fingerprint) -> Result<Option<Caller>, Problem> {
        let Some(id) = id else {
            let is_it = self.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.is(fingerprint.bytes()));
            return Ok(is_it.then(|| Caller::admin("bootstrap")));
        };
        let now = self.clock.now();
        let mut row = self.row(&id).await?;
        // The row may be a second old, and the key may have got another secret since.
        if row.as_ref().is_some_and(|row| row.is_live(now) && !row.opens_to(fingerprint, now)) {
            self.rows.invalidate(&id).await;
            row = self.row(&id).await?;
        }
        let open = row.filter(|row| row.opens_to(fingerprint, now));
        if let Some(row) = open.as_ref().filter(|row| row.is_use_due(now)) {
            let noted = async { db::note_use(&mut *self.pool.acquire().await?, row, now).await };
            noted.await.map_err(|error| Problem::unavailable("The database", error))?;
            self.rows.invalidate(&id).await;
        }
        Ok(open.map(|row| Caller {
            actor: Actor::named(&format!("key {id}")),
            key: Some(id),
            role: row.role,
            scope: Arc::new(row.scope.clone()),
            once: None,
        }))
    }

    async fn row(&self, id: &KeyId) -> Result<Option<Arc<db::Key>>, Problem> {
        let read = async {
            let row = db::get(&mut *self.pool.acquire().await?, Scope::ALL, id).await;
            row.map(|row| row.map(Arc::new))
        };
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
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if gate.is_open(request.method(), route) {
        return next.run(request).await;
    }
    let (mut caller, session) = match gate.caller(request.method(), request.headers()).await {
        Err(problem) => return refusal(problem, request.headers()),
        Ok(found) => found,
    };
    let admitted = gate.admit(&caller, request.method(), route);
    let operation = gate.operation(request.method(), route).map(|(operation, _)| operation.clone());
    let is_endless = operation.as_deref() == Some(ENDLESS);
    let shown = is_endless.then(|| request.headers().clone());
    let extensions = request.extensions();
    let address = extensions.get::<ClientIp>().map(|client| client.0);
    let trace_id = extensions.get::<TraceId>().map(|trace| trace.0.clone());
    caller.actor = Actor { address, operation, trace_id, ..caller.actor };
    let actor = log::Actor(caller.actor.name.to_string());
    request.extensions_mut().insert(caller);
    session.map(|session| request.extensions_mut().insert(session));
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(actor);
    match shown {
        Some(headers) => response.map(|body| {
            Body::from_stream(body.into_data_stream().take_until(Box::pin(gate.until_over(headers))))
        }),
        None => response,
    }
}

/// Takes the cookie of a session that is over away, or it would stand beside every key that the browser sends.
fn refusal(problem: Problem, headers: &HeaderMap) -> Response {
    let is_over = problem.is(&problem::UNAUTHORIZED) && given(headers).is_empty();
    let mut response = problem.into_response();
    if is_over && !cookie::values(headers, cookie::SESSION).is_empty() {
        response.headers_mut().append(header::SET_COOKIE, cookie::clear(cookie::SESSION));
    }
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
