//! REST of the keys that printers show.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::known;
use crate::auth::Caller;
use crate::clock::Time;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, FieldError, Problem};
use crate::http::{Body, Json, Params, Segment, cache};
use crate::ids::{PrinterId, PrinterKeyId, UserId};
use crate::printers::keys::{self, NewPrinterKey, PrinterKey, made_up};
use crate::printers::{Credential, Error, Named, by_name};
use crate::push::{self, Hint};
use crate::state::AppState;

/// How long the old key opens after a rotation, unless somebody says otherwise, in seconds: printers are told the new
/// one by hand.
const OVERLAP: u32 = 30 * 24 * 3600;
/// The longest that may be said.
const LONGEST_OVERLAP: u32 = 366 * 24 * 3600;
/// Characters of a key.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// These routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(delete))
        .routes(routes!(rotate))
        .routes(routes!(reset))
}

/// A key of printers as REST shows it: never with its secret.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 7, "user_id": "user-123", "printer_id": null,
    "enrolled": false, "created_at": "2026-01-15T10:00:00Z", "created_by": "key 77aa01f2c3d4", "previous_until": null}))]
pub struct PrinterKeyView {
    id: Uuid,
    number: i64,
    /// Whose printers it is for.
    user_id: String,
    /// The printer whose own key it is; null: it speaks for every printer of the user that has none.
    printer_id: Option<String>,
    /// Whether the printer brought it with its first subscribe.
    enrolled: bool,
    created_at: DateTime<Utc>,
    /// As in a key's `created_by`; `printer` when it was brought.
    created_by: String,
    /// Until then the key before the last rotation opens as well.
    previous_until: Option<DateTime<Utc>>,
}

impl PrinterKeyView {
    fn new(key: PrinterKey, now: Time) -> Self {
        Self {
            id: key.id,
            number: key.number,
            user_id: key.user_id,
            printer_id: key.printer_id,
            enrolled: key.enrolled,
            created_at: key.created_at,
            created_by: key.created_by,
            previous_until: key.previous_until.filter(|until| now < *until),
        }
    }
}

/// A key with its secret, where the server made it up.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"api_key": "3f1c0d5e9a7b4c2d8e6f0a1b2c3d4e5f", "id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 7,
    "user_id": "user-123", "printer_id": null, "enrolled": false, "created_at": "2026-01-15T10:00:00Z", "created_by": "key 77aa01f2c3d4",
    "previous_until": null}))]
pub struct ShownPrinterKey {
    /// What the printer is to send as `api_key`, shown this once; null when the request brought it.
    api_key: Option<String>,
    #[serde(flatten)]
    about: PrinterKeyView,
}

/// A page of keys.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"keys": [], "total": 0, "next_cursor": null}))]
pub struct PrinterKeyList {
    keys: Vec<PrinterKeyView>,
    /// Keys on all pages.
    total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// `POST /api/printer-keys`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_id": "user-123", "printer_id": "770e8400-e29b-41d4-a716-446655440000"}))]
pub struct CreatePrinterKey {
    /// Whose printers it is for.
    user_id: String,
    /// The printer whose own key it is; without one it speaks for every printer of the user that has none.
    printer_id: Option<String>,
    /// 8 to 256 characters; made up unless given.
    api_key: Option<String>,
}

/// `POST /api/printer-keys/{key_id}/rotate`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"overlap_seconds": 86400}))]
pub struct RotatePrinterKey {
    /// 8 to 256 characters; made up unless given.
    api_key: Option<String>,
    /// How long the old key opens as well: 30 days unless given, at most 366.
    overlap_seconds: Option<u32>,
}

fn readable(key: &str) -> Result<(), String> {
    let length = key.chars().count();
    match LENGTH.contains(&length) && !key.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!(
            "must have {} to {} characters and no control characters, this has {length}",
            LENGTH.start(),
            LENGTH.end()
        )),
    }
}

/// What a line or a body asks for, and the key that was made up for it. `field` names a field in an error.
pub(super) fn wanted(
    user: &str,
    printer: Option<&str>,
    key: Option<&str>,
    field: impl Fn(&str) -> String,
) -> Result<(NewPrinterKey, Option<String>), Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut wrong = |name: &str, detail: String| errors.push(FieldError { field: field(name), detail });
    let user: Option<UserId> = user.parse().map_err(|error| wrong("user_id", format!("{error}"))).ok();
    let printer: Option<PrinterId> =
        printer.and_then(|text| text.parse().map_err(|error| wrong("printer_id", format!("{error}"))).ok());
    let made = if key.is_none() { made_up().ok() } else { None };
    let key = key.or(made.as_deref()).unwrap_or_default();
    if let Err(detail) = readable(key) {
        wrong("api_key", detail);
    }
    match user {
        Some(user_id) if errors.is_empty() => {
            let credential = Credential::of(&user_id, key);
            let id = PrinterKeyId::generate().0;
            Ok((NewPrinterKey { id, user_id, printer_id: printer, credential }, made))
        }
        _ => Err(errors),
    }
}

/// Whether a caller may make these keys: for users of their scope, and, where they do not see everybody, for printers that
/// are these users' already. A printer that is not there yet could be anybody's.
pub(super) async fn check_scope(
    conn: &mut PgConnection,
    caller: &Caller,
    new: &[NewPrinterKey],
) -> Result<(), Problem> {
    new.iter().try_for_each(|key| known(caller, &key.user_id).map(drop))?;
    if caller.scope.has_everybody() {
        return Ok(());
    }
    match keys::out_of_scope(conn, &caller.scope, new).await? {
        Some(printer) => Err(Error::NotFound(printer).into()),
        None => Ok(()),
    }
}

fn taken(printer: Option<&PrinterId>) -> Problem {
    let printer = printer.map_or_else(String::new, ToString::to_string);
    Problem::new(
        &problem::PRINTER_KEY_CONFLICT,
        format!("Printer {printer} has a key already; rotate that one, or delete it."),
    )
}

/// List keys of printers, without their secrets.
#[utoipa::path(get, path = "/api/printer-keys", operation_id = "listPrinterKeys", tag = "printers",
    params(("user_id" = Option<String>, Query), ("printer_id" = Option<String>, Query, description = "what the printer calls itself"),
        ("sort" = Option<String>, Query, description = "number; - in front turns it round"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = PrinterKeyList), Common))]
async fn list(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let (user, printer): (Option<UserId>, Option<PrinterId>) =
        (params.get("user_id"), params.get("printer_id"));
    let page = Page::read(&mut params, "printer keys", keys::SORTS, false);
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let (found, next_cursor, total) =
        keys::list(&mut conn, &caller.scope, user.as_ref(), printer.as_ref(), &page).await?;
    let (now, rows, link) = (app.clock.now(), Rows(found.len()), page.link(next_cursor.as_deref()));
    let keys = found.into_iter().map(|key| PrinterKeyView::new(key, now)).collect();
    let body = PrinterKeyList { keys, total, next_cursor };
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &body)?).into_response())
}

/// Make a key for a printer, or one that speaks for all printers of a user. A printer that gets a key of its own comes back with it.
#[utoipa::path(post, path = "/api/printer-keys", operation_id = "createPrinterKey", tag = "printers", request_body = CreatePrinterKey,
    responses((status = 201, description = "The key, shown this once where the server made it up", body = ShownPrinterKey),
        (status = 404, description = "The key is for other users or printers only", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The printer has a key already", body = Problem, content_type = "application/problem+json"), Common))]
async fn create(
    State(app): State<AppState>,
    caller: Caller,
    params: Params,
    Body(body): Body<CreatePrinterKey>,
) -> Result<Response, Problem> {
    params.finish()?;
    let (printer, key) = (body.printer_id.as_deref(), body.api_key.as_deref());
    let (new, api_key) = wanted(&body.user_id, printer, key, str::to_owned).map_err(Problem::invalid)?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    check_scope(&mut tx, &caller, std::slice::from_ref(&new)).await?;
    if !keys::create(&mut tx, std::slice::from_ref(&new), &caller.actor.name, now).await?.is_empty() {
        return Err(taken(new.printer_id.as_ref()));
    }
    let key = keys::get(&mut tx, &caller.scope, new.id).await?;
    if new.printer_id.is_some() {
        let printers = keys::held_by(&mut tx, &key).await?;
        close(&mut tx, printers, now).await?;
    }
    let about = PrinterKeyView::new(key, now);
    tx.commit().await?;
    tracing::info!(user = %new.user_id, printer = about.printer_id, "a key of printers was made");
    Ok(shown(StatusCode::CREATED, ShownPrinterKey { api_key, about }))
}

fn shown(status: StatusCode, key: ShownPrinterKey) -> Response {
    (status, [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(key)).into_response()
}

/// Give a key another secret. The old one opens for a while, so that printers can be told one after the other.
#[utoipa::path(post, path = "/api/printer-keys/{key_id}/rotate", operation_id = "rotatePrinterKey", tag = "printers",
    params(("key_id" = Uuid, Path)), request_body = RotatePrinterKey,
    responses((status = 200, description = "The key, shown this once where the server made it up", body = ShownPrinterKey),
        (status = 404, description = "Key of printers not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn rotate(
    State(app): State<AppState>,
    caller: Caller,
    Segment(id): Segment<Uuid>,
    params: Params,
    Body(body): Body<RotatePrinterKey>,
) -> Result<Response, Problem> {
    params.finish()?;
    let overlap = body.overlap_seconds.unwrap_or(OVERLAP);
    if overlap > LONGEST_OVERLAP {
        let detail = format!("must be at most {LONGEST_OVERLAP} (366 days), this is {overlap}");
        return Err(Problem::field("overlap_seconds", detail));
    }
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    let key = keys::get(&mut tx, &caller.scope, id).await?;
    let (new, api_key) =
        wanted(&key.user_id, key.printer_id.as_deref(), body.api_key.as_deref(), str::to_owned)
            .map_err(Problem::invalid)?;
    keys::rotate(&mut tx, id, &new.credential, now + TimeDelta::seconds(i64::from(overlap))).await?;
    if overlap == 0 {
        let printers = keys::held_by(&mut tx, &key).await?;
        close(&mut tx, printers, now).await?;
    }
    let about = PrinterKeyView::new(keys::get(&mut tx, &caller.scope, id).await?, now);
    tx.commit().await?;
    tracing::info!(
        user = about.user_id,
        printer = about.printer_id,
        overlap,
        "a key of printers was rotated"
    );
    Ok(shown(StatusCode::OK, ShownPrinterKey { api_key, about }))
}

/// Delete a key. The sockets of the printers that it is for are closed; they come back with another key, or not.
#[utoipa::path(delete, path = "/api/printer-keys/{key_id}", operation_id = "deletePrinterKey", tag = "printers",
    params(("key_id" = Uuid, Path)),
    responses((status = 204, description = "The key opens nothing any more"),
        (status = 404, description = "Key of printers not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Segment(id): Segment<Uuid>,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.finish()?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    let key = keys::get(&mut tx, &caller.scope, id).await?;
    forget(&mut tx, &key, now).await?;
    tx.commit().await?;
    tracing::info!(user = key.user_id, printer = key.printer_id, "a key of printers was deleted");
    Ok(StatusCode::NO_CONTENT)
}

async fn forget(conn: &mut PgConnection, key: &PrinterKey, now: Time) -> Result<(), sqlx::Error> {
    let printers = keys::forget(conn, key).await?;
    close(conn, printers, now).await
}

/// Closes the sockets of these printers, wherever they are.
pub(super) async fn close(
    conn: &mut PgConnection,
    printers: Vec<Uuid>,
    now: Time,
) -> Result<(), sqlx::Error> {
    keys::part(conn, &printers, now).await?;
    push::notify_all(conn, printers.into_iter().map(Hint::Part)).await
}

/// Forget a printer's own key and close its socket. Under `PRINTER_AUTH=enroll` the next one that it shows becomes its key.
#[utoipa::path(post, path = "/api/printers/{printer_id}/reset-key", operation_id = "resetPrinterKey", tag = "printers",
    params(("printer_id" = String, Path)),
    responses((status = 204, description = "It has no key of its own any more"),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn reset(
    State(app): State<AppState>,
    caller: Caller,
    Segment(named): Segment<Named>,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.finish()?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    let printer = by_name(&mut tx, &caller.scope, &named).await?;
    if let Some(key) = keys::of_printer(&mut tx, printer.0).await? {
        forget(&mut tx, &key, now).await?;
    }
    tx.commit().await?;
    tracing::info!(%printer, "the key of a printer was reset");
    Ok(StatusCode::NO_CONTENT)
}

/// For the room's other errors.
pub(super) fn no_key(error: &Error) -> Problem {
    Problem::new(
        &problem::PRINTER_KEY_NOT_FOUND,
        format!("Key of printers not found: {error}; list them with GET /api/printer-keys."),
    )
}
