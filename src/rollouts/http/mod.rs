//! REST of rollouts.

mod act;
mod explain;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::wire::{CreateRollout, PatchRollout, RolloutDetails, RolloutList, RolloutView};
use super::{
    Change, DryRun, Rollout, Status, Wanted, census, change, count, create, db, delete, dry_run, snapshot,
    steward,
};
use crate::auth::Caller;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{Common, Problem};
use crate::http::{Body, Json, Params, Segment, cache};
use crate::ids::Handle;
use crate::state::AppState;
use crate::updates;
use crate::version::Version;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(get_rollout, patch, delete_rollout))
        .merge(act::routes())
        .merge(explain::routes())
}

/// Create a rollout.
///
/// Immediate and gradual rollouts are active at once unless `start` is false; scheduled ones start by themselves. With
/// `dry_run=true` nothing is created: the answer tells what it would do.
#[utoipa::path(post, path = "/api/rollouts", operation_id = "createRollout", tag = "rollouts", request_body = CreateRollout,
    params(("dry_run" = Option<bool>, Query, description = "true: only tell what it would do")),
    responses((status = 200, description = "What it would do, with dry_run=true", body = DryRun), (status = 201, description = "Created", body = RolloutView),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn post(
    State(app): State<AppState>,
    caller: Caller,
    mut params: Params,
    Body(body): Body<CreateRollout>,
) -> Result<Response, Problem> {
    let dry: Option<bool> = params.get("dry_run");
    params.finish()?;
    let (wanted, now) = (Wanted::try_from(body)?, app.clock.now());
    if dry == Some(true) {
        return Ok(Json(dry_run(&app.pool, &caller, wanted, app.attempts.max, now).await?).into_response());
    }
    let rollout = create(&app.pool, &caller, wanted, app.attempts.max, now).await?;
    app.engine.changed(&rollout).await;
    tracing::info!(rollout = rollout.number, version = %rollout.version, status = %rollout.status, "rollout created");
    let location =
        HeaderValue::from_str(&format!("/api/rollouts/{}", rollout.id)).map_err(Problem::internal)?;
    let body = Json(view(&app, rollout).await?);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// List rollouts.
#[utoipa::path(get, path = "/api/rollouts", operation_id = "listRollouts", tag = "rollouts",
    params(("status" = Option<Status>, Query), ("firmware_version" = Option<String>, Query),
        ("sort" = Option<String>, Query, description = "number or created_at; -number, the newest first, unless given"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = RolloutList), Common))]
async fn list(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let filters = (params.get("status"), params.get::<Version>("firmware_version"));
    let page = Page::read(&mut params, "rollouts", db::SORTS, true);
    params.finish()?;
    let mut tx = app.pool.begin().await?;
    snapshot(&mut tx).await?;
    let (rollouts, next_cursor, total) =
        db::list(&mut tx, &caller.scope, (filters.0, filters.1.as_ref()), &page).await?;
    let mut counters = count(&mut tx, &rollouts).await?;
    let with_counters = |rollout: Rollout| {
        let counters = counters.remove(&rollout.id).unwrap_or_default();
        RolloutView::new(rollout, counters)
    };
    let rollouts: Vec<_> = rollouts.into_iter().map(with_counters).collect();
    let (rows, link) = (Rows(rollouts.len()), page.link(next_cursor.as_deref()));
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &RolloutList { rollouts, total, next_cursor })?)
        .into_response())
}

/// One rollout, by id or number, with the printers that it has an update for.
#[utoipa::path(get, path = "/api/rollouts/{rollout_id}", operation_id = "getRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number"), ("target_status" = Option<updates::Status>, Query),
        ("sort" = Option<String>, Query, description = "of the targets: number; -number, the newest first, unless given"),
        ("limit" = Option<u16>, Query, description = "targets on a page, 1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "The rollout", body = RolloutDetails),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_rollout(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let status = params.get("target_status");
    let page = Page::read(&mut params, "targets", updates::TARGET_SORTS, true);
    params.finish()?;
    let mut tx = app.pool.begin().await?;
    snapshot(&mut tx).await?;
    let rollout = db::find(&mut tx, &caller.scope, handle, false).await?;
    let (id, revision) = (rollout.id, rollout.revision);
    let counters = count(&mut tx, std::slice::from_ref(&rollout)).await?.remove(&id).unwrap_or_default();
    let total = census::targets(&mut tx, id, status).await?;
    let (targets, next_cursor, targets_total) =
        updates::targets(&mut tx, &caller.scope, id, status, &page, total).await?;
    let waiting_for = steward::waiting_for(&mut tx, &rollout, app.clock.now()).await?;
    let rollout = RolloutView::new(rollout, counters);
    let link = page.link(next_cursor.as_deref());
    let body = RolloutDetails { rollout, waiting_for, targets, targets_total, next_cursor };
    Ok((link, cache::tagged(&headers, revision, &body)?).into_response())
}

/// Pause, resume or cancel a rollout, or change its percentage.
///
/// Takes effect at once for every connected printer. Nothing that a pause or a cancel forbids leaves after the answer.
#[utoipa::path(patch, path = "/api/rollouts/{rollout_id}", operation_id = "updateRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number"), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")),
    request_body = PatchRollout,
    responses((status = 200, description = "The rollout after the change", body = RolloutView),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The rollout's state does not allow this", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it in the meantime", body = Problem, content_type = "application/problem+json"), Common))]
async fn patch(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    headers: HeaderMap,
    params: Params,
    Body(body): Body<PatchRollout>,
) -> Result<Response, Problem> {
    params.finish()?;
    let wanted = Change { if_revision: cache::if_match(&headers)?, ..Change::try_from(body)? };
    let rollout = change(&app.pool, &caller, handle, wanted, app.clock.now()).await?;
    app.engine.changed(&rollout).await;
    app.engine.everywhere(&rollout).await?;
    tracing::info!(rollout = rollout.number, status = %rollout.status, percentage = rollout.percentage, "rollout changed");
    Ok(Json(view(&app, rollout).await?).into_response())
}

/// Delete a rollout of which no update is open. Its history stays readable.
#[utoipa::path(delete, path = "/api/rollouts/{rollout_id}", operation_id = "deleteRollout", tag = "rollouts",
    params(("rollout_id" = String, Path, description = "UUID or number")),
    responses((status = 204, description = "Deleted"),
        (status = 404, description = "Rollout not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has open updates", body = Problem, content_type = "application/problem+json"), Common))]
async fn delete_rollout(
    State(app): State<AppState>,
    caller: Caller,
    Segment(handle): Segment<Handle>,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.finish()?;
    let rollout = delete(&app.pool, &caller, handle, app.clock.now()).await?;
    app.engine.changed(&rollout).await;
    app.engine.everywhere(&rollout).await?;
    tracing::info!(rollout = rollout.number, "rollout deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// A rollout with its counters.
async fn view(app: &AppState, rollout: Rollout) -> Result<RolloutView, Problem> {
    let mut tx = app.pool.begin().await?;
    snapshot(&mut tx).await?;
    let counters =
        count(&mut tx, std::slice::from_ref(&rollout)).await?.remove(&rollout.id).unwrap_or_default();
    Ok(RolloutView::new(rollout, counters))
}
