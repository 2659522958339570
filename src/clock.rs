//! The only source of time. Tests move a manual clock; nothing else in the crate may ask the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeZone, Utc};

/// A moment, always in UTC.
pub type Time = DateTime<Utc>;

/// Tells the time: the system's, or one that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still at `start` until it is moved.
    pub fn manual(start: Time) -> Self {
        Self(Some(Arc::new(AtomicI64::new(start.timestamp_micros()))))
    }

    /// The time, to the microsecond: the resolution of PostgreSQL, so that what was stored compares equal.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may ask")]
    pub fn now(&self) -> Time {
        let micros = match &self.0 {
            Some(micros) => micros.load(Ordering::Relaxed),
            None => Utc::now().timestamp_micros(),
        };
        Utc.timestamp_micros(micros).single().unwrap_or_default()
    }

    /// Moves a manual clock forward; the system's clock stays as it is.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(micros) = &self.0 {
            micros.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }
}
