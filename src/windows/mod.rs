//! Maintenance windows: when updates may begin, told by the clock on the wall where the printer stands.
//!
//! A window is open while that clock shows a time inside it, and nothing else is asked. So summer time needs no rule of
//! its own: an hour that a spring night leaves out opens no window, one that an autumn night has twice is inside both
//! times, and no night is longer or shorter than people there see it. A window that ends at or before its start runs
//! past midnight and belongs to the day on which it starts.
//!
//! Which clock: the printer's, else its owner's (the caller knows both), else that of the windows, else UTC.

mod body;
#[cfg(test)]
mod tests;
mod zone;

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

pub use self::body::{BadWindows, MAX_WINDOWS, WindowsBody};
pub use self::zone::{BadZone, TimeZoneName};
use crate::clock::Time;
use crate::words::vocabulary;

const MINUTE: i64 = 60_000_000;
const MINUTES_OF_DAY: u16 = 24 * 60;
const WEEK: i64 = 7 * MINUTES_OF_DAY as i64 * MINUTE;

vocabulary!(
    /// A day of the week.
    Day {
        /// Monday.
        #[default]
        Mon = "mon",
        /// Tuesday.
        Tue = "tue",
        /// Wednesday.
        Wed = "wed",
        /// Thursday.
        Thu = "thu",
        /// Friday.
        Fri = "fri",
        /// Saturday.
        Sat = "sat",
        /// Sunday.
        Sun = "sun",
    }
);

/// What a clock on the wall shows, in minutes since midnight, 0 to 1439; `02:00` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime(u16);

/// Why a text is no [`WallTime`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time of day; write hours and minutes like 02:00, from 00:00 to 23:59")]
pub struct BadWallTime(String);

impl FromStr for WallTime {
    type Err = BadWallTime;
    fn from_str(text: &str) -> Result<Self, BadWallTime> {
        let two_digits = |part: &str, below: u16| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten().filter(|number| *number < below)
        };
        let parsed = text
            .split_once(':')
            .and_then(|(hours, minutes)| Some(Self(two_digits(hours, 24)? * 60 + two_digits(minutes, 60)?)));
        parsed.ok_or_else(|| BadWallTime(text.chars().take(64).collect()))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A window of some days of every week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Window {
    /// The days on which it starts; all seven unless given.
    #[schema(required = false)]
    days: Vec<Day>,
    /// When it starts, by the clock on the wall: 00:00 to 23:59.
    #[schema(value_type = String, example = "02:00")]
    from: WallTime,
    /// When it has ended; at or before `from` it is a time of the next day.
    #[schema(value_type = String, example = "05:00")]
    to: WallTime,
}

impl Window {
    /// Microseconds until a clock on the wall that shows `wall`, in microseconds since Monday 00:00, is inside; 0 when
    /// it is already.
    fn wait(&self, wall: i64) -> i64 {
        let length = match (self.to.0 + MINUTES_OF_DAY - self.from.0) % MINUTES_OF_DAY {
            0 => MINUTES_OF_DAY,
            minutes => minutes,
        };
        let waits = self.days.iter().map(|day| {
            let start = *day as i64 * i64::from(MINUTES_OF_DAY) + i64::from(self.from.0);
            let since = (wall - start * MINUTE).rem_euclid(WEEK);
            if since < i64::from(length) * MINUTE { 0 } else { WEEK - since }
        });
        waits.min().unwrap_or(WEEK)
    }
}

/// When updates may begin. Without a window they always may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "WindowsBody")]
#[schema(example = json!({"weekly": [{"days": ["mon", "tue"], "from": "02:00", "to": "05:00"}], "time_zone": "Europe/Rome",
    "mandatory_ignores": true}))]
pub struct Windows {
    /// At most 50. An empty list is always open.
    weekly: Vec<Window>,
    /// IANA name, for printers of which no time zone is known; UTC unless given.
    #[schema(value_type = Option<String>, required = false)]
    time_zone: Option<TimeZoneName>,
    /// Whether mandatory releases need not wait for a window; false unless given.
    #[schema(required = false)]
    mandatory_ignores: bool,
}

/// What windows say at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Updates may begin.
    Open,
    /// They may not.
    Closed {
        /// The first moment at which they may again.
        opens: Time,
    },
}

impl Opening {
    /// `open`, or `opens Tue 02:00 Europe/Rome`.
    pub fn in_words(self, zone: &TimeZoneName) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::Closed { opens } => format!("opens {}", zone.wall_clock(opens)),
        }
    }
}

impl Windows {
    /// Whether mandatory releases need not wait.
    pub fn mandatory_ignores(&self) -> bool {
        self.mandatory_ignores
    }

    /// The time zone that counts for a printer whose own, or whose owner's, is `printer`.
    pub fn zone(&self, printer: Option<&TimeZoneName>) -> TimeZoneName {
        printer.or(self.time_zone.as_ref()).cloned().unwrap_or_default()
    }

    /// What they say `now` of a printer whose own time zone, or whose owner's, is `printer`.
    pub fn state(&self, printer: Option<&TimeZoneName>, now: Time) -> Opening {
        if self.weekly.is_empty() {
            return Opening::Open;
        }
        // Calendars end with the year 9999, and so do windows.
        self.opening(&self.zone(printer), now).unwrap_or(Opening::Open)
    }

    /// Between two changes of its offset the clock on the wall runs like any other, so that the wait by that clock is
    /// the wait. A change before the wait is over starts the question anew.
    fn opening(&self, zone: &TimeZoneName, now: Time) -> Option<Opening> {
        let now = Timestamp::from_microsecond(now.timestamp_micros()).ok()?;
        let mut at = now;
        let opens = loop {
            let wall = zone.since_monday(at);
            let wait = self.weekly.iter().map(|window| window.wait(wall)).min()?;
            let opens = at.checked_add(SignedDuration::from_micros(wait)).ok()?;
            match zone.change_after(at).filter(|change| *change <= opens) {
                Some(change) => at = change,
                None => break opens,
            }
        };
        let closed = |opens| Opening::Closed { opens };
        if opens == now {
            Some(Opening::Open)
        } else {
            DateTime::from_timestamp_micros(opens.as_microsecond()).map(closed)
        }
    }
}
