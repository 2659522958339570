//! Names of time zones, and what the clocks there show. The rules are compiled in: a container needs no zoneinfo.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres};

use crate::clock::Time;

/// The IANA name of a time zone, in its own spelling, such as `Europe/Rome`. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct TimeZoneName(TimeZone);

/// Why a text is no [`TimeZoneName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the IANA name of a time zone; the nearest is `{nearest}`")]
pub struct BadZone {
    text: String,
    nearest: String,
}

impl BadZone {
    fn new(text: &str) -> Self {
        let text: String = text.chars().take(64).collect();
        let wanted = text.trim().replace(' ', "_").to_lowercase();
        // People know the city rather than the continent.
        let closeness = |name: &str| {
            let name = name.to_lowercase();
            let city = name.rsplit('/').next().unwrap_or_default();
            strsim::jaro_winkler(&name, &wanted).max(strsim::jaro_winkler(city, &wanted))
        };
        let zones = TimeZoneDatabase::bundled();
        let nearest = zones
            .available()
            .map(|name| (closeness(name.as_str()), name))
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map_or_else(|| "UTC".to_owned(), |(_, name)| name.to_string());
        Self { text, nearest }
    }
}

impl TimeZoneName {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // Every zone that was found by its name has one.
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Day, hour and minute there, and where: `Tue 02:00 Europe/Rome`.
    pub fn wall_clock(&self, at: Time) -> String {
        let at = Timestamp::from_microsecond(at.timestamp_micros()).unwrap_or(Timestamp::MAX);
        format!("{} {self}", self.0.to_datetime(at).strftime("%a %H:%M"))
    }

    /// What the clock on the wall shows, in microseconds since Monday 00:00.
    pub(super) fn since_monday(&self, at: Timestamp) -> i64 {
        let wall = self.0.to_datetime(at);
        let days = i64::from(wall.weekday().to_monday_zero_offset());
        let hours = days * 24 + i64::from(wall.hour());
        let seconds = (hours * 60 + i64::from(wall.minute())) * 60 + i64::from(wall.second());
        seconds * 1_000_000 + i64::from(wall.subsec_nanosecond()) / 1000
    }

    /// When the offset from UTC may change next.
    pub(super) fn change_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.0.following(at).next().map(|change| change.timestamp())
    }
}

impl Default for TimeZoneName {
    fn default() -> Self {
        Self::utc()
    }
}

impl FromStr for TimeZoneName {
    type Err = BadZone;
    fn from_str(text: &str) -> Result<Self, BadZone> {
        let found = TimeZoneDatabase::bundled().get(text).ok().filter(|zone| !zone.is_unknown());
        found.map(Self).ok_or_else(|| BadZone::new(text))
    }
}

impl fmt::Display for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TimeZoneName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl sqlx::Type<Postgres> for TimeZoneName {
    fn type_info() -> PgTypeInfo {
        <str as sqlx::Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for TimeZoneName {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<Postgres>>::encode_by_ref(&self.as_str(), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for TimeZoneName {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(<&str as Decode<Postgres>>::decode(value)?.parse()?)
    }
}
