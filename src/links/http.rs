//! `GET /d/{token}`: outside `/api`, because the token is the credential.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream;

use super::db::{self, Link};
use super::limit::Full;
use super::stream::Meter;
use super::token::Token;
use crate::http::problem::{self, Problem};
use crate::http::{ClientIp, Segment};
use crate::state::AppState;
use crate::telemetry::metrics;
use crate::{storage, updates};

/// The room's route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/d/{token}", get(download))
}

/// What of an image in memory is handed to a connection at a time, in bytes: as much as that buffers.
const PIECE: usize = 64 << 10;
/// What the ESP8266's updater says about itself (`ESP8266httpUpdate.cpp` of the Arduino core).
const SKETCH_MD5: HeaderName = HeaderName::from_static("x-esp8266-sketch-md5");
const FREE_SPACE: HeaderName = HeaderName::from_static("x-esp8266-free-space");
/// What it checks when the sketch set no MD5 itself.
const X_MD5: HeaderName = HeaderName::from_static("x-md5");

async fn download(
    State(app): State<AppState>,
    Extension(client): Extension<ClientIp>,
    Segment(token): Segment<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let permit = app.links.enter(client.household()).map_err(|full| busy(&app, full))?;
    let gone = || {
        Problem::new(&problem::LINK_GONE, "This link downloads nothing: it expired, or was never handed out.")
    };
    let token: Token = token.parse().map_err(|_| gone())?;
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    let link = db::find(&mut conn, &token, now).await?.ok_or_else(gone)?;
    let etag = HeaderValue::from_str(&format!("\"{}\"", link.sha256)).map_err(Problem::internal)?;
    if said(&headers, &SKETCH_MD5).is_some_and(|md5| md5.eq_ignore_ascii_case(&link.md5))
        || said(&headers, &header::IF_NONE_MATCH).is_some_and(|tags| tags.as_bytes() == etag.as_bytes())
    {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    if let Some(free) = said(&headers, &FREE_SPACE).and_then(|free| free.parse::<u64>().ok())
        && free < link.size
    {
        drop(conn);
        return Err(refuse_small(&app, &link, free).await?);
    }
    let whole = format!("attachment; filename=\"paperminder-{}.bin\"", link.version);
    let mut answer = vec![
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_str(&whole).map_err(Problem::internal)?),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-transform")),
        (header::ETAG, etag),
        (X_MD5, HeaderValue::from_str(&link.md5).map_err(Problem::internal)?),
    ];
    let range = wanted(&headers, link.size).map_err(|()| unsatisfiable(link.size))?;
    let (status, length) = match range {
        None => (StatusCode::OK, link.size),
        Some((first, last)) => {
            let text = format!("bytes {first}-{last}/{}", link.size);
            answer.push((header::CONTENT_RANGE, HeaderValue::from_str(&text).map_err(Problem::internal)?));
            (StatusCode::PARTIAL_CONTENT, last - first + 1)
        }
    };
    answer.push((header::CONTENT_LENGTH, HeaderValue::from(length)));
    if method == Method::HEAD {
        return Ok((status, headers_of(answer), Body::empty()).into_response());
    }
    if link.follows_redirects {
        updates::download_started(&mut conn, link.update, now).await?;
        drop(conn);
        let url = app.uploads.store.presign(&link.key, now).await?;
        let location = HeaderValue::from_str(&url).map_err(Problem::internal)?;
        return Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response());
    }
    // Both to their end: a statement that is dropped half-way costs its connection.
    let started = async {
        let started = updates::download_started(&mut conn, link.update, now).await;
        drop(conn);
        started
    };
    let (started, body) = tokio::join!(started, bytes_of(&app, &link, range));
    started?;
    let (body, found) = body?;
    if found != length {
        return Err(Problem::internal(format!("{} has {found} bytes instead of {length}", link.key)));
    }
    metrics::link_download();
    let meter = Meter::new(
        app.pool.clone(),
        app.clock.clone(),
        app.shutdown.tasks.clone(),
        &link,
        range.is_none(),
        permit,
    );
    Ok((status, headers_of(answer), meter.body(body)).into_response())
}

/// What is asked for, and its length: from memory, or as it comes from S3.
async fn bytes_of(
    app: &AppState,
    link: &Link,
    range: Option<(u64, u64)>,
) -> Result<(Body, u64), storage::Error> {
    let store = &app.uploads.store;
    let Some(mut image) = app.images.get(store, &link.key, link.size, &link.sha256).await? else {
        let object = store.get_range(&link.key, range).await?;
        return Ok((object.body, object.length));
    };
    if let Some((first, last)) = range {
        // Within the image, which is in memory: `wanted` saw to it.
        image = image.slice(first as usize..=last as usize);
    }
    let length = image.len() as u64;
    // In pieces, so that the meter counts what went out and not what was handed over.
    let pieces = std::iter::from_fn(move || {
        let piece = image.split_to(image.len().min(PIECE));
        (!piece.is_empty()).then_some(Ok::<_, std::convert::Infallible>(piece))
    });
    Ok((Body::from_stream(stream::iter(pieces)), length))
}

fn headers_of(pairs: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
    pairs.into_iter().collect()
}

fn said<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// One range of bytes, both ends included. A header that we do not understand, or that asks for several, is ignored
/// (RFC 9110, section 14.2).
fn wanted(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(parsed) =
        said(headers, &header::RANGE).and_then(|text| http_range_header::parse_range_header(text).ok())
    else {
        return Ok(None);
    };
    match parsed.validate(size) {
        Ok(ranges) => {
            Ok(if let [range] = ranges.as_slice() { Some((*range.start(), *range.end())) } else { None })
        }
        Err(_) => Err(()),
    }
}

fn unsatisfiable(size: u64) -> Problem {
    Problem::new(
        &problem::RANGE,
        format!(
            "The range lies outside of the image, which has {size} bytes; ask for less, or for all of it."
        ),
    )
}

fn busy(app: &AppState, full: Full) -> Problem {
    metrics::refused(match full {
        Full::Streams => "downloads",
        Full::Address => "download_rate",
    });
    let detail = match full {
        Full::Streams => {
            "As many downloads stream through this replica as MAX_CONCURRENT_DOWNLOADS allows; try again in a few seconds."
        }
        Full::Address => {
            "This address started more downloads a minute than DOWNLOADS_PER_ADDRESS allows; try again in a minute."
        }
    };
    tracing::debug!(?full, downloads = app.shutdown.tasks.len(), "a download must wait");
    Problem {
        retry_after: Some(if full == Full::Streams { 5 } else { 60 }),
        ..Problem::new(&problem::DOWNLOADS_FULL, detail)
    }
}

/// The image does not fit, so the printer must not begin: it would fail after the download. That ends the attempt.
async fn refuse_small(app: &AppState, link: &Link, free: u64) -> Result<Problem, Problem> {
    let why = format!("The printer has {free} bytes free, and the image has {}.", link.size);
    let mut tx = app.pool.begin().await?;
    let ended = updates::no_space(&mut tx, link.update, &why, app.clock.now()).await?;
    tx.commit().await?;
    if let Some((printer, rollout)) = ended {
        app.steward.ended(printer, rollout);
    }
    Ok(Problem::new(&problem::NO_SPACE, format!("{why} It cannot be installed.")))
}
