//! The last check before an offer leaves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gate {
    epoch: i64,
    open: bool,
}

type Gates = HashMap<Uuid, Gate>;

/// How long a fence is believed after the rollouts were read. A process that was frozen, or that cannot read them any
/// more, sends nothing once this is over. It is less than a lease of `printers` leaves after the last scan, so that
/// whoever waits for all living replicas may forget one whose lease has run out.
pub const BELIEVED: Duration = Duration::from_secs(10);

/// Which rollouts may send, and under which epoch. Every narrowing of a rollout (pause, cancel, lower percentage)
/// raises its epoch, so news that arrives late or twice can never reopen what was closed.
#[derive(Clone, Debug)]
pub struct Fence {
    gates: Arc<RwLock<Gates>>,
    /// When what the gates say was read.
    noted: Arc<Mutex<Instant>>,
}

impl Default for Fence {
    /// All closed.
    fn default() -> Self {
        Self { gates: Arc::default(), noted: Arc::new(Mutex::new(Instant::now())) }
    }
}

/// Permission to write one frame. Whoever closes the gate waits until all of these are dropped.
#[derive(Debug)]
pub struct Pass(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<Gates>);

impl Fence {
    /// Permission to write a frame of this rollout, made under this epoch; none when it was narrowed since.
    pub async fn pass(&self, rollout: Uuid, epoch: i64) -> Option<Pass> {
        let gates = self.gates.clone().read_owned().await;
        let open = gates.get(&rollout) == Some(&Gate { epoch, open: true });
        (open && self.read_at().elapsed() < BELIEVED).then(|| Pass(gates))
    }

    fn read_at(&self) -> Instant {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All gates are as the rows were at some moment after `began`.
    pub fn noted(&self, began: Instant) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = began.max(*noted);
    }

    /// Takes note of a rollout's state. When this returns, no frame of an older epoch is being written any more.
    pub async fn set(&self, rollout: Uuid, epoch: i64, open: bool) {
        apply(&mut *self.gates.write().await, rollout, epoch, open);
    }

    /// Takes note of many rollouts. Returns whether there was anything new.
    pub async fn set_all(&self, states: impl IntoIterator<Item = (Uuid, i64, bool)>) -> bool {
        let states: Vec<_> = states.into_iter().collect();
        let unchanged = {
            let gates = self.gates.read().await;
            states.iter().all(|(id, epoch, open)| gates.get(id) == Some(&Gate { epoch: *epoch, open: *open }))
        };
        if unchanged {
            return false;
        }
        let mut gates = self.gates.write().await;
        for (rollout, epoch, open) in states {
            apply(&mut gates, rollout, epoch, open);
        }
        true
    }

    /// The rollouts that this fence believes to be open, whose rows must be looked at when the plan is read.
    pub async fn open(&self) -> Vec<Uuid> {
        self.gates.read().await.iter().filter(|(_, gate)| gate.open).map(|(id, _)| *id).collect()
    }
}

/// A higher epoch is newer. Within one epoch a rollout can only have been opened: closing always raises it.
fn apply(gates: &mut Gates, rollout: Uuid, epoch: i64, open: bool) {
    let gate = gates.entry(rollout).or_insert(Gate { epoch, open });
    if epoch > gate.epoch {
        *gate = Gate { epoch, open };
    } else if epoch == gate.epoch {
        gate.open |= open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ROLLOUT: Uuid = Uuid::from_u128(7);

    #[tokio::test]
    async fn a_closed_rollout_lets_nothing_through_and_old_news_do_not_reopen_it() {
        let fence = Fence::default();
        assert!(fence.pass(ROLLOUT, 1).await.is_none(), "unknown is closed");
        fence.set(ROLLOUT, 1, true).await;
        assert!(fence.pass(ROLLOUT, 1).await.is_some());
        fence.set(ROLLOUT, 2, false).await;
        fence.set_all([(ROLLOUT, 1, true)]).await;
        assert!(fence.pass(ROLLOUT, 1).await.is_none());
        assert!(fence.pass(ROLLOUT, 2).await.is_none());
        fence.set(ROLLOUT, 2, true).await;
        assert!(
            fence.pass(ROLLOUT, 1).await.is_none(),
            "a frame made before the pause stays void after the resume"
        );
        assert!(fence.pass(ROLLOUT, 2).await.is_some());
    }

    #[tokio::test]
    async fn a_fence_that_was_not_renewed_for_long_lets_nothing_through() {
        let fence = Fence::default();
        fence.set(ROLLOUT, 1, true).await;
        let long_ago = Instant::now().checked_sub(BELIEVED).unwrap();
        *fence.noted.lock().unwrap() = long_ago;
        assert!(fence.pass(ROLLOUT, 1).await.is_none(), "as after the process was frozen");
        fence.noted(Instant::now());
        assert!(fence.pass(ROLLOUT, 1).await.is_some());
        fence.noted(long_ago);
        assert!(fence.pass(ROLLOUT, 1).await.is_some(), "older news change nothing");
    }

    #[tokio::test]
    async fn closing_waits_for_a_frame_that_is_being_written() {
        let fence = Fence::default();
        fence.set(ROLLOUT, 1, true).await;
        let pass = fence.pass(ROLLOUT, 1).await;
        let closing = tokio::spawn({
            let fence = fence.clone();
            async move { fence.set(ROLLOUT, 2, false).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!closing.is_finished());
        drop(pass);
        closing.await.unwrap();
    }
}
