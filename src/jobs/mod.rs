//! What runs on a timer in every replica. Each turn compares what should be with what is, and every write is
//! conditional, so it does not matter how many replicas do the same thing.

mod garbage;

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::timeout;

use crate::auth::session;
use crate::db;
use crate::events;
use crate::idempotency;
use crate::links;
use crate::printers;
use crate::push::{self, Hint};
use crate::rollouts;
use crate::state::AppState;
use crate::stats;
use crate::telemetry::metrics;
use crate::updates;

pub use garbage::{GARBAGE_LOCK, garbage};

/// Renewal of the replica's lease.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often metrics are folded.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often progress is written down.
const PROGRESS: Duration = Duration::from_millis(250);
/// How often the census is folded where it has grown long.
const FOLD: Duration = Duration::from_secs(5);
/// How often expired links and logins are forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// How often outcomes are summed up, and events removed that are no longer kept.
const REPORTING: Duration = Duration::from_secs(10);

/// How often the figures of the fleet are read: reading them takes half a second for a million printers.
const FIGURES: Duration = Duration::from_secs(30);

/// Longest turn of a job: a database that went silent must not freeze it.
const PATIENCE: Duration = Duration::from_secs(10);

async fn bounded<T>(turn: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(PATIENCE, turn).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Folds what metrics have gathered, which would otherwise grow until somebody reads them.
pub async fn upkeep(app: AppState, metrics: PrometheusHandle) {
    while timeout(UPKEEP, app.shutdown.hard.cancelled()).await.is_err() {
        metrics.run_upkeep();
    }
}

/// Renews the lease until `soft` shutdown and a drain later ends it.
pub async fn presence(app: AppState, name: String) {
    loop {
        let renewed = async {
            let mut conn = app.pool.acquire().await?;
            printers::heartbeat(&mut conn, app.replica, &name, app.hub.len()).await
        };
        if let Err(error) = bounded(renewed).await {
            tracing::warn!(%error, "the replica's lease could not be renewed");
        }
        if timeout(HEARTBEAT, app.shutdown.hard.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Writes down how far printers are.
pub async fn progress(app: AppState) {
    loop {
        let ending = timeout(PROGRESS, app.shutdown.hard.cancelled()).await.is_ok();
        if let Err(error) = bounded(app.intake.flush()).await {
            tracing::debug!(%error, "progress waits for the database");
        }
        if ending {
            return;
        }
    }
}

/// Gives up updates that went silent.
pub async fn expiry(app: AppState) {
    let every = (app.attempts.stuck_after / 10).clamp(Duration::from_millis(200), Duration::from_secs(15));
    while timeout(every, app.shutdown.soft.cancelled()).await.is_err() {
        if let Err(error) = bounded(expire(&app)).await {
            tracing::warn!(%error, "silent updates could not be looked at");
        }
    }
}

/// Keeps the census short.
pub async fn fold(app: AppState) {
    while timeout(FOLD, app.shutdown.soft.cancelled()).await.is_err() {
        let fold = async { rollouts::fold(&mut *app.pool.acquire().await?).await };
        if let Err(error) = bounded(fold).await {
            tracing::warn!(%error, "the census could not be folded");
        }
    }
}

/// Forgets links and logins that expired, and answers that are no longer kept.
pub async fn sweep(app: AppState) {
    while timeout(SWEEP, app.shutdown.soft.cancelled()).await.is_err() {
        let swept = async {
            let (mut conn, now) = (app.pool.acquire().await?, app.clock.now());
            links::sweep(&mut conn, now).await?;
            session::sweep(&mut conn, now).await?;
            while idempotency::forget(&mut conn, now).await? > 0 {}
            Ok(())
        };
        if let Err(error) = bounded(swept).await {
            tracing::warn!(%error, "expired links, logins and kept answers could not be forgotten");
        }
    }
}

/// Sums up outcomes, and removes events that are no longer kept.
pub async fn reporting(app: AppState, keep_events: Duration) {
    while timeout(REPORTING, app.shutdown.soft.cancelled()).await.is_err() {
        let turn = async {
            let mut conn = app.pool.acquire().await?;
            while stats::fold(&mut conn).await? > 0 {}
            while events::forget(&mut conn, keep_events).await? > 0 {}
            Ok(())
        };
        if let Err(error) = bounded(turn).await {
            tracing::warn!(%error, "outcomes could not be summed up, or old events removed, and will be later");
        }
    }
}

/// Reads the figures of the whole fleet, if it is this replica that tells them, and how the schema stands.
pub async fn figures(app: AppState) {
    loop {
        let turn = async {
            let mut conn = app.pool.acquire().await?;
            stats::figures(&mut conn, app.replica, app.clock.now()).await
        };
        let figures = bounded(turn).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the figures of the fleet could not be read");
            None
        });
        app.figures.send_replace(figures);
        if let Ok(Ok(standing)) = timeout(PATIENCE, db::standing(&app.pool)).await {
            metrics::migrations_pending(standing.missing);
        }
        if timeout(FIGURES, app.shutdown.soft.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// One turn of [`expiry`].
pub async fn expire(app: &AppState) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let stuck_after = i32::try_from(app.attempts.stuck_after.as_secs()).unwrap_or(i32::MAX);
    let mut tx = app.pool.begin().await?;
    let ended = updates::expire(&mut tx, stuck_after, now).await?;
    push::notify_all(&mut tx, ended.iter().map(|(printer, _)| Hint::Printer(printer.0))).await?;
    tx.commit().await?;
    for rollout in ended.into_iter().filter_map(|(_, rollout)| rollout) {
        app.steward.moved(rollout);
    }
    Ok(())
}
