//! A printer as it is shown.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::words::{Channel, Platform};

/// A printer as REST shows it. `printer_name` and `name` are the same thing twice.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "0193f7a0-5b7c-7c62-9c57-1f440a6eb2d9", "number": 42, "printer_id": "770e8400-e29b-41d4-a716-446655440000",
    "user_id": "user-123", "printer_name": "Front Desk", "name": "Front Desk", "platform": "esp8266", "firmware_version": "1.0.0",
    "auto_update": true, "update_channel": "stable", "bucket": 37, "online": true, "last_connected": "2026-01-15T10:00:00Z",
    "last_disconnected": null, "last_ip": "192.0.2.7", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-15T10:00:00Z",
    "online_seconds": 1206000, "uptime_percent": 99.7, "time_zone": "Europe/Rome", "shared_key": false, "blocked_at": null
}))]
pub struct Printer {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) printer_id: String,
    pub(super) user_id: String,
    pub(super) printer_name: Option<String>,
    pub(super) name: Option<String>,
    pub(super) platform: Platform,
    pub(super) firmware_version: String,
    pub(super) auto_update: bool,
    pub(super) update_channel: Channel,
    /// Place in gradual rollouts, 0 to 99: in when below the percentage.
    pub(super) bucket: u8,
    pub(super) online: bool,
    pub(super) last_connected: Option<DateTime<Utc>>,
    pub(super) last_disconnected: Option<DateTime<Utc>>,
    pub(super) last_ip: Option<String>,
    /// For how long it was online since it is known, in seconds.
    pub(super) online_seconds: u64,
    /// The same as a share of that time, 0 to 100.
    pub(super) uptime_percent: f64,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    /// IANA name, as it said it itself; null when it said none.
    pub(super) time_zone: Option<String>,
    /// Whether the key that it showed last speaks for other printers as well: what it says can be told to weigh less.
    pub(super) shared_key: bool,
    /// Since when it is kept out; null: it is not.
    pub(super) blocked_at: Option<DateTime<Utc>>,
}
