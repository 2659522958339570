//! Keeps the fence true, whatever else the engine has to do: a turn may offer to thousands and wait for other replicas
//! meanwhile, but a pause that was answered on another replica is in force here at once, and a fence that is not renewed
//! lets nothing through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Engine, db};
use crate::printers;
use crate::push::Hint;

/// How often the fence is renewed without a hint; several times before it is not believed any more.
const EVERY: Duration = Duration::from_secs(2);
/// Wait after a renewal that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest renewal.
const PATIENCE: Duration = Duration::from_secs(4);

impl Engine {
    /// Renews the fence until `stop`, and says of every change of a rollout that this replica has taken note of it.
    pub async fn guard(self: Arc<Self>, mut hints: broadcast::Receiver<Hint>, stop: CancellationToken) {
        let mut told = false;
        while !stop.is_cancelled() {
            let renewed = timeout(PATIENCE, self.renew_fence(told)).await;
            if let Err(error) = renewed.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                tracing::warn!(%error, "the fence could not be renewed; it lets nothing through when that lasts");
                // Whoever waits to hear of a change still waits.
                let _ = timeout(PAUSE, stop.cancelled()).await;
                continue;
            }
            told = false;
            let next = Instant::now() + EVERY;
            while !told {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(next.into()) => break,
                    hint = hints.recv() => match hint {
                        Ok(Hint::Rollout(_) | Hint::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => told = true,
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                }
            }
        }
    }

    /// Reads which rollouts may make offers. What was committed before is in force here when this returns; `told` says
    /// that somebody may wait to hear so.
    pub(super) async fn renew_fence(&self, told: bool) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        let mut conn = self.pool.acquire().await?;
        // Before the rows are read, which therefore have all that was committed until then.
        let moment = printers::moment(&mut conn).await?;
        let gates = db::gates(&mut conn, &self.fence.open().await).await?;
        let is_news = self.fence.set_all(gates).await;
        self.fence.noted(began);
        if is_news {
            self.nudge.notify_one();
        }
        // Whoever changed something waits, also for a replica that did not hear of it.
        if told || is_news {
            printers::noted(&mut conn, self.replica, moment).await?;
        }
        Ok(())
    }
}
