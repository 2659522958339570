//! Brings a fleet up at a rate instead of all at once.

use std::{sync::Mutex, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Hands out moments, evenly spaced.
#[derive(Debug)]
pub(super) struct Ramp {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Ramp {
    /// `rate` moments a second; without one, now.
    pub(super) fn new(rate: Option<f64>) -> Self {
        let gap =
            rate.filter(|rate| *rate > 0.0).map(|rate| Duration::from_secs_f64((1.0 / rate).min(3600.0)));
        Self { gap: gap.unwrap_or_default(), next: Mutex::new(Instant::now()) }
    }

    /// Waits for the caller's moment.
    pub(super) async fn turn(&self) {
        if self.gap.is_zero() {
            return;
        }
        let moment = {
            let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let moment = *next;
            *next += self.gap;
            moment
        };
        sleep_until(moment).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_spaced() {
        let ramp = Ramp::new(Some(100.0));
        let began = Instant::now();
        for _ in 0..11 {
            ramp.turn().await;
        }
        assert!(began.elapsed().as_millis() >= 99, "{:?}", began.elapsed());
    }
}
