//! One watcher: joins the feed without a gap or a double, and reads the table when it is behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::db;
use super::feed::{Batch, Feed};
use super::types::{Filter, Place};

/// Silence after which a comment shows that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Wait after which a client connects again, in milliseconds.
const RETRY: u32 = 2000;
/// Events of one read from the table.
const PAGE: i64 = 500;
/// Longest read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a watcher begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With what happens from now on, and what happened just now beside a transaction that is still open.
    Now,
    /// After this event.
    After(Place),
    /// It names an event that is none of ours.
    Lost,
}

pub(super) struct Watcher {
    pool: PgPool,
    batches: broadcast::Receiver<Arc<Batch>>,
    _room: OwnedSemaphorePermit,
    stop: CancellationToken,
    filter: Filter,
    /// Everything up to here is in `ready`, or was sent.
    at: Place,
    /// Whether the table has something that the feed will not bring.
    behind: bool,
    ready: VecDeque<Bytes>,
}

impl Watcher {
    /// None when as many watch as may.
    pub async fn start(
        feed: &Feed,
        pool: PgPool,
        stop: CancellationToken,
        start: Start,
        filter: Filter,
    ) -> Result<Option<Self>, sqlx::Error> {
        // First this, then the place: what happens in between is in the feed.
        let Some((room, batches)) = feed.join() else { return Ok(None) };
        let at = match start {
            Start::After(place) => place,
            Start::Now | Start::Lost => db::now(&mut *pool.acquire().await?).await?,
        };
        let behind = matches!(start, Start::After(_));
        let mut ready = VecDeque::from([Bytes::from(format!("retry: {RETRY}\nid: {at}\n\n"))]);
        ready.extend((start == Start::Lost).then(|| reset(at)));
        Ok(Some(Self { pool, batches, _room: room, stop, filter, at, behind, ready }))
    }

    /// The next piece of the stream; none at its end, after which the client connects again.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.behind {
                let read = timeout(PATIENCE, self.catch_up()).await;
                if let Err(error) = read.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                    tracing::warn!(%error, "events could not be read for a watcher, who has to come back");
                    return None;
                }
                continue;
            }
            let heard = tokio::select! {
                () = self.stop.cancelled() => return None,
                heard = timeout(HEARTBEAT, self.batches.recv()) => heard,
            };
            match heard {
                // An id without data moves the client's Last-Event-ID and is no event (HTML standard, section 9.2.6).
                Err(_quiet) => return Some(format!(": still here\nid: {}\n\n", self.at).into()),
                Ok(Ok(batch)) => self.take(&batch),
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => self.behind = true,
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
            }
        }
    }

    /// A batch is everybody's. Whoever sees a part only is told that there is something, and reads it.
    fn take(&mut self, batch: &Batch) {
        if batch.after > self.at || !self.filter.scope.is_all() {
            self.behind = true;
            return;
        }
        let new = batch.events.iter().filter(|event| event.place > self.at && self.filter.passes(event));
        self.ready.extend(new.map(|event| event.frame.clone()));
        self.at = self.at.max(batch.upto);
    }

    async fn catch_up(&mut self) -> Result<(), sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let now = db::now(&mut conn).await?;
        let events = db::page(&mut conn, self.at, &self.filter, PAGE).await?;
        // Asked after the page was read: what it does not hide was all there.
        let removed = db::horizon(&mut conn).await?;
        if self.at < removed || self.at.xid > now.xid {
            (self.at, self.behind) = (now, false);
            self.ready.push_back(reset(now));
            return Ok(());
        }
        self.behind = events.len() as i64 == PAGE;
        self.at = events.last().map_or(self.at, |event| event.place);
        if !self.behind {
            self.at = self.at.max(now);
        }
        self.ready.extend(events.into_iter().map(|event| event.frame));
        Ok(())
    }
}

/// What happened before `at` cannot be told any more.
fn reset(at: Place) -> Bytes {
    format!(
        "id: {at}\nevent: reset\ndata: {{\"kind\":\"reset\",\"detail\":\"Events before this one are no longer kept. Read again what you show.\"}}\n\n"
    )
    .into()
}
