//! `GET /api/firmware/download/{version}`: the image through this server, for whoever cannot take it from S3.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use sqlx::PgPool;
use tokio_util::task::TaskTracker;

use super::selector;
use crate::auth::Caller;
use crate::firmware::{Release, db};
use crate::http::problem::{Common, Problem};
use crate::http::{Params, Segment, cache};
use crate::ids::FirmwareId;
use crate::state::AppState;
use crate::storage::Object;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// What the ESP8266's updater says it runs.
const RUNS_MD5: &str = "x-esp8266-sketch-md5";

/// Download an image.
///
/// Has Content-Length and `x-MD5`, never chunks, so that an HTTP/1.0 client such as the ESP8266's can take it.
#[utoipa::path(get, path = "/api/firmware/download/{version}", operation_id = "downloadFirmware", tag = "firmware",
    params(("version" = String, Path), ("channel" = Option<Channel>, Query, description = "the most stable that has it unless given"),
        ("platform" = Option<Platform>, Query, description = "esp8266 unless given")),
    responses((status = 200, description = "The image", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it already, by its ETag or by the MD5 of what it runs"),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"), Common))]
pub async fn download(
    State(app): State<AppState>,
    caller: Caller,
    method: Method,
    Segment(version): Segment<Version>,
    request: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let release =
        db::find(&mut *app.pool.acquire().await?, &caller.scope, &selector(version, params)?).await?;
    let headers = headers(&release)?;
    let runs = request.get(RUNS_MD5).and_then(|md5| md5.to_str().ok());
    let has_it = runs.is_some_and(|md5| md5.eq_ignore_ascii_case(&release.md5));
    if has_it || cache::known(&request, &tag(&release)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, headers[0].1.clone())]).into_response());
    }
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(release.file_size))];
    if method == Method::HEAD {
        return Ok((headers, length).into_response());
    }
    let object = app.uploads.store.get(&release.object_key).await?;
    if i64::try_from(object.length) != Ok(release.file_size) {
        let (key, stored, released) = (&release.object_key, object.length, release.file_size);
        return Err(Problem::internal(format!("{key} has {stored} bytes, {released} were released")));
    }
    let body = counted(object, release.id, app.pool.clone(), app.shutdown.tasks.clone());
    Ok((headers, length, body).into_response())
}

fn tag(release: &Release) -> String {
    format!("\"{}\"", release.sha256)
}

/// The headers that do not depend on the method; the entity tag is the first.
fn headers(release: &Release) -> Result<[(HeaderName, HeaderValue); 4], Problem> {
    let text = |text: String| HeaderValue::from_str(&text).map_err(Problem::internal);
    let name = format!("attachment; filename=\"paperminder-{}.bin\"", release.version);
    Ok([
        (header::ETAG, text(tag(release))?),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, text(name)?),
        // The core's ESP8266httpUpdate checks it when the sketch set no MD5 itself.
        (HeaderName::from_static("x-md5"), text(release.md5.clone())?),
    ])
}

/// The object's bytes; when the last one is taken, the download counts.
fn counted(object: Object, id: FirmwareId, pool: PgPool, tasks: TaskTracker) -> Body {
    let (mut sent, length) = (0, object.length);
    Body::from_stream(object.body.into_data_stream().inspect_ok(move |chunk| {
        sent += chunk.len() as u64;
        if sent == length && !chunk.is_empty() {
            let pool = pool.clone();
            tasks.spawn(async move {
                let count = async { db::count_download(&mut *pool.acquire().await?, id).await };
                if let Err(error) = count.await {
                    tracing::warn!(%error, "a download was not counted");
                }
            });
        }
    }))
}
