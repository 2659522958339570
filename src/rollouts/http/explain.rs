//! REST of explanations.

use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::auth::Caller;
use crate::http::problem::{Common, Problem};
use crate::http::{Json, Params, Segment};
use crate::ids::Handle;
use crate::printers::{self, Named};
use crate::rollouts::{Explanation, PrinterExplanation, explain, explain_rollout, snapshot};
use crate::state::AppState;

/// These routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(of_printer)).routes(routes!(of_rollout))
}

/// Why a printer gets what it gets: every rollout, in order of precedence.
#[utoipa::path(get, path = "/api/printers/{printer_id}/explain", operation_id = "explainPrinter", tag = "printers",
    params(("printer_id" = String, Path, description = "printer_id, UUID or number")),
    responses((status = 200, description = "In words", body = PrinterExplanation),
        (status = 404, description = "Printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn of_printer(
    State(app): State<AppState>,
    caller: Caller,
    Segment(named): Segment<Named>,
    params: Params,
) -> Result<Json<PrinterExplanation>, Problem> {
    params.finish()?;
    let mut tx = app.pool.begin().await?;
    snapshot(&mut tx).await?;
    let printer = printers::by_name(&mut tx, &caller.scope, &named).await?;
    Ok(Json(explain(&mut tx, &caller.scope, printer, app.attempts.backoff, app.clock.now()).await?))
}

/// Why a printer is or is not getting this rollout's firmware now.
#[utoipa::path(get, path = "/api/rollouts/{rollout_id}/explain", operation_id = "explainRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number"),
        ("printer_id" = String, Query, description = "printer_id, UUID or number")),
    responses((status = 200, description = "In words", body = Explanation),
        (status = 404, description = "Rollout or printer not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn of_rollout(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    mut params: Params,
) -> Result<Json<Explanation>, Problem> {
    let named: Option<Named> = params.get("printer_id");
    params.finish()?;
    let named = named
        .ok_or_else(|| Problem::field("printer_id", "is missing; name the printer that you ask about"))?;
    let mut tx = app.pool.begin().await?;
    snapshot(&mut tx).await?;
    let printer = printers::by_name(&mut tx, &caller.scope, &named).await?;
    Ok(Json(
        explain_rollout(&mut tx, &caller.scope, handle, printer, app.attempts.backoff, app.clock.now())
            .await?,
    ))
}
