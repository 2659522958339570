//! A download on its way, and what it leaves in the attempt's record.

use axum::body::Body;
use futures_util::TryStreamExt as _;
use sqlx::PgPool;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::db::Link;
use crate::clock::Clock;
use crate::ids::{FirmwareId, UpdateId};
use crate::{firmware, updates};

/// Counts bytes, and writes them down when the download ends, however it ends.
pub(super) struct Meter {
    pool: PgPool,
    clock: Clock,
    tasks: TaskTracker,
    update: UpdateId,
    release: FirmwareId,
    /// Bytes that make a whole image; none for a part of it.
    whole: Option<u64>,
    sent: u64,
    _permit: OwnedSemaphorePermit,
}

impl Meter {
    pub(super) fn new(
        pool: PgPool,
        clock: Clock,
        tasks: TaskTracker,
        link: &Link,
        whole: bool,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let whole = whole.then_some(link.size);
        Self {
            pool,
            clock,
            tasks,
            update: link.update,
            release: link.release,
            whole,
            sent: 0,
            _permit: permit,
        }
    }

    /// The bytes, counted. The meter goes with them: it writes down what happened when they are dropped.
    pub(super) fn body(mut self, bytes: Body) -> Body {
        let update = self.update;
        let broken = move |error: &axum::Error| {
            tracing::warn!(%update, %error, "an image broke off on its way from S3; the printer downloads it again");
        };
        let bytes = bytes.into_data_stream().inspect_err(broken);
        Body::from_stream(bytes.inspect_ok(move |chunk| self.count(chunk.len())))
    }

    fn count(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let (pool, update, release, sent, now) =
            (self.pool.clone(), self.update, self.release, self.sent, self.clock.now());
        let whole = self.whole == Some(sent);
        // The body is dropped by the connection's task, which must not wait for the database.
        self.tasks.spawn(async move {
            let written = async {
                let mut conn = pool.acquire().await?;
                updates::download_ended(&mut conn, update, sent, now).await?;
                if whole {
                    firmware::count_download(&mut conn, release).await?;
                }
                Ok::<_, sqlx::Error>(())
            };
            if let Err(error) = written.await {
                tracing::warn!(%update, sent, %error, "a download could not be written down");
            }
        });
    }
}
