//! REST of sessions.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Error, Session, cookie};
use crate::auth::role::Role;
use crate::auth::{Caller, Scope};
use crate::http::problem::{self, Common, Problem};
use crate::http::{Body, Json, Params};
use crate::state::AppState;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(log_in, get_session, log_out))
}

/// `POST /api/session`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "pmk_0f3a9c41d27b_…"}))]
pub struct LogIn {
    /// A key of REST.
    #[schema(value_type = String)]
    key: SecretString,
}

/// Who is logged in.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"name": "person ada@example.com", "role": "operator", "scope": {"user_ids": null, "channels": null, "platforms": null},
    "csrf_token": "5d0c1b…", "expires_at": "2026-01-15T22:00:00Z"}))]
pub struct SessionView {
    /// `key <id>`, `bootstrap`, or whom the OpenID provider knows: `person <mail address>` or `subject <sub>`.
    name: String,
    role: Role,
    /// How much of the fleet they see.
    scope: Scope,
    /// Goes as `X-CSRF-Token` with every request of this session that is no GET.
    csrf_token: String,
    /// When it ends, however much it is used. It ends earlier when nobody uses it, and when its key is revoked.
    expires_at: DateTime<Utc>,
}

impl SessionView {
    fn new(caller: &Caller, session: &Session) -> Self {
        Self {
            name: caller.actor.name.to_string(),
            role: caller.role,
            scope: Scope::clone(&caller.scope),
            csrf_token: session.csrf.clone(),
            expires_at: session.expires_at,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error.into(),
            Error::NoChance(error) => error.into(),
        }
    }
}

const NO_STORE: (header::HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Log in with a key. The answer sets a cookie, which opens REST as the key does, and nothing else.
#[utoipa::path(post, path = "/api/session", operation_id = "logIn", tag = "people", request_body = LogIn, security(()),
    responses((status = 201, description = "Logged in; the cookie `__Host-paperminder` is set", body = SessionView),
        (status = 404, description = "Authentication is off", body = Problem, content_type = "application/problem+json"), Common))]
async fn log_in(
    State(app): State<AppState>,
    headers: HeaderMap,
    params: Params,
    Body(body): Body<LogIn>,
) -> Result<Response, Problem> {
    params.finish()?;
    let Some(access) = &app.access else {
        let detail = "Authentication is off, so nobody has to log in.";
        return Err(Problem::new(&problem::LOGIN_OFF, detail));
    };
    access.origins.check(&Method::POST, &headers)?;
    let (caller, who) = access.with_key(&body.key).await?;
    let earlier = cookie::values(&headers, cookie::SESSION);
    let new = access.sessions.begin(&who, earlier.first().copied()).await?;
    tracing::info!(person = %caller.actor.name, "logged in");
    let headers = [NO_STORE, (header::SET_COOKIE, access.sessions.cookie(&new))];
    Ok((StatusCode::CREATED, headers, Json(SessionView::new(&caller, &new.session))).into_response())
}

/// Who is logged in, with what a page needs to change something.
#[utoipa::path(get, path = "/api/session", operation_id = "getSession", tag = "people", security(("session" = [])),
    responses((status = 200, description = "Who is logged in", body = SessionView),
        (status = 404, description = "The request has a key or a token, and no session", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_session(caller: Caller, session: Session, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    Ok(([NO_STORE], Json(SessionView::new(&caller, &session))).into_response())
}

/// Log out. The session opens nothing a second later, on any replica.
#[utoipa::path(delete, path = "/api/session", operation_id = "logOut", tag = "people", security(("session" = [])),
    responses((status = 204, description = "Logged out"),
        (status = 404, description = "The request has a key or a token, and no session", body = Problem, content_type = "application/problem+json"), Common))]
async fn log_out(
    State(app): State<AppState>,
    caller: Caller,
    session: Session,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    if let Some(access) = &app.access {
        access.sessions.end(&session).await?;
    }
    tracing::info!(person = %caller.actor.name, "logged out");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie::clear(cookie::SESSION))]).into_response())
}
