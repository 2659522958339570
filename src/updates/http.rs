//! REST of updates.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::db;
use super::types::{Reason, Status};
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{Common, Problem};
use crate::http::{Json, Params, Segment};
use crate::printers::{self, Named};
use crate::state::AppState;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(of_printer))
}

/// One attempt to update one printer, as REST shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 123, "rollout_id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "rollout_number": 42,
    "printer_id": "770e8400-e29b-41d4-a716-446655440000", "firmware_version": "1.5.0", "from_version": "1.4.0", "attempt": 1,
    "status": "completed", "open": false, "reason": null, "error_message": null, "started_at": "2026-01-15T10:05:00Z",
    "completed_at": "2026-01-15T10:07:30Z", "confirmed_at": "2026-01-15T10:07:30Z", "last_percent": 100,
    "last_status_message": "Downloading 100%"
}))]
pub struct UpdateView {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) rollout_id: Option<Uuid>,
    pub(super) rollout_number: Option<i64>,
    pub(super) printer_id: String,
    pub(super) firmware_version: String,
    pub(super) from_version: String,
    /// Which try of this rollout with this printer.
    pub(super) attempt: i32,
    pub(super) status: Status,
    /// False once the outcome is settled; a `completed` update stays open until the printer proved it.
    pub(super) open: bool,
    pub(super) reason: Option<Reason>,
    pub(super) error_message: Option<String>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) completed_at: Option<DateTime<Utc>>,
    /// When the printer came back on the new version.
    pub(super) confirmed_at: Option<DateTime<Utc>>,
    /// 0 to 100, -1 for an error.
    pub(super) last_percent: i32,
    pub(super) last_status_message: Option<String>,
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
    mut params: Params,
) -> Result<Response, Problem> {
    let status = params.get("status");
    let page = Page::read(&mut params, db::SORTS, true);
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let printer = printers::by_name(&mut conn, &named).await?;
    let (updates, next_cursor, total) = db::of_printer(&mut conn, printer, status, &page).await?;
    let (rows, link) = (Rows(updates.len()), page.link(next_cursor.as_deref()));
    Ok((Extension(rows), link, Json(UpdateList { updates, total, next_cursor })).into_response())
}
