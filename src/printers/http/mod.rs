//! REST of printers.

mod block;
mod import;
mod keys;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::auth::Caller;
use crate::http::export::{self, Format};
use crate::http::extract::maybe_object;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, FieldError, Problem};
use crate::http::{Body, Params, Segment, cache};
use crate::ids::UserId;
use crate::printers::db::{self, Query};
use crate::printers::owners::{self, Known};
use crate::printers::{Error, Named, Owner, Printer, by_name};
use crate::state::AppState;
use crate::windows::{BadZone, Windows, WindowsBody};
use crate::words::{Channel, Platform};

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(export))
        .routes(routes!(get_printer))
        .routes(routes!(get_user, put_user, delete_user))
        .merge(keys::routes())
        .merge(import::routes())
        .merge(block::routes())
}

/// A page of printers.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"printers": [], "total": 0, "next_cursor": null}))]
pub struct PrinterList {
    printers: Vec<Printer>,
    /// Printers that match, on all pages.
    total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(_) => Self::new(
                &problem::PRINTER_NOT_FOUND,
                format!("Printer not found: {error}; list the printers with GET /api/printers."),
            ),
            Error::Stale(_) => Self::new(
                &problem::PRECONDITION,
                format!("Somebody changed it in the meantime: {error}; GET it again and decide again."),
            ),
            Error::NoKey(_) => keys::no_key(&error),
            Error::Database(error) => error.into(),
        }
    }
}

/// The filters of a list.
fn read(params: &mut Params, caller: &Caller) -> Query {
    Query {
        scope: caller.scope.clone(),
        user_id: params.get::<crate::ids::UserId>("user_id").map(|user| user.to_string()),
        online: params.get("online"),
        firmware_version: params
            .get::<crate::version::Version>("firmware_version")
            .map(|version| version.to_string()),
        channel: params.get("channel"),
        platform: params.get("platform"),
        auto_update: params.get("auto_update"),
    }
}

/// List printers.
#[utoipa::path(get, path = "/api/printers", operation_id = "listPrinters", tag = "printers",
    params(("user_id" = Option<String>, Query), ("online" = Option<bool>, Query), ("firmware_version" = Option<String>, Query),
        ("channel" = Option<Channel>, Query, description = "the channel that the printer follows"), ("platform" = Option<Platform>, Query),
        ("auto_update" = Option<bool>, Query),
        ("sort" = Option<String>, Query, description = "number, printer_name, firmware_version or last_connected; - in front turns it round"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = PrinterList), Common))]
async fn list(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let by = read(&mut params, &caller);
    let page = Page::read(&mut params, "printers", db::SORTS, false);
    params.finish()?;
    let (printers, next_cursor, total) = db::list(&mut *app.pool.acquire().await?, &by, &page).await?;
    let (rows, link) = (Rows(printers.len()), page.link(next_cursor.as_deref()));
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &PrinterList { printers, total, next_cursor })?)
        .into_response())
}

/// Export printers.
///
/// All that match, by number, in one snapshot. A file that breaks off ends its connection with an error.
#[utoipa::path(get, path = "/api/printers/export", operation_id = "exportPrinters", tag = "printers",
    params(("format" = Option<String>, Query, description = "csv, unless given, or ndjson"),
        ("user_id" = Option<String>, Query), ("online" = Option<bool>, Query), ("firmware_version" = Option<String>, Query),
        ("channel" = Option<Channel>, Query, description = "the channel that the printer follows"), ("platform" = Option<Platform>, Query),
        ("auto_update" = Option<bool>, Query)),
    responses((status = 200, description = "The file", content((String = "text/csv"), (Printer = "application/x-ndjson"))), Common))]
async fn export(
    State(app): State<AppState>,
    caller: Caller,
    mut params: Params,
) -> Result<Response, Problem> {
    let (by, format) = (read(&mut params, &caller), Format::read(&mut params));
    params.finish()?;
    let mut query = export::cursor(&format!("select {} from {} where true", db::COLUMNS, db::FROM));
    db::filter(&mut query, &by);
    query.push(" order by p.number");
    app.exports.stream::<Printer>(&app.pool, query, "printers", format).await
}

/// One printer, by printer_id, id or number.
#[utoipa::path(get, path = "/api/printers/{printer_id}", operation_id = "getPrinter", tag = "printers",
    params(("printer_id" = String, Path)),
    responses((status = 200, description = "The printer", body = Printer),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_printer(
    State(app): State<AppState>,
    caller: Caller,
    Segment(named): Segment<Named>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let printer = by_name(&mut conn, &caller.scope, &named).await?;
    cache::tagged(&headers, 0, &db::get(&mut conn, printer).await?)
}

/// `PUT /api/users/{user_id}`. What is left out is taken away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"time_zone": "Europe/Rome", "windows": {"weekly": [{"days": ["sat", "sun"], "from": "22:00", "to": "05:00"}]}}))]
pub struct PutUser {
    /// IANA name, for printers that say none themselves.
    time_zone: Option<String>,
    /// When updates of the user's printers may begin; always unless given.
    #[schema(value_type = Option<Windows>)]
    #[serde(default, deserialize_with = "maybe_object")]
    windows: Option<WindowsBody>,
}

/// The owner of printers as REST shows it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"user_id": "user-123", "time_zone": "Europe/Rome", "windows": {"weekly": [{"days": ["sat", "sun"], "from": "22:00",
    "to": "05:00"}], "time_zone": null, "mandatory_ignores": false}, "updated_at": "2026-01-15T10:00:00Z"}))]
pub struct User {
    user_id: String,
    time_zone: Option<String>,
    windows: Option<Windows>,
    /// Null when nothing was ever said of this user: then the defaults hold.
    updated_at: Option<DateTime<Utc>>,
}

impl User {
    fn new(user: &UserId, known: Known) -> Self {
        Self {
            user_id: user.to_string(),
            time_zone: known.owner.time_zone.map(|zone| zone.to_string()),
            windows: known.owner.windows,
            updated_at: known.updated_at,
        }
    }
}

impl TryFrom<PutUser> for Owner {
    type Error = Problem;

    fn try_from(body: PutUser) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let bad_zone =
            |error: BadZone| errors.push(("time_zone".to_owned(), format!("is not valid: {error}")));
        let time_zone = body.time_zone.and_then(|text| text.parse().map_err(bad_zone).ok());
        let windows = body.windows.map(Windows::try_from).transpose().unwrap_or_else(|wrong| {
            errors.extend(wrong.within("windows"));
            None
        });
        if errors.is_empty() {
            return Ok(Self { time_zone, windows });
        }
        Err(Problem::invalid(
            errors.into_iter().map(|(field, detail)| FieldError { field, detail }).collect(),
        ))
    }
}

/// Users that a scope does not name look like none: what is said of them is not ours to tell.
fn known<'a>(caller: &Caller, user: &'a UserId) -> Result<&'a UserId, Problem> {
    match caller.scope.has_user(user) {
        true => Ok(user),
        false => Err(Problem::new(
            &problem::USER_NOT_FOUND,
            format!("User not found: {user} is not among those that the key is for; GET /api/me lists them."),
        )),
    }
}

/// An owner of printers: time zone and maintenance windows.
///
/// Whoever nothing was said of has the defaults, so no user is unknown.
#[utoipa::path(get, path = "/api/users/{user_id}", operation_id = "getUser", tag = "printers",
    params(("user_id" = String, Path)),
    responses((status = 200, description = "The user", body = User),
        (status = 404, description = "The key is for other users only", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_user(
    State(app): State<AppState>,
    caller: Caller,
    Segment(user): Segment<UserId>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let known = owners::get(&mut *app.pool.acquire().await?, known(&caller, &user)?).await?;
    cache::tagged(&headers, known.revision, &User::new(&user, known))
}

/// Say where a user's printers stand and when their updates may begin. Replaces what was said before.
#[utoipa::path(put, path = "/api/users/{user_id}", operation_id = "putUser", tag = "printers",
    params(("user_id" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")),
    request_body = PutUser,
    responses((status = 200, description = "The user after the change", body = User),
        (status = 404, description = "The key is for other users only", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it in the meantime", body = Problem, content_type = "application/problem+json"), Common))]
async fn put_user(
    State(app): State<AppState>,
    caller: Caller,
    Segment(user): Segment<UserId>,
    headers: HeaderMap,
    params: Params,
    Body(body): Body<PutUser>,
) -> Result<Response, Problem> {
    params.finish()?;
    let (owner, revision) = (Owner::try_from(body)?, cache::if_match(&headers)?);
    let known =
        owners::set(&app.pool, &caller, known(&caller, &user)?, Some(owner), revision, app.clock.now())
            .await?;
    tracing::info!(%user, "owner changed");
    cache::tagged(&HeaderMap::new(), known.revision, &User::new(&user, known))
}

/// Forget what was said of a user: the defaults hold again.
#[utoipa::path(delete, path = "/api/users/{user_id}", operation_id = "deleteUser", tag = "printers",
    params(("user_id" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")),
    responses((status = 204, description = "Nothing is known of the user any more"),
        (status = 404, description = "The key is for other users only", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it in the meantime", body = Problem, content_type = "application/problem+json"), Common))]
async fn delete_user(
    State(app): State<AppState>,
    caller: Caller,
    Segment(user): Segment<UserId>,
    headers: HeaderMap,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.finish()?;
    owners::set(
        &app.pool,
        &caller,
        known(&caller, &user)?,
        None,
        cache::if_match(&headers)?,
        app.clock.now(),
    )
    .await?;
    tracing::info!(%user, "owner forgotten");
    Ok(StatusCode::NO_CONTENT)
}
