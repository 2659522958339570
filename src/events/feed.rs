//! One reader for all watchers of a replica.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::db;
use super::types::{Event, Filter, Place};

/// How often the table is looked at while anybody watches.
const EVERY: Duration = Duration::from_millis(250);
/// Longest look, and the wait after one that failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most events of a batch.
const BATCH: usize = 1000;
/// Batches that a watcher may be behind before it has to read the table itself.
const BUFFER: usize = 16;

/// All events between two places, the first excluded.
#[derive(Debug)]
pub(super) struct Batch {
    pub after: Place,
    pub upto: Place,
    pub events: Vec<Event>,
}

/// Reads events while anybody watches, and hands them round. Clones share it.
#[derive(Clone, Debug)]
pub struct Feed {
    batches: broadcast::Sender<Arc<Batch>>,
    wake: Arc<Notify>,
    room: Arc<Semaphore>,
}

impl Feed {
    /// For so many watchers at once.
    pub fn new(watchers: u32) -> Self {
        let (batches, _) = broadcast::channel(BUFFER);
        Self { batches, wake: Arc::default(), room: Arc::new(Semaphore::new(watchers as usize)) }
    }

    /// A place among the watchers, until both are dropped; none when it is full.
    pub(super) fn join(&self) -> Option<(OwnedSemaphorePermit, broadcast::Receiver<Arc<Batch>>)> {
        let permit = self.room.clone().try_acquire_owned().ok()?;
        let receiver = self.batches.subscribe();
        self.wake.notify_one();
        Some((permit, receiver))
    }

    /// Works until `stop`.
    pub async fn run(self, pool: PgPool, stop: CancellationToken) {
        let mut at = None;
        while !stop.is_cancelled() {
            if self.batches.receiver_count() == 0 {
                at = None;
                tokio::select! { () = stop.cancelled() => {}, () = self.wake.notified() => {} }
                continue;
            }
            let turn = timeout(PATIENCE, self.turn(&pool, &mut at)).await;
            let pause = match turn.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(true) => continue,
                Ok(false) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "events could not be read and will be later");
                    PATIENCE
                }
            };
            let _ = timeout(pause, stop.cancelled()).await;
        }
    }

    /// Hands round what is new. True when there may be more at once.
    async fn turn(&self, pool: &PgPool, at: &mut Option<Place>) -> Result<bool, sqlx::Error> {
        let mut conn = pool.acquire().await?;
        let (after, upto, events) = match *at {
            // Said as well, although it is empty: whoever is behind that place has to read up to it.
            None => {
                let now = db::now(&mut conn).await?;
                (now, now, Vec::new())
            }
            Some(after) => {
                let events = db::page(&mut conn, after, &Filter::default(), BATCH as i64).await?;
                let Some(last) = events.last() else { return Ok(false) };
                (after, last.place, events)
            }
        };
        *at = Some(upto);
        let full = events.len() == BATCH;
        // Nobody there any more is fine.
        let _ = self.batches.send(Arc::new(Batch { after, upto, events }));
        Ok(full)
    }
}
