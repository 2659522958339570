//! REST of keys.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::db::{self, Key, Wanted};
use super::key::{KeyId, NewKey, NoChance};
use super::role::Role;
use super::{Caller, Scope};
use crate::clock::Time;
use crate::http::extract::object;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, Problem};
use crate::http::{Body, Json, Params, Segment, cache};
use crate::state::AppState;

/// How long the old secret of a rotated key opens, unless somebody says otherwise.
const OVERLAP: u32 = 24 * 3600;
/// The longest that may be said.
const LONGEST_OVERLAP: u32 = 30 * 24 * 3600;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(who_am_i))
        .routes(routes!(list, create))
        .routes(routes!(get_key, revoke))
        .routes(routes!(rotate))
}

/// A key as REST shows it: never with its secret.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"id": "0f3a9c41d27b", "number": 3, "name": "CI of the firmware", "role": "release", "status": "active",
    "scope": {"user_ids": null, "channels": ["canary", "beta"], "platforms": null}, "created_at": "2026-01-15T10:00:00Z", "created_by": "key 77aa01f2c3d4", "expires_at": "2027-01-15T10:00:00Z", "revoked_at": null,
    "last_used_at": "2026-01-20T08:30:00Z", "previous_until": null}))]
pub struct KeyView {
    /// Between `pmk_` and the secret.
    id: String,
    number: i64,
    name: String,
    role: Role,
    /// `active`, `expired` or `revoked`.
    status: &'static str,
    /// How much of the fleet its holder sees.
    scope: Scope,
    created_at: DateTime<Utc>,
    /// `key <id>`, `bootstrap`, `cli`, or `anonymous` while authentication is off.
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    /// To the minute; null when it never opened anything.
    last_used_at: Option<DateTime<Utc>>,
    /// Until then the secret before the last rotation opens as well.
    previous_until: Option<DateTime<Utc>>,
}

impl KeyView {
    fn new(key: Key, now: Time) -> Self {
        let status = key.status(now);
        Self {
            id: key.id,
            number: key.number,
            name: key.name,
            role: key.role,
            status,
            scope: key.scope,
            created_at: key.created_at,
            created_by: key.created_by,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            previous_until: key.previous_until.filter(|until| now < *until),
        }
    }
}

/// A key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"key": "pmk_0f3a9c41d27b_…", "id": "0f3a9c41d27b", "number": 3, "name": "CI of the firmware", "role": "release",
    "status": "active", "scope": {"user_ids": null, "channels": ["canary", "beta"], "platforms": null},
    "created_at": "2026-01-15T10:00:00Z", "created_by": "key 77aa01f2c3d4", "expires_at": null, "revoked_at": null,
    "last_used_at": null, "previous_until": null}))]
pub struct Shown {
    /// All of it. It is kept nowhere: whoever loses it rotates the key.
    key: String,
    #[serde(flatten)]
    about: KeyView,
}

/// A page of keys.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"keys": [], "total": 0, "next_cursor": null}))]
pub struct KeyList {
    keys: Vec<KeyView>,
    /// Keys on all pages.
    total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// `POST /api/keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "CI of the firmware", "role": "release", "scope": {"channels": ["canary", "beta"]}, "expires_at": "2027-01-15T10:00:00Z"}))]
pub struct CreateKey {
    /// For people: up to 100 characters.
    name: String,
    role: Role,
    /// How much of the fleet its holder sees and touches: everything unless given, and never more than whoever makes it.
    #[serde(default, deserialize_with = "object")]
    scope: Scope,
    /// It opens nothing from then on; never unless given.
    expires_at: Option<DateTime<Utc>>,
}

/// `POST /api/keys/{key_id}/rotate`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct RotateKey {
    /// How long the old secret opens as well: a day unless given, at most 30 days.
    overlap_seconds: Option<u32>,
}

/// Whoever holds the key that was sent.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"name": "key 0f3a9c41d27b", "key_id": "0f3a9c41d27b", "role": "release",
    "scope": {"user_ids": null, "channels": ["canary", "beta"], "platforms": null}}))]
pub struct Me {
    /// `key <id>`, `bootstrap`, or `anonymous` while authentication is off.
    name: String,
    key_id: Option<KeyId>,
    role: Role,
    /// How much of the fleet they see.
    scope: Scope,
}

impl From<NoChance> for Problem {
    fn from(error: NoChance) -> Self {
        Self::internal(error)
    }
}

fn unknown(id: &KeyId) -> Problem {
    Problem::new(&problem::KEY_NOT_FOUND, format!("Key not found: {id}; list the keys with GET /api/keys."))
}

/// Whose key this is.
#[utoipa::path(get, path = "/api/me", operation_id = "whoAmI", tag = "keys",
    responses((status = 200, description = "The holder of the key", body = Me), Common))]
async fn who_am_i(caller: Caller, params: Params) -> Result<Json<Me>, Problem> {
    params.finish()?;
    Ok(Json(Me {
        name: caller.actor.name.to_string(),
        key_id: caller.key,
        role: caller.role,
        scope: Scope::clone(&caller.scope),
    }))
}

/// List keys, without their secrets.
#[utoipa::path(get, path = "/api/keys", operation_id = "listKeys", tag = "keys",
    params(("sort" = Option<String>, Query, description = "number; - in front turns it round"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = KeyList), Common))]
async fn list(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let page = Page::read(&mut params, "keys", db::SORTS, false);
    params.finish()?;
    let (keys, next_cursor, total) = db::list(&mut *app.pool.acquire().await?, &caller.scope, &page).await?;
    let (now, rows, link) = (app.clock.now(), Rows(keys.len()), page.link(next_cursor.as_deref()));
    let keys = keys.into_iter().map(|key| KeyView::new(key, now)).collect();
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &KeyList { keys, total, next_cursor })?)
        .into_response())
}

/// Make a key. Its secret is in the answer and nowhere else.
#[utoipa::path(post, path = "/api/keys", operation_id = "createKey", tag = "keys", request_body = CreateKey,
    responses((status = 201, description = "The key, shown this once", body = Shown), Common))]
async fn create(
    State(app): State<AppState>,
    caller: Caller,
    params: Params,
    Body(body): Body<CreateKey>,
) -> Result<Response, Problem> {
    params.finish()?;
    let now = app.clock.now();
    let wanted =
        Wanted::new(&body.name, body.role, body.scope, body.expires_at, now).map_err(Problem::invalid)?;
    if !caller.scope.contains(wanted.scope()) {
        return Err(Problem::field(
            "scope",
            "reaches further than your own key; GET /api/me tells how far that is",
        ));
    }
    let new = NewKey::generate()?;
    let mut tx = caller.begin(&app.pool).await?;
    let key = db::create(&mut tx, &new, &wanted, &caller.actor.name, now).await?;
    tx.commit().await?;
    tracing::info!(key = %new.id, role = %key.role, "key created");
    Ok(shown(StatusCode::CREATED, &new, key, now))
}

/// One key, without its secret.
#[utoipa::path(get, path = "/api/keys/{key_id}", operation_id = "getKey", tag = "keys", params(("key_id" = String, Path)),
    responses((status = 200, description = "The key", body = KeyView),
        (status = 404, description = "Key not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_key(
    State(app): State<AppState>,
    caller: Caller,
    Segment(id): Segment<KeyId>,
    params: Params,
) -> Result<Json<KeyView>, Problem> {
    params.finish()?;
    let key =
        db::get(&mut *app.pool.acquire().await?, &caller.scope, &id).await?.ok_or_else(|| unknown(&id))?;
    Ok(Json(KeyView::new(key, app.clock.now())))
}

/// Give a key another secret. The old one opens for a while, so that nobody is locked out meanwhile.
#[utoipa::path(post, path = "/api/keys/{key_id}/rotate", operation_id = "rotateKey", tag = "keys", params(("key_id" = String, Path)),
    request_body = RotateKey,
    responses((status = 200, description = "The key with its new secret, shown this once", body = Shown),
        (status = 404, description = "Key not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The key is revoked or expired", body = Problem, content_type = "application/problem+json"), Common))]
async fn rotate(
    State(app): State<AppState>,
    caller: Caller,
    Segment(id): Segment<KeyId>,
    params: Params,
    Body(body): Body<RotateKey>,
) -> Result<Response, Problem> {
    params.finish()?;
    let overlap = body.overlap_seconds.unwrap_or(OVERLAP);
    if overlap > LONGEST_OVERLAP {
        let detail = format!("must be at most {LONGEST_OVERLAP} (30 days), this is {overlap}");
        return Err(Problem::field("overlap_seconds", detail));
    }
    let (now, new) = (app.clock.now(), NewKey::with(id.clone())?);
    let mut tx = caller.begin(&app.pool).await?;
    db::get(&mut tx, &caller.scope, &id).await?.ok_or_else(|| unknown(&id))?;
    let until = now + TimeDelta::seconds(i64::from(overlap));
    match db::rotate(&mut tx, &new, until, now).await? {
        Some(key) => {
            tx.commit().await?;
            tracing::info!(key = %id, overlap, "key rotated");
            Ok(shown(StatusCode::OK, &new, key, now))
        }
        None => Err(Problem::new(
            &problem::KEY_CONFLICT,
            format!("Key {id} opens nothing any more; make a new one with POST /api/keys."),
        )),
    }
}

/// Revoke a key. It opens nothing a second later, on any replica; revoking it again changes nothing.
#[utoipa::path(delete, path = "/api/keys/{key_id}", operation_id = "revokeKey", tag = "keys", params(("key_id" = String, Path)),
    responses((status = 204, description = "The key opens nothing any more"),
        (status = 404, description = "Key not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn revoke(
    State(app): State<AppState>,
    caller: Caller,
    Segment(id): Segment<KeyId>,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.finish()?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    db::get(&mut tx, &caller.scope, &id).await?.ok_or_else(|| unknown(&id))?;
    db::revoke(&mut tx, &id, now).await?;
    tx.commit().await?;
    tracing::info!(key = %id, "key revoked");
    Ok(StatusCode::NO_CONTENT)
}

fn shown(status: StatusCode, new: &NewKey, key: Key, now: Time) -> Response {
    let shown = Shown { key: new.text.expose_secret().to_owned(), about: KeyView::new(key, now) };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(shown)).into_response()
}
