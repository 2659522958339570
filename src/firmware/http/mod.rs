//! REST of releases.

mod download;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Error, Query, Release, Selector, db, delete::delete as remove, form, upload};
use crate::http::log::Rows;
use crate::http::page::Page;
use crate::http::problem::{self, Common, FieldError, Problem};
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
        .routes(routes!(latest))
        .routes(routes!(get_version, delete))
        .routes(routes!(download::download))
}

/// A release as REST shows it. `md5` and `md5_checksum`, `uploaded_at` and `released_at` are the same thing twice.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 15, "version": "1.5.0", "channel": "stable", "platform": "esp8266",
    "file_url": "https://ota.example.com/api/firmware/download/1.5.0?channel=stable&platform=esp8266", "file_size": 1048576,
    "md5": "5d41402abc4b2a76b9719d911017c592", "md5_checksum": "5d41402abc4b2a76b9719d911017c592",
    "sha256_checksum": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "release_notes": "Bug fixes", "changelog": null, "mandatory": false, "min_upgrade_version": "1.0.0",
    "released_at": "2026-01-15T10:30:00Z", "uploaded_at": "2026-01-15T10:30:00Z", "deprecated_at": null,
    "download_count": 0, "success_count": 0, "failure_count": 0
}))]
pub struct Firmware {
    id: Uuid,
    number: i64,
    #[schema(value_type = String)]
    version: Version,
    channel: Channel,
    platform: Platform,
    /// The CDN's URL where there is one (signed URLs go to printers only), else this server's download endpoint.
    file_url: String,
    /// Bytes.
    file_size: i64,
    md5: String,
    md5_checksum: String,
    sha256_checksum: String,
    release_notes: Option<String>,
    changelog: Option<String>,
    mandatory: bool,
    #[schema(value_type = Option<String>)]
    min_upgrade_version: Option<Version>,
    released_at: DateTime<Utc>,
    uploaded_at: DateTime<Utc>,
    deprecated_at: Option<DateTime<Utc>>,
    download_count: i64,
    success_count: i64,
    failure_count: i64,
}

/// A page of releases.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"firmware": [], "total": 0, "next_cursor": null}))]
pub struct FirmwareList {
    firmware: Vec<Firmware>,
    /// Releases that match, on all pages.
    total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

impl Firmware {
    fn new(release: Release, app: &AppState) -> Self {
        let (version, channel, platform) = (&release.version, release.channel, release.platform);
        let encoded = |text: &str| text.replace('+', "%2B");
        let file_url = match &app.cdn_url {
            Some(cdn) => format!("{cdn}/{}", encoded(release.object_key.as_str())),
            None => {
                let (base, version) = (&app.base_url, encoded(&version.to_string()));
                format!("{base}/api/firmware/download/{version}?channel={channel}&platform={platform}")
            }
        };
        Self {
            file_url,
            id: release.id.0,
            number: release.number,
            version: release.version,
            channel,
            platform,
            file_size: release.file_size,
            md5: release.md5.clone(),
            md5_checksum: release.md5,
            sha256_checksum: release.sha256,
            release_notes: release.release_notes,
            changelog: release.changelog,
            mandatory: release.mandatory,
            min_upgrade_version: release.min_upgrade_version,
            released_at: release.released_at,
            uploaded_at: release.released_at,
            deprecated_at: release.deprecated_at,
            download_count: release.download_count,
            success_count: release.success_count,
            failure_count: release.failure_count,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Invalid(errors) => Self::invalid(
                errors.into_iter().map(|(field, detail)| FieldError { field, detail }).collect(),
            ),
            Error::NoForm(kind) => {
                let detail = format!("is `{kind}`; send multipart/form-data, as curl -F does");
                let errors = vec![FieldError { field: "Content-Type".into(), detail }];
                let detail = format!("{text}; send multipart/form-data, as curl -F does.");
                Self { errors, ..Self::new(&problem::MEDIA_TYPE, detail) }
            }
            Error::Malformed(_) => Self::field("body", format!("is not a form that can be read: {text}")),
            Error::Interrupted(_) => Self::new(
                &problem::UPLOAD_INTERRUPTED,
                format!("The upload broke off: {text}; send it again."),
            ),
            Error::TooLarge { limit } => Self::new(
                &problem::FILE_TOO_LARGE,
                format!(
                    "File too large: the image has more than {limit} bytes; make it smaller, or raise MAX_FIRMWARE_SIZE."
                ),
            ),
            Error::Exists { .. } => Self::new(
                &problem::FIRMWARE_EXISTS,
                format!(
                    "Firmware version already exists: {text}; use another version number, or delete that release first."
                ),
            ),
            Error::NotFound(_) => Self::new(
                &problem::FIRMWARE_NOT_FOUND,
                format!("Firmware version not found: {text}; list the releases with GET /api/firmware."),
            ),
            Error::Ambiguous(channels) => {
                let list = channels.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(", ");
                Self::new(
                    &problem::FIRMWARE_CONFLICT,
                    format!("The version stands in {list}; name one with ?channel=."),
                )
            }
            Error::InUse(_) => Self::new(&problem::FIRMWARE_CONFLICT, text),
            Error::ShuttingDown => Self {
                retry_after: Some(5),
                ..Self::new(&problem::SHUTTING_DOWN, problem::SHUTTING_DOWN.remedy)
            },
            Error::Storage(error) => error.into(),
            Error::Database(error) => error.into(),
        }
    }
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
async fn upload_firmware(State(app): State<AppState>, request: Request) -> Result<Response, Problem> {
    let (uploads, limit) = (app.uploads.clone(), app.uploads.max_size);
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
    let (releases, next_cursor, total) = db::list(&mut *app.pool.acquire().await?, &by, &page).await?;
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
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let (channel, platform) =
        (params.get("channel").unwrap_or_default(), params.get("platform").unwrap_or_default());
    params.finish()?;
    let release = db::latest(&mut *app.pool.acquire().await?, channel, platform).await?;
    cache::tagged(&headers, 0, &Firmware::new(release, &app))
}

/// One release by version.
#[utoipa::path(get, path = "/api/firmware/{version}", operation_id = "getFirmware", tag = "firmware",
    params(("version" = String, Path), ("channel" = Option<Channel>, Query, description = "the most stable that has it unless given"),
        ("platform" = Option<Platform>, Query, description = "esp8266 unless given")),
    responses((status = 200, description = "The release", body = Firmware),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"), Common))]
async fn get_version(
    State(app): State<AppState>,
    Segment(version): Segment<Version>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let release = db::find(&mut *app.pool.acquire().await?, &selector(version, params)?).await?;
    cache::tagged(&headers, 0, &Firmware::new(release, &app))
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
    Segment(version): Segment<Version>,
    params: Params,
) -> Result<StatusCode, Problem> {
    remove(&app.pool, &app.uploads.store, &selector(version, params)?).await?;
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
