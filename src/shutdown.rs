//! The end of the process, in phases: a soft token asks everybody to finish, a closing one turns away who still comes, a
//! hard one ends what did not finish, a tracker waits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A load balancer sends printers here for a while after it could see that we end; nobody else takes those.
const GRACE: Duration = Duration::from_secs(10);
/// Most sockets that are let go a second: their printers are back within half a second, at the replicas that stay.
const PACE: u32 = 250;
/// How long whatever is under way may last beyond the last socket's turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process's life. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take no new work, let go of what can be let go.
    pub soft: CancellationToken,
    /// Take no new sockets either, and keep no connection longer than its answer.
    pub closing: CancellationToken,
    /// Stop now.
    pub hard: CancellationToken,
    /// Tasks that must end before the process does.
    pub tasks: TaskTracker,
    /// Connections, which end with their answers when it closes.
    pub connections: TaskTracker,
    queue: Arc<Queue>,
}

/// The sockets on their way out.
#[derive(Debug, Default)]
struct Queue {
    began: OnceLock<(Instant, Drain)>,
    turns: AtomicU32,
}

/// How sockets are let go.
#[derive(Clone, Copy, Debug)]
struct Drain {
    sockets: u32,
    over: Duration,
}

impl Drain {
    /// Over this time, or longer when there are too many sockets for it.
    fn new(sockets: u32, over: Duration) -> Self {
        Self { sockets, over: over.max(Duration::from_secs(1) * sockets / PACE) }
    }

    /// When it is the turn of one of them, from the first, 0, on. Those that came since wait for their elders.
    fn turn(self, place: u32) -> Duration {
        match place.checked_sub(self.sockets) {
            None => self.over.mul_f64(f64::from(place) / f64::from(self.sockets)),
            Some(newcomer) => self.over + Duration::from_secs(1) * newcomer / PACE,
        }
    }
}

impl Shutdown {
    /// Resolves on SIGINT (Ctrl-C) or SIGTERM.
    pub async fn signalled() -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        Ok(())
    }

    /// When the socket that asks is to be let go, once `soft` is over; each asks once.
    pub fn turn(&self) -> Instant {
        let place = self.queue.turns.fetch_add(1, Ordering::Relaxed);
        self.queue.began.get().map_or_else(Instant::now, |(began, drain)| *began + drain.turn(place))
    }

    /// Runs all phases: lets go of this many sockets over this time, takes newcomers in for the first ten seconds of
    /// it, then waits for what is under way. True when everything ended by itself.
    pub async fn run(&self, sockets: u32, over: Duration) -> bool {
        let drain = Drain::new(sockets, over);
        let (began, _) = *self.queue.began.get_or_init(|| (Instant::now(), drain));
        self.soft.cancel();
        self.tasks.close();
        self.connections.close();
        sleep(GRACE.min(drain.over)).await;
        self.closing.cancel();
        let last = drain.turn(self.queue.turns.load(Ordering::Relaxed).max(sockets));
        if timeout_at(began + last + PATIENCE, self.settled()).await.is_ok() {
            return true;
        }
        self.hard.cancel();
        let _ = timeout(Duration::from_secs(5), self.settled()).await;
        false
    }

    /// Nothing is under way any more: what connections leave to be done is done as well.
    async fn settled(&self) {
        loop {
            self.tasks.wait().await;
            self.connections.wait().await;
            if self.tasks.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_evenly_and_never_faster_than_the_pace() {
        let seconds =
            |sockets, over, place| Drain::new(sockets, Duration::from_secs(over)).turn(place).as_secs_f64();
        assert_eq!([0, 1, 29, 30].map(|place| seconds(30, 30, place)), [0.0, 1.0, 29.0, 30.0]);
        assert_eq!([0, 250, 15_750].map(|place| seconds(16_000, 30, place)), [0.0, 1.0, 63.0]);
        assert_eq!([16_000, 16_250].map(|place| seconds(16_000, 30, place)), [64.0, 65.0]);
        assert_eq!((seconds(0, 0, 0), seconds(0, 30, 250)), (0.0, 31.0));
    }
}
