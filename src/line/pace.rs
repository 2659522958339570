//! How fast one printer is heard. Whoever talks faster waits in its own socket's buffers: nothing is thrown away, because
//! the last of a hundred messages may be the outcome, and nobody else waits.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// The pace of one socket, as small as can be: there are thousands. (The generic cell rate algorithm.)
pub struct Pace {
    /// When all that was heard would have been heard at an even pace.
    even: Instant,
    every: Duration,
}

impl Pace {
    /// So many frames a minute, or all of them at once and then no more for a minute.
    pub fn per_minute(most: NonZeroU32, now: Instant) -> Self {
        Self { even: now, every: MINUTE / most.get() }
    }

    /// A frame was heard. Says until when the next one must wait, if it must.
    pub fn heard(&mut self, now: Instant) -> Option<Instant> {
        self.even = self.even.max(now) + self.every;
        let next = self.even + self.every - MINUTE;
        (next > now).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_at_once_and_then_an_even_pace() {
        let start = Instant::now();
        let mut pace = Pace::per_minute(NonZeroU32::MIN.saturating_add(5), start);
        for _ in 0..5 {
            assert_eq!(pace.heard(start), None);
        }
        let second = Duration::from_secs(1);
        assert_eq!(pace.heard(start), Some(start + 10 * second));
        assert_eq!(pace.heard(start + 10 * second), Some(start + 20 * second));
        assert_eq!(pace.heard(start + 40 * second), None);
        assert_eq!(pace.heard(start + 1000 * second), None, "silence is not saved up");
        for _ in 0..4 {
            assert_eq!(pace.heard(start + 1000 * second), None);
        }
        assert!(pace.heard(start + 1000 * second).is_some());
    }
}
