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
use crate::http::export::{self, Format};
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, Problem};
use crate::http::{Params, Segment, cache};
use crate::state::AppState;
use crate::words::{Channel, Platform};

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export)).routes(routes!(get_printer))
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

/// The filters of a list.
fn read(params: &mut Params) -> Query {
    Query {
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
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let by = read(&mut params);
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
async fn export(State(app): State<AppState>, mut params: Params) -> Result<Response, Problem> {
    let (by, format) = (read(&mut params), Format::read(&mut params));
    params.finish()?;
    let mut query = export::cursor(&format!("select {} from printers p where true", db::COLUMNS));
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
    Segment(named): Segment<Named>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let printer = super::by_name(&mut conn, &named).await?;
    cache::tagged(&headers, 0, &db::get(&mut conn, printer).await?)
}
