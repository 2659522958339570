//! REST of releases.

mod change;
mod direct;
mod download;
mod view;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::view::{Firmware, FirmwareList};
use super::{Error, Query, Selector, db, delete::delete as remove, form, upload};
use crate::auth::Caller;
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{Common, Problem};
use crate::http::{Json, Params, Segment, cache};
use crate::state::AppState;
use crate::telemetry::metrics;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(upload_firmware))
        .routes(routes!(direct::begin_upload))
        .routes(routes!(direct::complete_upload))
        .routes(routes!(latest))
        .routes(routes!(get_version, delete, change::patch))
        .routes(routes!(change::post_promotion))
        .routes(routes!(download::download))
}

/// Fields and boundaries of an upload beside its file, in bytes.
const SLACK: u64 = 2 << 20;

/// The upload's form, for the OpenAPI document; it is read field by field as it streams.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a form, never made")]
#[schema(example = json!({"file": "@firmware.bin", "version": "1.5.0", "channel": "stable", "release_notes": "Bug fixes"}))]
struct UploadForm {
    /// The compiled image.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Semantic version.
    version: String,
    /// `stable` unless given.
    channel: Option<Channel>,
    /// `esp8266` unless given.
    platform: Option<Platform>,
    release_notes: Option<String>,
    changelog: Option<String>,
    /// Offered even to printers whose automatic updates are off.
    mandatory: Option<bool>,
    /// Printers below it cannot take this release.
    min_upgrade_version: Option<String>,
    /// `off` releases the image unchecked, for platforms that are not known here.
    #[schema(example = "on")]
    validate: Option<String>,
    /// MD5 that the file must have, in hex.
    md5: Option<String>,
    /// SHA-256 that the file must have, in hex; the part's `Content-Digest` header will do, too.
    sha256: Option<String>,
}

/// Upload a firmware image and release it.
///
/// The body streams into the object store as it arrives. A refused or broken upload leaves nothing behind.
#[utoipa::path(post, path = "/api/firmware/upload", operation_id = "uploadFirmware", tag = "firmware",
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Released", body = Firmware),
        (status = 400, description = "The upload broke off", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Firmware version already exists", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "File too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no form", body = Problem, content_type = "application/problem+json"),
        Common))]
async fn upload_firmware(
    State(app): State<AppState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (uploads, limit) = (app.uploads.by(caller), app.uploads.max_size);
    let (head, body) = request.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let refused = if app.shutdown.soft.is_cancelled() {
        Some(Error::ShuttingDown)
    } else {
        length.filter(|length| *length > limit + SLACK).map(|_| Error::TooLarge { limit })
    };
    if let Some(error) = refused {
        metrics::upload("refused");
        // Whoever waits for leave to send the body gets the answer instead; everyone else is sending it already.
        if head.headers.get(header::EXPECT).is_none() {
            form::linger(body.into_data_stream());
        }
        return Err(error.into());
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default().to_owned();
    let work = async move {
        let outcome = upload(&uploads, &kind, body).await;
        metrics::upload(if outcome.is_ok() { "released" } else { "refused" });
        match &outcome {
            Ok(release) => {
                let (version, channel, platform) = (&release.version, release.channel, release.platform);
                tracing::info!(%version, %channel, %platform, size = release.file_size, "released");
            }
            Err(error) => tracing::info!(%error, "an upload was refused"),
        }
        outcome
    };
    // A task of its own, because it must clean up even when the client vanishes and this handler is dropped.
    let task = app.shutdown.tasks.spawn(work.in_current_span());
    let release = Firmware::new(task.await.map_err(Problem::internal)??, &app);
    let Firmware { version, channel, platform, .. } = &release;
    let location = format!("/api/firmware/{version}?channel={channel}&platform={platform}");
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(release)).into_response())
}

/// List releases.
#[utoipa::path(get, path = "/api/firmware", operation_id = "listFirmware", tag = "firmware",
    params(("channel" = Option<Channel>, Query), ("platform" = Option<Platform>, Query), ("deprecated" = Option<bool>, Query),
        ("sort" = Option<String>, Query, description = "released_at, version or number; - in front turns it round"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = FirmwareList), Common))]
async fn list(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let by = Query {
        channel: params.get("channel"),
        platform: params.get("platform"),
        deprecated: params.get("deprecated"),
    };
    let page = Page::read(&mut params, "firmware", db::SORTS, true);
    params.finish()?;
    let (releases, next_cursor, total) =
        db::list(&mut *app.pool.acquire().await?, &caller.scope, &by, &page).await?;
    let firmware: Vec<_> = releases.into_iter().map(|release| Firmware::new(release, &app)).collect();
    let (rows, link) = (Rows(firmware.len()), page.link(next_cursor.as_deref()));
    let page = cache::tagged(&headers, 0, &FirmwareList { firmware, total, next_cursor })?;
    Ok((Extension(rows), link, page).into_response())
}

/// The highest version of a channel by semver.
#[utoipa::path(get, path = "/api/firmware/latest", operation_id = "latestFirmware", tag = "firmware",
    params(("channel" = Option<Channel>, Query, description = "stable unless given"), ("platform" = Option<Platform>, Query, description = "esp8266 unless given")),
    responses((status = 200, description = "The release", body = Firmware),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn latest(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let (channel, platform) =
        (params.get("channel").unwrap_or_default(), params.get("platform").unwrap_or_default());
    params.finish()?;
    let release = db::latest(&mut *app.pool.acquire().await?, &caller.scope, channel, platform).await?;
    tagged(&headers, &Firmware::new(release, &app))
}

/// One release by version.
#[utoipa::path(get, path = "/api/firmware/{version}", operation_id = "getFirmware", tag = "firmware",
    params(("version" = String, Path), ("channel" = Option<Channel>, Query, description = "the most stable that has it unless given"),
        ("platform" = Option<Platform>, Query, description = "esp8266 unless given")),
    responses((status = 200, description = "The release", body = Firmware),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_version(
    State(app): State<AppState>,
    caller: Caller,
    Segment(version): Segment<Version>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let release =
        db::find(&mut *app.pool.acquire().await?, &caller.scope, &selector(version, params)?).await?;
    tagged(&headers, &Firmware::new(release, &app))
}

/// Delete a release that nothing refers to.
#[utoipa::path(delete, path = "/api/firmware/{version}", operation_id = "deleteFirmware", tag = "firmware",
    params(("version" = String, Path), ("channel" = Option<Channel>, Query, description = "needed when the version stands in several"),
        ("platform" = Option<Platform>, Query, description = "esp8266 unless given")),
    responses((status = 204, description = "Deleted"),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "In use, or the channel must be named", body = Problem, content_type = "application/problem+json"), Common))]
async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Segment(version): Segment<Version>,
    params: Params,
) -> Result<StatusCode, Problem> {
    remove(&app.pool, &app.uploads.store, &caller, &selector(version, params)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A release by the path and the query.
pub(super) fn selector(version: Version, mut params: Params) -> Result<Selector, Problem> {
    let selector = Selector {
        version,
        channel: params.get("channel"),
        platform: params.get("platform").unwrap_or_default(),
    };
    params.finish()?;
    Ok(selector)
}

fn tagged(headers: &HeaderMap, firmware: &Firmware) -> Result<Response, Problem> {
    cache::tagged(headers, firmware.revision(), firmware)
}
