//! REST of events: one answer that does not end.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::types::{Filter, Kinds};
use super::watch::{Start, Watcher};
use crate::auth::Caller;
use crate::http::Params;
use crate::http::problem::{self, Common, Problem};
use crate::ids::Handle;
use crate::state::AppState;
use crate::telemetry::metrics;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies of nginx's kind not to gather the answer.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// Watch what changes, on any replica, as server-sent events.
///
/// Every event has an `id`. A client that comes back with the last one in `Last-Event-ID` is told everything that it
/// missed, once and in order. A `reset` event says that this is no longer possible: read again what you show. `kind` is
/// one or more of the events' names, separated by commas; a noun alone (`update`) means all of its events. Progress is
/// no event.
#[utoipa::path(get, path = "/api/events", operation_id = "watchEvents", tag = "events",
    params(("rollout_id" = Option<String>, Query, description = "UUID or number: only what is about this rollout and its updates"),
        ("kind" = Option<String>, Query, example = "update.ended,rollout"),
        ("last_event_id" = Option<String>, Query, description = "for clients that cannot set the header"),
        ("Last-Event-ID" = Option<String>, Header, description = "the id of the last event that was seen")),
    responses((status = 200, description = "Events, without an end", body = String, content_type = "text/event-stream",
        example = "retry: 2000\nid: 734011-0\n\nid: 734012-9\nevent: update.ended\ndata: {\"kind\":\"update.ended\",\"at\":\"2026-01-15T10:07:30.000000Z\",\"id\":\"0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9\",\"number\":123,\"rollout_number\":42,\"printer_id\":\"770e8400-e29b-41d4-a716-446655440000\",\"firmware_version\":\"1.5.0\",\"status\":\"completed\",\"open\":false}\n\n"),
        Common))]
async fn watch(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let rollout = params.get::<Handle>("rollout_id");
    let kinds = params.get::<Kinds>("kind").unwrap_or_default();
    let parameter = params.get::<String>("last_event_id");
    params.finish()?;
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().to_owned());
    let start = match header.or(parameter).as_deref() {
        None | Some("") => Start::Now,
        Some(text) => text.parse().map_or(Start::Lost, Start::After),
    };
    let filter = Filter { scope: caller.scope, rollout, kinds };
    let stop = app.shutdown.soft.clone();
    let watcher = Watcher::start(&app.feed, app.pool.clone(), stop, start, filter).await?;
    let watcher = watcher.ok_or_else(|| {
        metrics::refused("event_streams");
        let detail = "As many clients watch events on this replica as MAX_EVENT_STREAMS allows; try again in a few seconds.";
        Problem { retry_after: Some(5), ..Problem::new(&problem::EVENT_STREAMS_FULL, detail) }
    })?;
    let frames = stream::unfold(watcher, async |mut watcher| {
        let frame = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watcher))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}
