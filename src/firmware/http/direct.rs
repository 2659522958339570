//! Direct uploads: begun here, filled in S3, completed here.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use utoipa::ToSchema;
use uuid::Uuid;

use super::view::Firmware;
use crate::auth::Caller;
use crate::firmware::{begin, complete};
use crate::http::problem::{Common, Problem};
use crate::http::{Body, Json, Segment};
use crate::ids::FirmwareId;
use crate::state::AppState;
use crate::telemetry::metrics;

/// `POST /api/firmware/uploads`: the fields of an upload's form, and the file's size.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"version": "1.5.0", "channel": "stable", "size": 1048576, "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}))]
pub struct BeginUpload {
    /// Bytes of the file.
    size: u64,
    /// SHA-256 that the file must have, in hex.
    sha256: String,
    /// Semantic version.
    version: String,
    /// `stable` unless given.
    channel: Option<String>,
    /// `esp8266` unless given.
    platform: Option<String>,
    release_notes: Option<String>,
    changelog: Option<String>,
    /// Offered even to printers whose automatic updates are off.
    mandatory: Option<bool>,
    /// Printers below it cannot take this release.
    min_upgrade_version: Option<String>,
    /// `off` releases the image unchecked, for platforms that are not known here.
    validate: Option<String>,
    /// MD5 that the file must have, in hex.
    md5: Option<String>,
}

/// A direct upload that was begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadBegun {
    /// For completing it.
    id: Uuid,
    /// Bytes of every part but the last.
    part_size: u64,
    /// A presigned PUT URL for each part, in order. Each takes exactly as many bytes as its part has.
    urls: Vec<String>,
    /// When the URLs end, and with them the upload.
    expires_at: DateTime<Utc>,
}

/// `POST /api/firmware/uploads/{id}/complete`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteUpload {
    /// The `ETag` that S3 answered to each part's PUT, in order.
    parts: Vec<String>,
}

/// Begin an upload whose bytes go straight into the object store.
#[utoipa::path(post, path = "/api/firmware/uploads", operation_id = "beginUpload", tag = "firmware", request_body = BeginUpload,
    responses((status = 201, description = "Begun; PUT the parts now", body = UploadBegun),
        (status = 409, description = "Firmware version already exists", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "File too large", body = Problem, content_type = "application/problem+json"), Common))]
pub async fn begin_upload(
    State(app): State<AppState>,
    caller: Caller,
    Body(body): Body<BeginUpload>,
) -> Result<Response, Problem> {
    let texts = [
        ("version", Some(body.version)),
        ("sha256", Some(body.sha256)),
        ("channel", body.channel),
        ("platform", body.platform),
        ("release_notes", body.release_notes),
        ("changelog", body.changelog),
        ("mandatory", body.mandatory.map(|mandatory| mandatory.to_string())),
        ("min_upgrade_version", body.min_upgrade_version),
        ("validate", body.validate),
        ("md5", body.md5),
    ];
    let fields: BTreeMap<String, String> =
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect();
    let uploads = app.uploads.by(caller);
    // A task of its own, because it must clean up even when the client vanishes.
    let task = app.shutdown.tasks.spawn(async move { begin(&uploads, fields, body.size).await });
    let begun = task.await.map_err(Problem::internal)??;
    let answer = UploadBegun {
        id: begun.id.0,
        part_size: begun.part_size,
        urls: begun.urls,
        expires_at: begun.expires_at,
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Complete a direct upload: the image is read back, checked and released.
///
/// Parts that are missing or not those that arrived are refused (422), and may be sent again. An image that is refused
/// is removed; a further try needs a new upload.
#[utoipa::path(post, path = "/api/firmware/uploads/{id}/complete", operation_id = "completeUpload", tag = "firmware",
    params(("id" = Uuid, Path)), request_body = CompleteUpload,
    responses((status = 201, description = "Released", body = Firmware),
        (status = 404, description = "No such upload, or no longer", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Firmware version already exists", body = Problem, content_type = "application/problem+json"), Common))]
pub async fn complete_upload(
    State(app): State<AppState>,
    caller: Caller,
    Segment(id): Segment<Uuid>,
    Body(body): Body<CompleteUpload>,
) -> Result<Response, Problem> {
    let uploads = app.uploads.by(caller);
    let work = async move {
        let outcome = complete(&uploads, FirmwareId(id), &body.parts).await;
        metrics::upload(if outcome.is_ok() { "released" } else { "refused" });
        if let Err(error) = &outcome {
            tracing::info!(%error, "a direct upload was refused");
        }
        outcome
    };
    let task = app.shutdown.tasks.spawn(work.in_current_span());
    let firmware = Firmware::new(task.await.map_err(Problem::internal)??, &app);
    let location = format!(
        "/api/firmware/{}?channel={}&platform={}",
        firmware.version, firmware.channel, firmware.platform
    );
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(firmware)).into_response())
}
