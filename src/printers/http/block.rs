//! REST of keeping printers out.

use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::auth::Caller;
use crate::http::problem::{Common, Problem};
use crate::http::{Json, Params, Segment};
use crate::ids::PrinterRef;
use crate::printers::{Named, Printer, by_name, db, keys};
use crate::push::{self, Hint};
use crate::state::AppState;

/// These routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(block)).routes(routes!(unblock))
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
