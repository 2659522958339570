//! What rollouts answer.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ids::{PrinterId, UserId};
use crate::rollouts::plan::{AbortRule, Approval, OnEnd, Rate, Span, Step, Template};
use crate::rollouts::{Counters, Rollout, RolloutType, Status, StatusReason};
use crate::updates::UpdateView;
use crate::version::Version;
use crate::windows::Windows;
use crate::words::{Channel, Platform};

/// A rollout as REST shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "number": 42, "firmware_version": "1.5.0",
    "firmware_version_id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "channel": null, "target_all": false, "target_user_ids": null,
    "target_printer_ids": null, "target_channels": ["stable"], "min_version": "1.0.0", "max_version": null, "installed_by": null,
    "previous_version": null, "rollout_type": "gradual", "rollout_percentage": 20, "scheduled_for": null, "max_attempts": 3,
    "status": "active", "total_targets": 150, "completed_count": 30, "confirmed_count": 29, "failed_count": 2, "declined_count": 5,
    "pending_count": 113, "in_flight_count": 12, "excluded": {"not_older": 12}, "created_at": "2026-01-15T10:00:00Z",
    "updated_at": "2026-01-15T10:00:00Z", "started_at": "2026-01-15T10:00:00Z", "allow_downgrade": false, "template": null,
    "steps": null, "step": null, "step_started_at": null, "abort_on": {"failure_rate": 10, "min_sample": 20, "action": "pause"},
    "confirm_within": "10m", "stuck_after": null, "max_in_flight": 50, "rate_per_minute": null, "ends_at": null, "on_end": "stop",
    "status_reason": null, "status_detail": null, "approval": "not_required", "approval_comment": null, "approval_at": null,
    "rolls_back": null, "windows": null, "created_by": "key 77aa01f2c3d4", "target_platforms": null, "target_owners": null,
    "own_keys_only": false
}))]
pub struct RolloutView {
    id: Uuid,
    number: i64,
    #[schema(value_type = String)]
    firmware_version: Version,
    /// Null once that release was deleted.
    firmware_version_id: Option<Uuid>,
    channel: Option<Channel>,
    target_all: bool,
    #[schema(value_type = Option<Vec<String>>)]
    target_user_ids: Option<Vec<UserId>>,
    #[schema(value_type = Option<Vec<String>>)]
    target_printer_ids: Option<Vec<PrinterId>>,
    target_channels: Option<Vec<Channel>>,
    target_platforms: Option<Vec<Platform>>,
    /// Narrows the target to printers of these users, whoever the lists name: the scope of the key that made it.
    #[schema(value_type = Option<Vec<String>>)]
    target_owners: Option<Vec<UserId>>,
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
    /// Of the pending, those with an open update.
    in_flight_count: i64,
    allow_downgrade: bool,
    /// Of the target: only printers whose version was installed by this rollout.
    installed_by: Option<Uuid>,
    /// Of the target: only printers that ran this version before their last update.
    #[schema(value_type = Option<String>)]
    previous_version: Option<Version>,
    template: Option<Template>,
    steps: Option<Vec<Step>>,
    /// The current step, counted from 1.
    step: Option<usize>,
    step_started_at: Option<DateTime<Utc>>,
    abort_on: Option<AbortRule>,
    confirm_within: Span,
    stuck_after: Option<Span>,
    max_in_flight: Option<u32>,
    rate_per_minute: Option<Rate>,
    ends_at: Option<DateTime<Utc>>,
    on_end: OnEnd,
    /// Why it is paused or cancelled.
    status_reason: Option<StatusReason>,
    /// The same in words.
    status_detail: Option<String>,
    approval: Approval,
    approval_comment: Option<String>,
    approval_at: Option<DateTime<Utc>>,
    /// The rollout that this one undoes.
    rolls_back: Option<Uuid>,
    windows: Option<Windows>,
    /// Whether its thresholds count only printers with a key of their own.
    own_keys_only: bool,
    /// Who made it, as in a key's `created_by`; `server` when it undoes another; null when that is not known.
    created_by: Option<String>,
}

/// A rollout with the printers that it has an update for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "number": 42, "firmware_version": "1.5.0", "status": "active",
    "rollout_percentage": 20, "total_targets": 150, "completed_count": 30, "failed_count": 2, "declined_count": 5, "pending_count": 113,
    "targets": [{"printer_id": "770e8400-e29b-41d4-a716-446655440000", "status": "completed", "started_at": "2026-01-15T10:05:00Z",
        "completed_at": "2026-01-15T10:07:30Z"}], "targets_total": 37, "next_cursor": null
}))]
pub struct RolloutDetails {
    #[serde(flatten)]
    pub(in crate::rollouts) rollout: RolloutView,
    /// What the current step is waiting for, in words; null without steps, and in the last one.
    pub(in crate::rollouts) waiting_for: Option<String>,
    /// The last attempt with each printer that was offered the release, newest first, a page of them.
    pub(in crate::rollouts) targets: Vec<UpdateView>,
    /// How many there are on all pages.
    pub(in crate::rollouts) targets_total: i64,
    /// Pass it as `cursor` for the next page of targets; null on the last.
    pub(in crate::rollouts) next_cursor: Option<String>,
}

/// A page of rollouts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"rollouts": [], "total": 0, "next_cursor": null}))]
pub struct RolloutList {
    pub(in crate::rollouts) rollouts: Vec<RolloutView>,
    /// Rollouts that match, on all pages.
    pub(in crate::rollouts) total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub(in crate::rollouts) next_cursor: Option<String>,
}

impl RolloutView {
    pub(in crate::rollouts) fn new(rollout: Rollout, counters: Counters) -> Self {
        let target = rollout.target;
        Self {
            id: rollout.id.0,
            number: rollout.number,
            firmware_version: rollout.version,
            firmware_version_id: rollout.firmware.map(|firmware| firmware.0),
            channel: rollout.channel,
            target_all: target.all,
            target_user_ids: target.user_ids,
            target_printer_ids: target.printer_ids,
            target_channels: target.channels,
            target_platforms: target.platforms,
            target_owners: target.owners,
            created_by: rollout.created_by,
            own_keys_only: rollout.own_keys_only,
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
            in_flight_count: counters.in_flight,
            allow_downgrade: rollout.allow_downgrade,
            installed_by: target.installed_by.map(|rollout| rollout.0),
            previous_version: target.previous_version,
            template: rollout.template,
            step: rollout.steps.as_ref().map(|_| rollout.step + 1),
            step_started_at: rollout.stage_started_at.filter(|_| rollout.steps.is_some()),
            steps: rollout.steps,
            abort_on: rollout.abort_on,
            confirm_within: rollout.confirm_within,
            stuck_after: rollout.stuck_after,
            max_in_flight: rollout.max_in_flight,
            rate_per_minute: rollout.rate,
            ends_at: rollout.ends_at,
            on_end: rollout.on_end,
            status_reason: rollout.reason,
            status_detail: rollout.detail,
            approval: rollout.approval,
            approval_comment: rollout.approval_comment,
            approval_at: rollout.approval_at,
            rolls_back: rollout.rolls_back.map(|rollout| rollout.0),
            windows: rollout.windows,
        }
    }
}

/// A rollout that was undone, and those that undo it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"rollout": {"number": 15, "status": "cancelled"}, "rollbacks": [{"number": 16, "firmware_version": "1.4.0"}]}))]
pub struct RollbackView {
    /// As it is now.
    pub(in crate::rollouts) rollout: RolloutView,
    /// One for each version to go back to. A version without a release has none, and `status_detail` names it.
    pub(in crate::rollouts) rollbacks: Vec<RolloutView>,
}

/// What came of another try.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"retried": 3, "rollout": {"number": 15, "status": "active"}}))]
pub struct RetryView {
    /// Printers that failed for good and are tried again.
    pub(in crate::rollouts) retried: u64,
    /// As it is now.
    pub(in crate::rollouts) rollout: RolloutView,
}
