//! REST of updates.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::list::{self, Query};
use super::types::{Reason, Status};
use super::{UpdateView, db};
use crate::auth::Caller;
use crate::http::export::Format;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{Common, Problem};
use crate::http::{Params, Segment, cache};
use crate::ids::UserId;
use crate::printers::{self, Named};
use crate::state::AppState;
use crate::version::Version;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(all)).routes(routes!(export)).routes(routes!(of_printer))
}

/// A page of attempts, the newest first.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"updates": [], "total": 0, "next_cursor": null}))]
pub struct UpdateList {
    updates: Vec<UpdateView>,
    /// Attempts that match, on all pages.
    total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// A page of all attempts.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"updates": [], "total": 0, "total_is_lower_bound": false, "next_cursor": null}))]
pub struct AllUpdates {
    updates: Vec<UpdateView>,
    /// Attempts that match, on all pages, counted up to 100,000.
    total: i64,
    /// Whether there are more than `total`: above 100,000, or when counting would have taken too long.
    total_is_lower_bound: bool,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// The filters of a list, and the printer that one of them names.
fn read(params: &mut Params, caller: &Caller) -> (Query, Option<Named>) {
    let query = Query {
        scope: caller.scope.clone(),
        user_id: params.get::<UserId>("user_id").map(|user| user.to_string()),
        rollout: params.get("rollout_id"),
        firmware_version: params.get::<Version>("firmware_version").map(|version| version.to_string()),
        status: params.get("status"),
        open: params.get("open"),
        reason: params.get("reason"),
        error: params.get("error"),
        started_after: params.get("started_after"),
        started_before: params.get("started_before"),
        owned: list::Owned::default(),
        printer: None,
    };
    (query, params.get("printer_id"))
}

/// List all attempts.
#[utoipa::path(get, path = "/api/updates", operation_id = "listUpdates", tag = "updates",
    params(("printer_id" = Option<String>, Query, description = "printer_id, id or number"), ("user_id" = Option<String>, Query),
        ("rollout_id" = Option<String>, Query, description = "UUID or number"), ("firmware_version" = Option<String>, Query),
        ("status" = Option<Status>, Query), ("open" = Option<bool>, Query, description = "whether the outcome is still to come"),
        ("reason" = Option<Reason>, Query), ("error" = Option<String>, Query, description = "a part of error_message, in any case"),
        ("started_after" = Option<DateTime<Utc>>, Query, description = "RFC 3339, included"),
        ("started_before" = Option<DateTime<Utc>>, Query, description = "RFC 3339, excluded"),
        ("sort" = Option<String>, Query, description = "number or started_at; -number unless given, -started_at with started_after or started_before"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = AllUpdates),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn all(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let (mut by, printer) = read(&mut params, &caller);
    let page = Page::read(&mut params, "all updates", by.sorts(), true);
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    if let Some(printer) = printer {
        by.printer = Some(printers::by_name(&mut conn, &caller.scope, &printer).await?);
    }
    let (updates, next_cursor, total) = list::list(&mut conn, by, &page).await?;
    let (rows, link) = (Rows(updates.len()), page.link(next_cursor.as_deref()));
    let body =
        AllUpdates { updates, total: total.rows, total_is_lower_bound: total.is_lower_bound, next_cursor };
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &body)?).into_response())
}

/// Export attempts.
///
/// All that match, in the order in which they began, in one snapshot. A file that breaks off ends its connection with an
/// error. In CSV a text that a spreadsheet would take for a formula has an apostrophe in front.
#[utoipa::path(get, path = "/api/updates/export", operation_id = "exportUpdates", tag = "updates",
    params(("format" = Option<String>, Query, description = "csv, unless given, or ndjson"),
        ("printer_id" = Option<String>, Query, description = "printer_id, id or number"), ("user_id" = Option<String>, Query),
        ("rollout_id" = Option<String>, Query, description = "UUID or number"), ("firmware_version" = Option<String>, Query),
        ("status" = Option<Status>, Query), ("open" = Option<bool>, Query), ("reason" = Option<Reason>, Query),
        ("error" = Option<String>, Query, description = "a part of error_message, in any case"),
        ("started_after" = Option<DateTime<Utc>>, Query, description = "RFC 3339, included"),
        ("started_before" = Option<DateTime<Utc>>, Query, description = "RFC 3339, excluded")),
    responses((status = 200, description = "The file", content((String = "text/csv"), (UpdateView = "application/x-ndjson"))),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn export(
    State(app): State<AppState>,
    caller: Caller,
    mut params: Params,
) -> Result<Response, Problem> {
    let ((mut by, printer), format) = (read(&mut params, &caller), Format::read(&mut params));
    params.finish()?;
    if let Some(printer) = printer {
        by.printer = Some(printers::by_name(&mut *app.pool.acquire().await?, &caller.scope, &printer).await?);
    }
    app.exports.stream::<UpdateView>(&app.pool, by.export(), "updates", format).await
}

/// Update history of a printer, by printer_id, id or number.
#[utoipa::path(get, path = "/api/printers/{printer_id}/updates", operation_id = "listPrinterUpdates", tag = "printers",
    params(("printer_id" = String, Path), ("status" = Option<Status>, Query),
        ("sort" = Option<String>, Query, description = "number; -number, the newest first, unless given"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = UpdateList),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn of_printer(
    State(app): State<AppState>,
    caller: Caller,
    Segment(named): Segment<Named>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let status = params.get("status");
    let page = Page::read(&mut params, "updates", db::SORTS, true);
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let printer = printers::by_name(&mut conn, &caller.scope, &named).await?;
    let (updates, next_cursor, total) = db::of_printer(&mut conn, printer, status, &page).await?;
    let (rows, link) = (Rows(updates.len()), page.link(next_cursor.as_deref()));
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &UpdateList { updates, total, next_cursor })?)
        .into_response())
}
