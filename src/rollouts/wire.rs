//! The bodies of the rollouts' requests and answers.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Change, Counters, Error, Rollout, RolloutType, Status, Target, Wanted};
use crate::clock::Time;
use crate::http::problem::{FieldError, Problem};
use crate::ids::{PrinterId, UserId};
use crate::updates::UpdateView;
use crate::version::Version;
use crate::words::Channel;

/// Most entries of a list in a target.
const MAX_NAMES: usize = 10_000;

/// Whom a rollout is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TargetBody {
    /// Every printer.
    all: Option<bool>,
    /// Printers of these users.
    user_ids: Option<Vec<String>>,
    /// These printers.
    printer_ids: Option<Vec<String>>,
    /// Only printers that follow one of these channels.
    channels: Option<Vec<String>>,
    /// Only printers that run this version or a higher one.
    min_version: Option<String>,
    /// Only printers that run this version or a lower one.
    max_version: Option<String>,
}

/// `POST /api/rollouts`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"firmware_version": "1.5.0", "target": {"channels": ["stable"], "min_version": "1.0.0"},
    "rollout_type": "gradual", "rollout_percentage": 10}))]
pub struct CreateRollout {
    /// The version that printers are to run.
    firmware_version: String,
    /// Only releases of this channel; else that of the printer, else the most stable one.
    channel: Option<String>,
    target: TargetBody,
    #[schema(value_type = RolloutType)]
    rollout_type: String,
    /// 0 to 100; needed when gradual.
    rollout_percentage: Option<i64>,
    /// RFC 3339; needed when scheduled.
    #[schema(value_type = Option<DateTime<Utc>>)]
    scheduled_for: Option<String>,
    /// False leaves it pending until it is PATCHed to active.
    start: Option<bool>,
}

/// `PATCH /api/rollouts/{id}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rollout_percentage": 50}))]
pub struct PatchRollout {
    /// active, paused or cancelled.
    #[schema(value_type = Option<Status>)]
    status: Option<String>,
    /// 0 to 100.
    rollout_percentage: Option<i64>,
}

/// A rollout as REST shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "number": 42, "firmware_version": "1.5.0",
    "firmware_version_id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "channel": null, "target_all": false, "target_user_ids": null,
    "target_printer_ids": null, "target_channels": ["stable"], "min_version": "1.0.0", "max_version": null, "rollout_type": "gradual",
    "rollout_percentage": 20, "scheduled_for": null, "max_attempts": 3, "status": "active", "total_targets": 150, "completed_count": 30,
    "confirmed_count": 29, "failed_count": 2, "declined_count": 5, "pending_count": 113, "excluded": {"not_older": 12},
    "created_at": "2026-01-15T10:00:00Z", "updated_at": "2026-01-15T10:00:00Z", "started_at": "2026-01-15T10:00:00Z"
}))]
pub struct RolloutView {
    id: Uuid,
    number: i64,
    #[schema(value_type = String)]
    firmware_version: Version,
    firmware_version_id: Uuid,
    channel: Option<Channel>,
    target_all: bool,
    #[schema(value_type = Option<Vec<String>>)]
    target_user_ids: Option<Vec<UserId>>,
    #[schema(value_type = Option<Vec<String>>)]
    target_printer_ids: Option<Vec<PrinterId>>,
    target_channels: Option<Vec<Channel>>,
    #[schema(value_type = Option<String>)]
    min_version: Option<Version>,
    #[schema(value_type = Option<String>)]
    max_version: Option<Version>,
    rollout_type: RolloutType,
    /// Printers whose bucket is below it are offered the release.
    rollout_percentage: u8,
    scheduled_for: Option<DateTime<Utc>>,
    max_attempts: u32,
    status: Status,
    /// completed + failed + declined + pending.
    total_targets: i64,
    /// Reported or proved.
    completed_count: i64,
    /// Of the completed, those that came back on the new version.
    confirmed_count: i64,
    failed_count: i64,
    declined_count: i64,
    pending_count: i64,
    /// Printers of the target that it cannot serve, by reason.
    excluded: BTreeMap<String, i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
}

/// A rollout with the printers that it has an update for.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolloutDetails {
    #[serde(flatten)]
    pub(super) rollout: RolloutView,
    /// The last attempt with each printer that was offered the release, newest first, a page of them.
    pub(super) targets: Vec<UpdateView>,
    /// How many there are on all pages.
    pub(super) targets_total: i64,
    /// Pass it as `cursor` for the next page of targets; null on the last.
    pub(super) next_cursor: Option<String>,
}

/// A page of rollouts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"rollouts": [], "total": 0, "next_cursor": null}))]
pub struct RolloutList {
    pub(super) rollouts: Vec<RolloutView>,
    /// Rollouts that match, on all pages.
    pub(super) total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub(super) next_cursor: Option<String>,
}

impl RolloutView {
    pub(super) fn new(rollout: Rollout, counters: Counters) -> Self {
        let target = rollout.target;
        Self {
            id: rollout.id.0,
            number: rollout.number,
            firmware_version: rollout.version,
            firmware_version_id: rollout.firmware.0,
            channel: rollout.channel,
            target_all: target.all,
            target_user_ids: target.user_ids,
            target_printer_ids: target.printer_ids,
            target_channels: target.channels,
            min_version: target.min_version,
            max_version: target.max_version,
            rollout_type: rollout.rollout_type,
            rollout_percentage: rollout.percentage,
            scheduled_for: rollout.scheduled_for,
            max_attempts: rollout.max_attempts,
            status: rollout.status,
            total_targets: counters.total,
            completed_count: counters.completed,
            confirmed_count: counters.confirmed,
            failed_count: counters.failed,
            declined_count: counters.declined,
            pending_count: counters.pending,
            excluded: counters.excluded,
            created_at: rollout.created_at,
            updated_at: rollout.updated_at,
            started_at: rollout.started_at,
        }
    }
}

/// Collects what is wrong while fields are parsed.
#[derive(Default)]
struct Errors(Vec<(String, String)>);

impl Errors {
    fn add(&mut self, field: &str, detail: impl Into<String>) {
        self.0.push((field.to_owned(), detail.into()));
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.add(field, format!("is not valid: {error}"))).ok()
    }

    fn list<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        field: &str,
        texts: Option<Vec<String>>,
    ) -> Option<Vec<T>> {
        let texts = texts?;
        if texts.is_empty() {
            self.add(field, "is an empty list; leave it out, or name at least one");
        } else if texts.len() > MAX_NAMES {
            self.add(
                field,
                format!(
                    "has {} entries; {MAX_NAMES} are the most, name users or channels instead",
                    texts.len()
                ),
            );
        }
        let parsed = texts
            .iter()
            .enumerate()
            .filter_map(|(index, text)| self.parse(&format!("{field}[{index}]"), text));
        Some(parsed.collect())
    }

    fn percentage(&mut self, value: Option<i64>) -> Option<u8> {
        let value = value?;
        let percentage = u8::try_from(value).ok().filter(|value| *value <= 100);
        if percentage.is_none() {
            self.add("rollout_percentage", format!("must be a whole number from 0 to 100, this is {value}"));
        }
        percentage
    }

    fn time(&mut self, field: &str, text: &str) -> Option<Time> {
        let parsed = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        parsed
            .map_err(|_| {
                self.add(
                    field,
                    format!("is not an RFC 3339 time such as 2026-01-20T02:00:00Z (this is `{text}`)"),
                )
            })
            .ok()
    }
}

impl TryFrom<CreateRollout> for Wanted {
    type Error = Error;

    fn try_from(body: CreateRollout) -> Result<Self, Error> {
        let mut errors = Errors::default();
        let version = errors.parse("firmware_version", &body.firmware_version);
        let channel = body.channel.as_deref().and_then(|text| errors.parse("channel", text));
        let target = Target {
            all: body.target.all.unwrap_or(false),
            user_ids: errors.list("target.user_ids", body.target.user_ids),
            printer_ids: errors.list("target.printer_ids", body.target.printer_ids),
            channels: errors.list("target.channels", body.target.channels),
            min_version: body
                .target
                .min_version
                .as_deref()
                .and_then(|text| errors.parse("target.min_version", text)),
            max_version: body
                .target
                .max_version
                .as_deref()
                .and_then(|text| errors.parse("target.max_version", text)),
        };
        let rollout_type = errors.parse("rollout_type", &body.rollout_type);
        let percentage = errors.percentage(body.rollout_percentage);
        let scheduled_for = body.scheduled_for.as_deref().and_then(|text| errors.time("scheduled_for", text));
        match (version, rollout_type) {
            (Some(version), Some(rollout_type)) if errors.0.is_empty() => Ok(Self {
                version,
                channel,
                target,
                rollout_type,
                percentage,
                scheduled_for,
                start: body.start.unwrap_or(true),
            }),
            _ => Err(Error::Invalid(errors.0)),
        }
    }
}

impl TryFrom<PatchRollout> for Change {
    type Error = Error;

    fn try_from(body: PatchRollout) -> Result<Self, Error> {
        let mut errors = Errors::default();
        let status = body.status.as_deref().and_then(|text| errors.parse("status", text));
        let percentage = errors.percentage(body.rollout_percentage);
        if let Some(wanted @ (Status::Pending | Status::Completed)) = status {
            errors.add("status", format!("cannot be set to `{wanted}`; use active, paused or cancelled"));
        }
        if body.status.is_none() && body.rollout_percentage.is_none() {
            errors.add("body", "changes nothing; send status, rollout_percentage or both");
        }
        if errors.0.is_empty() {
            Ok(Self { status, percentage, if_revision: None })
        } else {
            Err(Error::Invalid(errors.0))
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use crate::http::problem;
        match error {
            Error::Invalid(errors) => Self::invalid(
                errors.into_iter().map(|(field, detail)| FieldError { field, detail }).collect(),
            ),
            Error::FirmwareNotFound(why) => Self::new(
                &problem::FIRMWARE_NOT_FOUND,
                format!(
                    "Firmware version not found: {why}; list the releases with GET /api/firmware, or upload it first."
                ),
            ),
            Error::NotFound(_) => Self::new(
                &problem::ROLLOUT_NOT_FOUND,
                format!("Rollout not found: {error}; list the rollouts with GET /api/rollouts."),
            ),
            Error::Conflict(why) => Self::new(&problem::ROLLOUT_CONFLICT, why),
            Error::Stale(_) => Self::new(
                &problem::PRECONDITION,
                format!("Somebody changed it in the meantime: {error}; GET it again and decide again."),
            ),
            Error::Database(error) => error.into(),
        }
    }
}
