//! What is sent to rollouts, and how it is parsed.

use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::clock::Time;
use crate::http::extract::{maybe_object, maybe_objects, object};
use crate::rollouts::plan::{AbortRule, OnEnd, Rate, Span, Step, Template};
use crate::rollouts::{Change, Error, RolloutType, Status, Target, Wanted};
use crate::windows::{Windows, WindowsBody};

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
    /// Only printers of these platforms.
    platforms: Option<Vec<String>>,
    /// Only printers that run this version or a higher one.
    min_version: Option<String>,
    /// Only printers that run this version or a lower one.
    max_version: Option<String>,
    /// Only printers whose version was installed by this rollout, by id or number.
    #[schema(value_type = Option<String>)]
    installed_by: Option<Value>,
    /// Only printers that ran this version before their last update.
    previous_version: Option<String>,
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
    #[serde(deserialize_with = "object")]
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
    /// Whether printers that run a newer version are taken down to this one.
    #[serde(default)]
    allow_downgrade: bool,
    /// Steps by name: canary, careful or fast.
    #[schema(value_type = Option<Template>)]
    template: Option<String>,
    /// Steps: it advances by itself when a step's soak is over and its thresholds hold, and pauses when they do not.
    #[serde(default, deserialize_with = "maybe_objects")]
    steps: Option<Vec<Step>>,
    /// When it gives up by itself.
    #[serde(default, deserialize_with = "maybe_object")]
    abort_on: Option<AbortRule>,
    /// Silence after which an open update weighs against the release, like `10m`, which is the default.
    #[schema(value_type = Option<String>)]
    confirm_within: Option<String>,
    /// Silence after which an open update fails with reason `timeout`; unless given, as the server is configured.
    #[schema(value_type = Option<String>)]
    stuck_after: Option<String>,
    /// Tries a printer, 1 to 100; unless given, as the server is configured.
    max_attempts: Option<u32>,
    /// Most updates that may be open at once.
    max_in_flight: Option<u32>,
    /// Most offers within any minute: a number, or an object for a rate that grows with successes.
    rate_per_minute: Option<RateBody>,
    /// When it ends by itself, RFC 3339.
    #[schema(value_type = Option<DateTime<Utc>>)]
    ends_at: Option<String>,
    /// What that means: stop (pause) or cancel.
    #[schema(value_type = Option<OnEnd>)]
    on_end: Option<String>,
    /// Whether a second person has to approve it before it starts.
    #[serde(default)]
    requires_approval: bool,
    /// Maintenance windows: offers are made while one is open, in the printer's time zone when that is known.
    #[schema(value_type = Option<Windows>)]
    #[serde(default, deserialize_with = "maybe_object")]
    windows: Option<WindowsBody>,
    /// Whether steps and the abort rule count only printers with a key of their own; what others say weighs nothing then.
    #[serde(default)]
    own_keys_only: bool,
}

/// A rate: so many offers a minute, or one that grows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "a number of offers a minute, or {\"base\", \"factor\", \"per_confirmed\", \"max\"}"
)]
pub enum RateBody {
    /// Constant.
    Constant(u32),
    /// Growing.
    Growing(Rate),
}

impl From<RateBody> for Rate {
    fn from(body: RateBody) -> Self {
        match body {
            RateBody::Constant(base) => Self::constant(base),
            RateBody::Growing(rate) => rate,
        }
    }
}

/// `POST /api/rollouts/{id}/approve` and `…/deny`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"comment": "tested on my desk"}))]
pub struct ApprovalBody {
    /// Why.
    pub(in crate::rollouts) comment: Option<String>,
}

/// `POST /api/rollouts/{id}/rollback`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"to_version": "1.4.0"}))]
pub struct RollbackBody {
    /// The version to go back to; unless given, the one that each printer had.
    pub(in crate::rollouts) to_version: Option<String>,
}

/// `POST /api/printers/{printer_id}/update`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"firmware_version": "1.5.0"}))]
pub struct ForceBody {
    /// The version that the printer is to run.
    pub(in crate::rollouts) firmware_version: String,
    /// Only a release of this channel; else that of the printer, else the most stable one.
    pub(in crate::rollouts) channel: Option<String>,
    /// Whether it may be lower than what the printer runs.
    #[serde(default)]
    pub(in crate::rollouts) allow_downgrade: bool,
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

/// Collects what is wrong while fields are parsed.
#[derive(Default)]
pub(in crate::rollouts) struct Errors(Vec<(String, String)>);

impl Errors {
    /// What was parsed, if nothing was wrong.
    pub(in crate::rollouts) fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Invalid(self.0)) }
    }

    fn add(&mut self, field: &str, detail: impl Into<String>) {
        self.0.push((field.to_owned(), detail.into()));
    }

    /// The value, or a note of what is wrong with it.
    pub(in crate::rollouts) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        field: &str,
        text: &str,
    ) -> Option<T> {
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
            platforms: errors.list("target.platforms", body.target.platforms),
            owners: None,
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
            installed_by: None,
            previous_version: body
                .target
                .previous_version
                .as_deref()
                .and_then(|text| errors.parse("target.previous_version", text)),
        };
        let installed_by = body.target.installed_by.as_ref().map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let installed_by = installed_by.and_then(|text| errors.parse("target.installed_by", &text));
        let rollout_type = errors.parse("rollout_type", &body.rollout_type);
        let percentage = errors.percentage(body.rollout_percentage);
        let scheduled_for = body.scheduled_for.as_deref().and_then(|text| errors.time("scheduled_for", text));
        let ends_at = body.ends_at.as_deref().and_then(|text| errors.time("ends_at", text));
        let on_end = body.on_end.as_deref().and_then(|text| errors.parse("on_end", text)).unwrap_or_default();
        let template = body.template.as_deref().and_then(|text| errors.parse("template", text));
        let windows = match body.windows.map(Windows::try_from) {
            Some(Err(bad)) => {
                errors.0.extend(bad.within("windows"));
                None
            }
            Some(Ok(windows)) => Some(windows),
            None => None,
        };
        let mut span =
            |field: &str, text: Option<&str>| text.and_then(|text| errors.parse::<Span>(field, text));
        let confirm_within = span("confirm_within", body.confirm_within.as_deref());
        let stuck_after = span("stuck_after", body.stuck_after.as_deref());
        match (version, rollout_type) {
            (Some(version), Some(rollout_type)) if errors.0.is_empty() => Ok(Self {
                version,
                channel,
                target,
                installed_by,
                rollout_type,
                percentage,
                scheduled_for,
                start: body.start.unwrap_or(true),
                allow_downgrade: body.allow_downgrade,
                template,
                steps: body.steps,
                abort_on: body.abort_on,
                confirm_within,
                stuck_after,
                max_attempts: body.max_attempts,
                max_in_flight: body.max_in_flight,
                rate: body.rate_per_minute.map(Rate::from),
                ends_at,
                on_end,
                requires_approval: body.requires_approval,
                windows,
                own_keys_only: body.own_keys_only,
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
