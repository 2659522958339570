//! A release as it is shown, and its errors as problems.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::firmware::image::Findings;
use crate::firmware::{Error, Release};
use crate::http::problem::{self, FieldError, Problem};
use crate::state::AppState;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// A release as REST shows it. `md5` and `md5_checksum`, `uploaded_at` and `released_at` are the same thing twice.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 15, "version": "1.5.0", "channel": "stable", "platform": "esp8266",
    "file_url": "https://ota.example.com/api/firmware/download/1.5.0?channel=stable&platform=esp8266", "file_size": 1048576,
    "md5": "5d41402abc4b2a76b9719d911017c592", "md5_checksum": "5d41402abc4b2a76b9719d911017c592",
    "sha256_checksum": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "release_notes": "Bug fixes", "changelog": null, "mandatory": false, "min_upgrade_version": "1.0.0",
    "released_at": "2026-01-15T10:30:00Z", "uploaded_at": "2026-01-15T10:30:00Z", "deprecated_at": null,
    "download_count": 0, "success_count": 0, "failure_count": 0, "validated": true, "warnings": []
}))]
pub struct Firmware {
    id: Uuid,
    number: i64,
    #[schema(value_type = String)]
    pub(super) version: Version,
    pub(super) channel: Channel,
    pub(super) platform: Platform,
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
    /// What the image says about itself; null when it was not checked.
    image: Option<Findings>,
    /// Whether the image was checked when it was uploaded.
    validated: bool,
    /// What is odd about the image, in sentences.
    warnings: Vec<String>,
    #[serde(skip)]
    revision: i64,
}

/// A page of releases.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"firmware": [], "total": 0, "next_cursor": null}))]
pub struct FirmwareList {
    pub(super) firmware: Vec<Firmware>,
    /// Releases that match, on all pages.
    pub(super) total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub(super) next_cursor: Option<String>,
}

impl Firmware {
    /// The entity tag of If-Match.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn new(release: Release, app: &AppState) -> Self {
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
            warnings: release.image.as_ref().map(|image| image.warnings.clone()).unwrap_or_default(),
            image: release.image,
            validated: release.validated,
            revision: release.revision,
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
            Error::OutOfScope { .. } => {
                Self::new(&problem::FORBIDDEN, format!("{text}; GET /api/me tells what it is for."))
            }
            Error::NotFound(_) => Self::new(
                &problem::FIRMWARE_NOT_FOUND,
                format!("Firmware version not found: {text}; list the releases with GET /api/firmware."),
            ),
            Error::NoUpload(_) => Self::new(
                &problem::FIRMWARE_NOT_FOUND,
                format!(
                    "There is {text} that can be completed: it never was, it expired, or it was or is being completed or refused; look for the release, then begin a new one."
                ),
            ),
            Error::Ambiguous(channels) => {
                let list = channels.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(", ");
                Self::new(
                    &problem::FIRMWARE_CONFLICT,
                    format!("The version stands in {list}; name one with ?channel=."),
                )
            }
            Error::Image(_) => {
                let errors = vec![FieldError { field: "file".into(), detail: text.clone() }];
                Self { errors, ..Self::new(&problem::VALIDATION, format!("The image is refused: {text}.")) }
            }
            Error::Stale(_) => Self::new(
                &problem::PRECONDITION,
                format!("Somebody changed it in the meantime: {text}; GET it again and decide again."),
            ),
            Error::InUse(_) => Self::new(&problem::FIRMWARE_CONFLICT, text),
            Error::Busy => Self {
                retry_after: Some(10),
                ..Self::new(&problem::UPLOADS_FULL, format!("Try again in a few seconds: {text}."))
            },
            Error::ShuttingDown => Self {
                retry_after: Some(5),
                ..Self::new(&problem::SHUTTING_DOWN, problem::SHUTTING_DOWN.remedy)
            },
            Error::Storage(error) => error.into(),
            Error::Database(error) => error.into(),
        }
    }
}
