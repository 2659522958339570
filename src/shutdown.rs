//! Two-phase shutdown: a soft token asks everybody to finish, a hard one ends what did not, a tracker waits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The process's life. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take no new work, let go of what can be let go.
    pub soft: CancellationToken,
    /// Stop now.
    pub hard: CancellationToken,
    /// Tasks that must end before the process does.
    pub tasks: TaskTracker,
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

    /// Runs both phases: soft at once, hard after `patience`, then waits a little for the stragglers. True when
    /// everything ended by itself.
    pub async fn run(&self, patience: Duration) -> bool {
        self.soft.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_ok() {
            return true;
        }
        self.hard.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        false
    }
}
