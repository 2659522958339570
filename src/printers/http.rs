//! REST of printers.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::db::{self, Query};
use super::{Error, Named, Printer};
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, Problem};
use crate::http::{Params, Segment, cache};
use crate::state::AppState;
use crate::words::{Channel, Platform};

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get_printer))
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
            Error::Database(error) => error.into(),
        }
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
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let by = Query {
        user_id: params.get("user_id"),
        online: params.get("online"),
        firmware_version: params
            .get::<crate::version::Version>("firmware_version")
            .map(|version| version.to_string()),
        channel: params.get("channel"),
        platform: params.get("platform"),
        auto_update: params.get("auto_update"),
    };
    let page = Page::read(&mut params, db::SORTS, false);
    params.finish()?;
    let (printers, next_cursor, total) = db::list(&mut *app.pool.acquire().await?, &by, &page).await?;
    let (rows, link) = (Rows(printers.len()), page.link(next_cursor.as_deref()));
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &PrinterList { printers, total, next_cursor })?)
        .into_response())
}

/// One printer, by printer_id, id or number.
#[utoipa::path(get, path = "/api/printers/{printer_id}", operation_id = "getPrinter", tag = "printers",
    params(("printer_id" = String, Path)),
    responses((status = 200, description = "The printer", body = Printer),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_printer(
    State(app): State<AppState>,
    Segment(named): Segment<Named>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let printer = super::by_name(&mut conn, &named).await?;
    cache::tagged(&headers, 0, &db::get(&mut conn, printer).await?)
}
