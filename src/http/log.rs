//! Around every request: a trace id, one wide log line, metrics, and the body of a problem.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use super::client_ip::ClientIp;
use super::problem::{self, Problem};
use crate::telemetry;

/// Name of whoever made the request; the `auth` layer puts it into the response's extensions.
#[derive(Clone, Debug)]
pub struct Actor(pub String);

/// The trace of a request, in its extensions.
#[derive(Clone, Debug)]
pub struct TraceId(pub std::sync::Arc<str>);

/// How many rows a list answered with.
#[derive(Clone, Copy, Debug)]
pub struct Rows(pub usize);

/// The middleware.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The template, not the path: paths hold ids and secrets, and would make a metric each.
    let route =
        request.extensions().get::<MatchedPath>().map_or("unmatched", |path| path.as_str()).to_owned();
    let span = tracing::info_span!("request", otel.name = %format!("{} {route}", telemetry::metrics::known(&method)), otel.kind = "server",
        http.request.method = %method, http.route = %route, http.response.status_code = tracing::field::Empty);
    let client = request.extensions().get::<ClientIp>().map(|client| tracing::field::display(client.0));
    let trace_id = telemetry::adopt(&span, request.headers());
    request.extensions_mut().insert(TraceId(trace_id.as_str().into()));
    let mut response = next.run(request).instrument(span.clone()).await;

    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let problem = response.extensions_mut().remove::<Problem>();
    // These come in storms, and are counted by reason; a line each would be the worst of the storm.
    let storm = [
        &problem::TOO_MANY_CONNECTIONS,
        &problem::TOO_MANY_CONNECTS,
        &problem::TOO_MANY_REQUESTS,
        &problem::SHUTTING_DOWN,
    ];
    let storm = problem.as_ref().is_some_and(|problem| storm.iter().any(|kind| problem.is(kind)));
    let (problem_type, cause) = problem.as_ref().map_or((None, None), |problem| {
        (Some(problem.kind.clone()), problem.internal.clone().or_else(|| Some(problem.detail.clone())))
    });
    if let Some(problem) = problem {
        fill(&mut response, problem, &trace_id);
    }
    let elapsed = started.elapsed();
    telemetry::metrics::request(&method, &route, status, elapsed);
    let actor = response.extensions().get::<Actor>().map(|actor| actor.0.as_str());
    let rows = response.extensions().get::<Rows>().map(|rows| rows.0);
    let milliseconds = elapsed.as_secs_f64() * 1e3;
    let _entered = span.enter();
    if storm {
        tracing::debug!(%method, route, status, ms = milliseconds, client, trace_id, problem_type, "request");
    } else if status >= 500 {
        tracing::error!(%method, route, status, ms = milliseconds, client, actor, rows, trace_id, problem_type, cause, "request");
    } else {
        tracing::info!(%method, route, status, ms = milliseconds, client, actor, rows, trace_id, problem_type, cause, "request");
    }
    response
}

fn fill(response: &mut Response, mut problem: Problem, trace_id: &str) {
    problem.trace_id = Some(trace_id.to_owned());
    // A struct of strings and numbers always serialises.
    let json = serde_json::to_vec(&problem).unwrap_or_default();
    *response.body_mut() = Body::from(json);
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
