//! Entity tags (RFC 9110, section 8.8): of what a GET showed, and of what a PATCH means to change.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::{self, Problem};

/// Answers a GET with its entity tag, or with 304 when the client has it already. The tag is the resource's
/// revision, which only operators move, and a hash of the body, which counters move too.
pub fn tagged(request: &HeaderMap, revision: i64, body: &impl Serialize) -> Result<Response, Problem> {
    let json = serde_json::to_vec(body).map_err(Problem::internal)?;
    let tag = format!("\"{revision}-{}\"", hex::encode(&Sha256::digest(&json)[..8]));
    let matches = known(request, &tag);
    let tag = HeaderValue::from_str(&tag).map_err(Problem::internal)?;
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if matches {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, [(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Whether `If-None-Match` says that the client has what this tag stands for.
pub fn known(request: &HeaderMap, tag: &str) -> bool {
    let tags = request.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    tags.is_some_and(|tags| tags.trim() == "*" || tags.split(',').any(|one| bare(one) == tag))
}

/// The revision that `If-Match` demands. Only that part of the tag counts: a counter that moved is no conflict.
pub fn if_match(request: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = request.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let quoted = bare(text).strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let revision = quoted.and_then(|tag| tag.split('-').next()).and_then(|revision| revision.parse().ok());
    revision.map(Some).ok_or_else(|| {
        Problem::new(
            &problem::PRECONDITION,
            "If-Match must hold one ETag as a GET of this resource gave it, or *.",
        )
    })
}

fn bare(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag)
}
