//! REST of what an operator does to rollouts and to single printers.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::view;
use crate::auth::Caller;
use crate::http::problem::{Common, Problem};
use crate::http::{Body, Json, Params, Segment};
use crate::ids::Handle;
use crate::printers::{self, Named};
use crate::rollouts::wire::{
    ApprovalBody, Errors, ForceBody, RetryView, RollbackBody, RollbackView, RolloutView,
};
use crate::rollouts::{Force, advance, approve, force, retry_failed, undo};
use crate::state::AppState;
use crate::updates::UpdateView;

/// These routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(post_advance))
        .routes(routes!(post_approve))
        .routes(routes!(post_deny))
        .routes(routes!(post_retry))
        .routes(routes!(post_rollback))
        .routes(routes!(post_update))
}

/// Take the next step now, whatever the current one is waiting for.
#[utoipa::path(post, path = "/api/rollouts/{rollout_id}/advance", operation_id = "advanceRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number")),
    responses((status = 200, description = "In its next step", body = RolloutView),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has no next step, or is not active", body = Problem, content_type = "application/problem+json"), Common))]
async fn post_advance(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    params: Params,
) -> Result<Json<RolloutView>, Problem> {
    params.finish()?;
    let rollout = advance(&app.pool, &caller, handle, app.clock.now()).await?;
    app.engine.changed(&rollout).await;
    app.engine.everywhere(&rollout).await?;
    tracing::info!(rollout = rollout.number, step = rollout.step + 1, "an operator took the next step");
    Ok(Json(view(&app, rollout).await?))
}

/// Approve a rollout that waits for a second person. It starts, unless it is scheduled for later.
#[utoipa::path(post, path = "/api/rollouts/{rollout_id}/approve", operation_id = "approveRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number")), request_body = ApprovalBody,
    responses((status = 200, description = "Approved", body = RolloutView),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It waits for nobody", body = Problem, content_type = "application/problem+json"), Common))]
async fn post_approve(
    app: State<AppState>,
    caller: Caller,
    handle: Segment<Handle>,
    params: Params,
    body: Body<ApprovalBody>,
) -> Result<Json<RolloutView>, Problem> {
    decide(app, caller, handle, params, body, true).await
}

/// Deny a rollout that waits for a second person. That is final.
#[utoipa::path(post, path = "/api/rollouts/{rollout_id}/deny", operation_id = "denyRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number")), request_body = ApprovalBody,
    responses((status = 200, description = "Denied, and so cancelled", body = RolloutView),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It waits for nobody", body = Problem, content_type = "application/problem+json"), Common))]
async fn post_deny(
    app: State<AppState>,
    caller: Caller,
    handle: Segment<Handle>,
    params: Params,
    body: Body<ApprovalBody>,
) -> Result<Json<RolloutView>, Problem> {
    decide(app, caller, handle, params, body, false).await
}

async fn decide(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    params: Params,
    Body(body): Body<ApprovalBody>,
    agreed: bool,
) -> Result<Json<RolloutView>, Problem> {
    params.finish()?;
    if body.comment.as_ref().is_some_and(|comment| comment.chars().count() > 1000) {
        return Err(Problem::field("comment", "must have at most 1000 characters"));
    }
    let rollout = approve(&app.pool, &caller, handle, agreed, body.comment, app.clock.now()).await?;
    app.engine.changed(&rollout).await;
    app.engine.everywhere(&rollout).await?;
    tracing::info!(rollout = rollout.number, agreed, "a second person decided about a rollout");
    Ok(Json(view(&app, rollout).await?))
}

/// Try the printers again whose tries are used up.
#[utoipa::path(post, path = "/api/rollouts/{rollout_id}/retry-failed", operation_id = "retryFailed", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number")),
    responses((status = 200, description = "How many are tried again", body = RetryView),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was cancelled", body = Problem, content_type = "application/problem+json"), Common))]
async fn post_retry(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    params: Params,
) -> Result<Json<RetryView>, Problem> {
    params.finish()?;
    let (rollout, retried) = retry_failed(&app.pool, &caller, handle).await?;
    app.steward.moved(rollout.id);
    tracing::info!(rollout = rollout.number, retried, "failures were forgiven");
    Ok(Json(RetryView { retried, rollout: view(&app, rollout).await? }))
}

/// Undo a rollout: cancel it, and bring the printers that took it back.
///
/// Each goes back to the release that it had, or all to `to_version`. What does that are rollouts of their own.
#[utoipa::path(post, path = "/api/rollouts/{rollout_id}/rollback", operation_id = "rollBack", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number")), request_body = RollbackBody,
    responses((status = 200, description = "The rollout, and those that undo it", body = RollbackView),
        (status = 404, description = "Rollout or firmware version not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was rolled back already", body = Problem, content_type = "application/problem+json"), Common))]
async fn post_rollback(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    params: Params,
    Body(body): Body<RollbackBody>,
) -> Result<Json<RollbackView>, Problem> {
    params.finish()?;
    let mut errors = Errors::default();
    let to = body.to_version.as_deref().and_then(|text| errors.parse("to_version", text));
    errors.finish()?;
    let (rollout, back) = undo(&app.pool, &caller, handle, to, app.clock.now()).await?;
    app.engine.changed(&rollout).await;
    app.engine.everywhere(&rollout).await?;
    tracing::warn!(rollout = rollout.number, "an operator rolled a rollout back");
    let mut rollbacks = Vec::new();
    for rollback in back {
        app.engine.changed(&rollback).await;
        rollbacks.push(view(&app, rollback).await?);
    }
    Ok(Json(RollbackView { rollout: view(&app, rollout).await?, rollbacks }))
}

/// Force an update on one printer.
///
/// It goes out at once, or when the printer connects, whatever rollouts, percentages, limits and auto_update say. The
/// printer may decline.
#[utoipa::path(post, path = "/api/printers/{printer_id}/update", operation_id = "forceUpdate", tag = "printers",
    params(("printer_id" = String, Path, description = "printer_id, UUID or number")), request_body = ForceBody,
    responses((status = 201, description = "The update", body = UpdateView),
        (status = 404, description = "Printer or firmware version not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It runs that version, a newer one, or has an open update", body = Problem, content_type = "application/problem+json"), Common))]
async fn post_update(
    State(app): State<AppState>,
    caller: Caller,
    Segment(named): Segment<Named>,
    params: Params,
    Body(body): Body<ForceBody>,
) -> Result<Response, Problem> {
    params.finish()?;
    let mut errors = Errors::default();
    let version = errors.parse("firmware_version", &body.firmware_version);
    let channel = body.channel.as_deref().and_then(|text| errors.parse("channel", text));
    errors.finish()?;
    let printer = printers::by_name(&mut *app.pool.acquire().await?, &caller.scope, &named).await?;
    let wanted =
        Force { version: version.unwrap_or_default(), channel, allow_downgrade: body.allow_downgrade };
    let update = force(&app.pool, &caller, printer, wanted, app.clock.now()).await?;
    tracing::info!(%printer, version = %body.firmware_version, "an update was forced");
    let location = format!("/api/printers/{printer}/updates");
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(update)).into_response())
}
