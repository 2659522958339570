//! What browsers are told: which pages may call, and what may be done with an answer.
//!
//! The printers' own paths, `/ws` and `/d`, get none of the security headers: no browser shows what is there, and an
//! ESP8266 reads every line of an answer's head into little memory.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::config::Cors;

/// What an answer of REST may load when a browser shows it: nothing.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// What the interactive documentation may load: itself. It sets styles on elements, and draws icons from `data:`.
const DOCS: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];
/// A year. Other names of the domain are none of our business.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// What pages of other origins may read of our answers.
const READABLE: [HeaderName; 8] = [
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::CONTENT_DISPOSITION,
    header::ALLOW,
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("traceparent"),
];

/// Who reaches us how.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// By HTTPS, here or at a proxy in front.
    pub by_https: bool,
}

/// The middleware for security headers. What an answer says itself stays.
pub async fn secure(State(reached): State<Reached>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/ws/") || path.starts_with("/d/") {
        return next.run(request).await;
    }
    let is_page = path.starts_with("/docs");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(if is_page { DOCS } else { NOTHING });
    if reached.by_https {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HSTS);
    }
    if !is_page {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

/// CORS as configured. Pages whose origin is listed may send the cookie of a session; with `*` nobody may.
pub fn cors(config: &Cors) -> CorsLayer {
    let layer = CorsLayer::new()
        // `*` would not cover Authorization (Fetch standard, section 3.3.2).
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]);
    match config {
        Cors::Any => layer.allow_origin(Any).expose_headers(Any),
        Cors::Only(origins) => layer
            .allow_origin(AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok())))
            .allow_credentials(!origins.is_empty())
            .expose_headers(READABLE),
    }
}
