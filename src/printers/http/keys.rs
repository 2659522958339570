//! REST of the keys that printers show, and of keeping printers out.

use axum::Extension;
use axum::body::to_bytes;
use axum::extract::{Request, State};
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
use crate::http::extract::MAX_BODY;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, FieldError, Problem};
use crate::http::{Body, Json, Params, Segment, cache};
use crate::ids::{PrinterId, PrinterKeyId, PrinterRef, UserId};
use crate::printers::keys::{self, NewPrinterKey, PrinterKey, made_up};
use crate::printers::{Credential, Error, Named, Printer, by_name, db};
use crate::push::{self, Hint};
use crate::state::AppState;

/// How long the old key opens after a rotation, unless somebody says otherwise, in seconds: printers are told the new
/// one by hand.
const OVERLAP: u32 = 30 * 24 * 3600;
/// The longest that may be said.
const LONGEST_OVERLAP: u32 = 366 * 24 * 3600;
/// Keys of one import.
const MOST: usize = 10_000;
/// Lines that one refusal complains about.
const COMPLAINTS: usize = 20;
/// Characters of a key.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// These routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(import))
        .routes(routes!(delete))
        .routes(routes!(rotate))
        .routes(routes!(reset))
        .routes(routes!(block))
        .routes(routes!(unblock))
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

/// What an import made.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"created": 2, "made_up": [{"line": 3, "user_id": "user-123", "printer_id": "printer-9",
    "api_key": "3f1c0d5e9a7b4c2d8e6f0a1b2c3d4e5f"}]}))]
pub struct Imported {
    created: usize,
    /// The keys that the server made up, for lines without one, shown this once.
    made_up: Vec<MadeUp>,
}

/// A key that the server made up for a line of an import.
#[derive(Serialize, ToSchema)]
pub struct MadeUp {
    line: usize,
    user_id: String,
    printer_id: Option<String>,
    api_key: String,
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
fn wanted(
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

/// Whether a caller may make this key: for users of their scope, and, where they do not see everybody, for printers that
/// are these users' already. A printer that is not there yet could be anybody's.
async fn check_scope(conn: &mut PgConnection, caller: &Caller, key: &NewPrinterKey) -> Result<(), Problem> {
    known(caller, &key.user_id)?;
    if let Some(printer) = key.printer_id.as_ref().filter(|_| !caller.scope.has_everybody()) {
        by_name(conn, &caller.scope, &Named { text: printer.to_string(), handle: None }).await?;
    }
    Ok(())
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
    check_scope(&mut tx, &caller, &new).await?;
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

/// One line of an import.
#[derive(Deserialize)]
struct Line {
    user_id: String,
    #[serde(default)]
    printer_id: Option<String>,
    #[serde(default)]
    api_key: Option<String>,
}

/// Make many keys at once, all or none.
///
/// CSV with the header `user_id,printer_id,api_key`, up to 10,000 lines. A key that is left empty is made up; without a
/// printer it speaks for all printers of the user.
#[utoipa::path(post, path = "/api/printer-keys/import", operation_id = "importPrinterKeys", tag = "printers",
    request_body(content = String, content_type = "text/csv", example = "user_id,printer_id,api_key\nuser-123,printer-8,its-own-key\nuser-123,printer-9,\n"),
    responses((status = 201, description = "What was made", body = Imported),
        (status = 404, description = "The key is for other users or printers only", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Printers have keys already", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many lines at once", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no CSV", body = Problem, content_type = "application/problem+json"), Common))]
async fn import(
    State(app): State<AppState>,
    caller: Caller,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.finish()?;
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/csv") {
        let detail = format!("The Content-Type is `{kind}`; send `Content-Type: text/csv`.");
        return Err(Problem::new(&problem::MEDIA_TYPE, detail));
    }
    let too_large = |_| {
        Problem::new(
            &problem::BODY_TOO_LARGE,
            format!("The body has more than {MAX_BODY} bytes, or broke off; send less at once."),
        )
    };
    let bytes = to_bytes(request.into_body(), MAX_BODY).await.map_err(too_large)?;
    let (new, made_up) = read(&bytes)?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    for key in &new {
        check_scope(&mut tx, &caller, key).await?;
    }
    let conflicts = keys::create(&mut tx, &new, &caller.actor.name, now).await?;
    if !conflicts.is_empty() {
        let error = |place: &usize| FieldError {
            field: format!("line {}", place + 2),
            detail: "names a printer that has a key already, or stands twice".into(),
        };
        let errors: Vec<_> = conflicts.iter().take(COMPLAINTS).map(error).collect();
        let detail =
            format!("{} lines name a printer that has a key already; nothing was made.", conflicts.len());
        return Err(Problem { errors, ..Problem::new(&problem::PRINTER_KEY_CONFLICT, detail) });
    }
    let printers = keys::named(&mut tx, &new).await?;
    close(&mut tx, printers, now).await?;
    tx.commit().await?;
    tracing::info!(created = new.len(), "keys of printers were imported");
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, headers, Json(Imported { created: new.len(), made_up })).into_response())
}

/// Every line, or what is wrong with them.
fn read(bytes: &[u8]) -> Result<(Vec<NewPrinterKey>, Vec<MadeUp>), Problem> {
    let (mut new, mut made, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (place, line) in csv::Reader::from_reader(bytes).deserialize::<Line>().enumerate() {
        let at = place + 2;
        if new.len() == MOST {
            return Err(Problem::field(
                "body",
                format!("has more than {MOST} lines; send them in several requests"),
            ));
        }
        let wrong = |detail: String| vec![FieldError { field: format!("line {at}"), detail }];
        let read = line.map_err(|error| wrong(format!("cannot be read: {error}"))).and_then(|line| {
            let text = |text: &Option<String>| {
                text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
            };
            let (printer, key) = (text(&line.printer_id), text(&line.api_key));
            let field = |name: &str| format!("line {at}, {name}");
            let (key, api_key) = wanted(line.user_id.trim(), printer.as_deref(), key.as_deref(), field)?;
            Ok((key, api_key))
        });
        match read {
            Ok((key, api_key)) => {
                let (user_id, printer_id) =
                    (key.user_id.to_string(), key.printer_id.as_ref().map(ToString::to_string));
                made.extend(api_key.map(|api_key| MadeUp { line: at, user_id, printer_id, api_key }));
                new.push(key);
            }
            Err(wrong) => errors.extend(wrong),
        }
        if errors.len() >= COMPLAINTS {
            break;
        }
    }
    if new.is_empty() && errors.is_empty() {
        return Err(Problem::field(
            "body",
            "has no lines; send CSV with the header user_id,printer_id,api_key",
        ));
    }
    if errors.is_empty() { Ok((new, made)) } else { Err(Problem::invalid(errors)) }
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
async fn close(conn: &mut PgConnection, printers: Vec<Uuid>, now: Time) -> Result<(), sqlx::Error> {
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

/// Keep a printer out: its socket is closed, and whatever key it shows is refused. What it was offered fails in time.
#[utoipa::path(post, path = "/api/printers/{printer_id}/block", operation_id = "blockPrinter", tag = "printers",
    params(("printer_id" = String, Path)),
    responses((status = 200, description = "The printer, blocked", body = Printer),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn block(
    app: State<AppState>,
    caller: Caller,
    named: Segment<Named>,
    params: Params,
) -> Result<Json<Printer>, Problem> {
    set_blocked(app, caller, named, params, true).await
}

/// Let a printer in again that was blocked.
#[utoipa::path(post, path = "/api/printers/{printer_id}/unblock", operation_id = "unblockPrinter", tag = "printers",
    params(("printer_id" = String, Path)),
    responses((status = 200, description = "The printer, not blocked", body = Printer),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn unblock(
    app: State<AppState>,
    caller: Caller,
    named: Segment<Named>,
    params: Params,
) -> Result<Json<Printer>, Problem> {
    set_blocked(app, caller, named, params, false).await
}

async fn set_blocked(
    State(app): State<AppState>,
    caller: Caller,
    Segment(named): Segment<Named>,
    params: Params,
    blocked: bool,
) -> Result<Json<Printer>, Problem> {
    params.finish()?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    let printer: PrinterRef = by_name(&mut tx, &caller.scope, &named).await?;
    keys::block(&mut tx, printer.0, blocked.then_some(now)).await?;
    if blocked {
        keys::part(&mut tx, &[printer.0], now).await?;
        push::notify(&mut tx, Hint::Part(printer.0)).await?;
    }
    let view = db::get(&mut tx, printer).await?;
    tx.commit().await?;
    tracing::warn!(%printer, blocked, "a printer was blocked or let in again");
    Ok(Json(view))
}

/// For the room's other errors.
pub(super) fn no_key(error: &Error) -> Problem {
    Problem::new(
        &problem::PRINTER_KEY_NOT_FOUND,
        format!("Key of printers not found: {error}; list them with GET /api/printer-keys."),
    )
}
