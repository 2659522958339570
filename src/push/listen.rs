//! The listener: one connection of its own, with a heartbeat, rebuilt on any error.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::notify::{CHANNEL, Hint};
use crate::config::Database;
use crate::db;

/// `PgListener` keeps a dead connection silently, so it is asked something this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Longest wait for the heartbeat's answer, and for a new connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Wait before the connection is built again.
const PAUSE: Duration = Duration::from_secs(1);

/// Forwards hints until `stop`. After every (re)connection, once LISTEN stands, it says [`Hint::Everything`]: what was
/// notified in between is lost.
pub async fn listen(database: Database, hints: broadcast::Sender<Hint>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let session = session(&database, &hints);
        let error = tokio::select! { () = stop.cancelled() => return, error = session => error };
        tracing::warn!(%error, "the listener lost the database and connects again");
        let _ = timeout(PAUSE, stop.cancelled()).await;
    }
}

async fn session(database: &Database, hints: &broadcast::Sender<Hint>) -> sqlx::Error {
    match try_session(database, hints).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn try_session(
    database: &Database,
    hints: &broadcast::Sender<Hint>,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let late = |_| sqlx::Error::PoolTimedOut;
    let pool = db::pool(db::options(database)?, 1);
    let mut listener = timeout(PATIENCE, PgListener::connect_with(&pool)).await.map_err(late)??;
    timeout(PATIENCE, listener.listen(CHANNEL)).await.map_err(late)??;
    // Nobody listening is fine: the receivers are gone when the process ends.
    let _ = hints.send(Hint::Everything);
    loop {
        match timeout(HEARTBEAT, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                if let Some(hint) = Hint::parse(notification.payload()) {
                    let _ = hints.send(hint);
                }
            }
            Ok(Ok(None)) => return Err(sqlx::Error::WorkerCrashed),
            Ok(Err(error)) => return Err(error),
            Err(_quiet) => {
                timeout(PATIENCE, sqlx::query("select 1").execute(&mut listener)).await.map_err(late)??;
            }
        }
    }
}
