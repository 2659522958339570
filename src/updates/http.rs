//! REST of updates.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::types::Status;
use super::{UpdateView, db};
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{Common, Problem};
use crate::http::{Params, Segment, cache};
use crate::printers::{self, Named};
use crate::state::AppState;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(of_printer))
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

/// Update history of a printer, by printer_id, id or number.
#[utoipa::path(get, path = "/api/printers/{printer_id}/updates", operation_id = "listPrinterUpdates", tag = "printers",
    params(("printer_id" = String, Path), ("status" = Option<Status>, Query),
        ("sort" = Option<String>, Query, description = "number; -number, the newest first, unless given"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = UpdateList),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn of_printer(
    State(app): State<AppState>,
    Segment(named): Segment<Named>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let status = params.get("status");
    let page = Page::read(&mut params, db::SORTS, true);
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let printer = printers::by_name(&mut conn, &named).await?;
    let (updates, next_cursor, total) = db::of_printer(&mut conn, printer, status, &page).await?;
    let (rows, link) = (Rows(updates.len()), page.link(next_cursor.as_deref()));
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &UpdateList { updates, total, next_cursor })?)
        .into_response())
}
