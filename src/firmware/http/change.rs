//! Promoting and amending releases.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::selector;
use super::view::Firmware;
use crate::auth::Caller;
use crate::firmware::{Amendment, Error, Promotion, amend, promote};
use crate::http::problem::{Common, Problem};
use crate::http::{Body, Json, Params, Segment, cache};
use crate::state::AppState;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// `POST /api/firmware/{version}/promote`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": "canary", "to": "beta"}))]
pub struct PromoteFirmware {
    /// The channel that it comes from; needed when the version stands in several others.
    from: Option<Channel>,
    /// The channel that it goes to.
    to: Channel,
    /// `esp8266` unless given.
    platform: Option<Platform>,
}

/// Release a version on another channel, without a second upload.
///
/// The image is copied within the object store, under a key of its own.
#[utoipa::path(post, path = "/api/firmware/{version}/promote", operation_id = "promoteFirmware", tag = "firmware",
    params(("version" = String, Path)), request_body = PromoteFirmware,
    responses((status = 201, description = "Released", body = Firmware),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It stands there already, or `from` must be named", body = Problem, content_type = "application/problem+json"), Common))]
pub async fn post_promotion(
    State(app): State<AppState>,
    caller: Caller,
    Segment(version): Segment<Version>,
    params: Params,
    Body(body): Body<PromoteFirmware>,
) -> Result<Response, Problem> {
    let mut from = selector(version, params)?;
    (from.channel, from.platform) = (body.from, body.platform.unwrap_or(from.platform));
    if from.channel == Some(body.to) {
        return Err(Problem::field("to", "is the channel that it comes from; name another"));
    }
    let (uploads, wanted) = (app.uploads.by(caller), Promotion { from, to: body.to });
    // A task of its own, because a copy without a row must be taken back even when the client vanishes.
    let task = app.shutdown.tasks.spawn(async move { promote(&uploads, &wanted).await });
    let firmware = Firmware::new(task.await.map_err(Problem::internal)??, &app);
    let location = format!(
        "/api/firmware/{}?channel={}&platform={}",
        firmware.version, firmware.channel, firmware.platform
    );
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(firmware)).into_response())
}

/// `PATCH /api/firmware/{version}`. What is left out stays; null takes a text away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"deprecated": true}))]
pub struct PatchFirmware {
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    release_notes: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    changelog: Option<Option<String>>,
    mandatory: Option<bool>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    min_upgrade_version: Option<Option<String>>,
    /// True withdraws the release: nobody is offered it any more. False restores it.
    deprecated: Option<bool>,
}

/// Tells null from nothing.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

impl TryFrom<PatchFirmware> for Amendment {
    type Error = Error;

    fn try_from(body: PatchFirmware) -> Result<Self, Error> {
        let invalid = |field: &str, detail: String| Error::Invalid(vec![(field.into(), detail)]);
        for (field, text) in [("release_notes", &body.release_notes), ("changelog", &body.changelog)] {
            if text.as_ref().and_then(Option::as_ref).is_some_and(|text| text.contains('\0')) {
                return Err(invalid(field, "must not contain a NUL character".into()));
            }
        }
        let least =
            body.min_upgrade_version.map(|least| least.map(|text| text.parse()).transpose()).transpose();
        let least = least.map_err(|error: crate::version::BadVersion| {
            invalid("min_upgrade_version", format!("is not valid: {error}"))
        })?;
        let nothing = body.release_notes.is_none() && body.changelog.is_none() && body.mandatory.is_none();
        if nothing && least.is_none() && body.deprecated.is_none() {
            let fields = "release_notes, changelog, mandatory, min_upgrade_version or deprecated";
            return Err(invalid("body", format!("changes nothing; send {fields}")));
        }
        Ok(Self {
            release_notes: body.release_notes,
            changelog: body.changelog,
            mandatory: body.mandatory,
            min_upgrade_version: least,
            deprecated: body.deprecated,
            if_revision: None,
        })
    }
}

/// Change a release's notes and rules, withdraw it or restore it. Its bytes never change.
#[utoipa::path(patch, path = "/api/firmware/{version}", operation_id = "updateFirmware", tag = "firmware",
    params(("version" = String, Path), ("channel" = Option<Channel>, Query, description = "the most stable that has it unless given"),
        ("platform" = Option<Platform>, Query, description = "esp8266 unless given"),
        ("If-Match" = Option<String>, Header, description = "the ETag of a GET")),
    request_body = PatchFirmware,
    responses((status = 200, description = "The release after the change", body = Firmware),
        (status = 404, description = "Firmware version not found", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it in the meantime", body = Problem, content_type = "application/problem+json"), Common))]
pub async fn patch(
    State(app): State<AppState>,
    caller: Caller,
    Segment(version): Segment<Version>,
    headers: HeaderMap,
    params: Params,
    Body(body): Body<PatchFirmware>,
) -> Result<Response, Problem> {
    let by = selector(version, params)?;
    let wanted = Amendment { if_revision: cache::if_match(&headers)?, ..Amendment::try_from(body)? };
    let release = amend(&app.pool, &caller, &by, wanted, app.clock.now()).await?;
    tracing::info!(version = %release.version, channel = %release.channel, deprecated = release.deprecated_at.is_some(), "release amended");
    Ok(Json(Firmware::new(release, &app)).into_response())
}
