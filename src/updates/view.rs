//! An update as it is shown.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::types::{Reason, Status};

/// One attempt to update one printer, as REST shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 123, "rollout_id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "rollout_number": 42,
    "printer_id": "770e8400-e29b-41d4-a716-446655440000", "firmware_version": "1.5.0", "from_version": "1.4.0", "attempt": 1,
    "status": "completed", "open": false, "reason": null, "error_message": null, "started_at": "2026-01-15T10:05:00Z",
    "completed_at": "2026-01-15T10:07:30Z", "confirmed_at": "2026-01-15T10:07:30Z", "last_percent": 100,
    "last_status_message": "Downloading 100%", "download_started_at": null, "download_ended_at": null, "download_bytes": null, "shared_key": false
}))]
pub struct UpdateView {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) rollout_id: Option<Uuid>,
    pub(super) rollout_number: Option<i64>,
    pub(super) printer_id: String,
    pub(super) firmware_version: String,
    pub(super) from_version: String,
    /// Which try of this rollout with this printer.
    pub(super) attempt: i32,
    pub(super) status: Status,
    /// False once the outcome is settled; a `completed` update stays open until the printer proved it.
    pub(super) open: bool,
    pub(super) reason: Option<Reason>,
    pub(super) error_message: Option<String>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) completed_at: Option<DateTime<Utc>>,
    /// When the printer came back on the new version.
    pub(super) confirmed_at: Option<DateTime<Utc>>,
    /// 0 to 100, -1 for an error.
    pub(super) last_percent: i32,
    pub(super) last_status_message: Option<String>,
    /// When its image was first asked for through a link of ours.
    pub(super) download_started_at: Option<DateTime<Utc>>,
    /// When the last byte through a link of ours left.
    pub(super) download_ended_at: Option<DateTime<Utc>>,
    /// Bytes that went through a link of ours.
    pub(super) download_bytes: Option<i64>,
    /// Whether the printer showed a key that speaks for others as well.
    pub(super) shared_key: bool,
}
