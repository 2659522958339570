//! A bound on how long a request may take.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::problem::Problem;

/// Longest time until an answer begins. What streams out after that takes as long as it takes.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The middleware. A form that streams in has a limit on silence instead, because its length is the client's.
pub async fn in_time(request: Request, next: Next) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    if request.method() == Method::POST && kind.starts_with(b"multipart/") {
        return next.run(request).await;
    }
    match timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::unavailable("A part of the service", "the answer was not ready in time").into_response()
        }
    }
}
