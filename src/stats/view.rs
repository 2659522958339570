//! The statistics as they are shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::tally::Outcomes;
use crate::rollouts::{RolloutType, Status};

/// Printers, counted by what they are.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Printers {
    pub(super) total: i64,
    /// As each replica said in the last 5 seconds.
    pub(super) online: i64,
    pub(super) by_version: BTreeMap<String, i64>,
    pub(super) by_platform: BTreeMap<String, i64>,
    pub(super) by_channel: BTreeMap<String, i64>,
}

/// A rollout that is under way or held.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActiveRollout {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) firmware_version: String,
    pub(super) rollout_type: RolloutType,
    pub(super) rollout_percentage: i32,
    pub(super) status: Status,
    pub(super) started_at: Option<DateTime<Utc>>,
}

/// Rollouts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rollouts {
    /// How many are in which state.
    pub(super) by_status: BTreeMap<String, i64>,
    /// Those under way or held, the newest 50; GET one for its counters.
    pub(super) active: Vec<ActiveRollout>,
}

/// Outcomes of an hour or a day (UTC).
#[derive(Debug, Serialize, ToSchema)]
pub struct Bucket {
    /// Its begin.
    pub(super) at: DateTime<Utc>,
    pub(super) completed: i64,
    pub(super) failed: i64,
    pub(super) declined: i64,
    pub(super) cancelled: i64,
    /// completed / (completed + failed); null when there are none.
    pub(super) success_rate: Option<f64>,
}

/// Outcomes of a stretch of time, and how they came in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutcomesOverTime)]
pub struct Window {
    #[serde(flatten)]
    pub(super) outcomes: Outcomes,
    /// The oldest first; the last one is not over yet.
    pub(super) buckets: Vec<Bucket>,
}

/// An error that printers run into.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommonError {
    pub(super) reason: Option<String>,
    /// Its first 200 characters.
    pub(super) error_message: Option<String>,
    /// Of the last 10,000 failures.
    pub(super) count: i64,
    pub(super) last_at: Option<DateTime<Utc>>,
    /// The newest attempt that failed like this.
    pub(super) last_update_id: Uuid,
}

/// Attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Updates {
    /// Whose outcome is still to come.
    pub(super) open: i64,
    /// This hour and the 23 before it, by hour.
    pub(super) last_24_hours: Window,
    /// Today and the 29 days before it, by day.
    pub(super) last_30_days: Window,
    /// The last 30 days, by the version that was offered.
    pub(super) by_version: BTreeMap<String, Outcomes>,
    /// By the platform of the release.
    pub(super) by_platform: BTreeMap<String, Outcomes>,
    /// By the channel of the release.
    pub(super) by_channel: BTreeMap<String, Outcomes>,
    /// The ten most common among the last 10,000 failures.
    pub(super) errors: Vec<CommonError>,
}

/// Statistics for dashboards.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "at": "2026-01-15T10:07:30Z",
    "printers": {"total": 1500, "online": 1312, "by_version": {"1.4.0": 530, "1.5.0": 970}, "by_platform": {"esp8266": 1500}, "by_channel": {"stable": 1500}},
    "rollouts": {"by_status": {"active": 1, "completed": 12}, "active": [{"id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "number": 42,
        "firmware_version": "1.5.0", "rollout_type": "gradual", "rollout_percentage": 20, "status": "active", "started_at": "2026-01-15T10:00:00Z"}]},
    "updates": {"open": 12,
        "last_24_hours": {"completed": 970, "failed": 30, "declined": 12, "cancelled": 3, "success_rate": 0.97, "duration_p50_seconds": 74.2,
            "duration_p95_seconds": 201.7, "buckets": [{"at": "2026-01-15T10:00:00Z", "completed": 970, "failed": 30, "declined": 12, "cancelled": 3, "success_rate": 0.97}]},
        "last_30_days": {"completed": 970, "failed": 30, "declined": 12, "cancelled": 3, "success_rate": 0.97, "duration_p50_seconds": 74.2,
            "duration_p95_seconds": 201.7, "buckets": [{"at": "2026-01-15T00:00:00Z", "completed": 970, "failed": 30, "declined": 12, "cancelled": 3, "success_rate": 0.97}]},
        "by_version": {}, "by_platform": {}, "by_channel": {},
        "errors": [{"reason": "reported", "error_message": "Update failed: HTTP error 404", "count": 17, "last_at": "2026-01-15T10:07:30Z",
            "last_update_id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9"}]}
}))]
pub struct Stats {
    pub(super) at: DateTime<Utc>,
    pub(super) printers: Printers,
    pub(super) rollouts: Rollouts,
    pub(super) updates: Updates,
}
