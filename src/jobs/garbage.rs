//! The garbage in the bucket, collected now and then.
//!
//! An advisory lock keeps the replicas from doing it all at once. It belongs to a connection of the turn, which no
//! transaction keeps busy while S3 takes its time; and it only saves work: a turn that lost its connection removes
//! nothing that another one would not.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use super::PATIENCE;
use crate::firmware::gc::{self, Garbage, Kind, Orders, Outcome, Total};
use crate::ids::ReplicaId;
use crate::state::AppState;
use crate::telemetry::metrics;

/// Advisory lock of a turn.
pub const GARBAGE_LOCK: i64 = 0x7061_7065_725f_6763;
/// Longest turn. What it leaves is for the next one.
const TURN: Duration = Duration::from_secs(600);
/// Twice as long as the longest upload may take.
const ORDERS: Orders =
    Orders { older_than: Duration::from_secs(24 * 3600), dry_run: false, no_releases: false };

/// Looks through the bucket every so often, at a moment of this replica's own.
pub async fn garbage(app: AppState, every: Duration) {
    let mut wait = every.mul_f64(moment(app.replica));
    while timeout(wait, app.shutdown.soft.cancelled()).await.is_err() {
        wait = every;
        let turn = tokio::select! {
            turn = timeout(TURN, turn(&app)) => turn,
            () = app.shutdown.soft.cancelled() => return,
        };
        let outcome = match turn {
            Ok(Ok(Some(total))) => {
                let Total { objects, bytes, uploads, failed, .. } = total;
                if objects + uploads > 0 {
                    tracing::info!(objects, bytes, uploads, failed, "garbage was collected");
                }
                "done"
            }
            Ok(Ok(None)) => "elsewhere",
            Ok(Err(error)) => {
                tracing::warn!(%error, "the garbage could not be collected");
                "failed"
            }
            Err(_) => {
                tracing::warn!("collecting the garbage takes long; the next turn goes on");
                "unfinished"
            }
        };
        metrics::garbage_turn(outcome);
    }
}

/// A part of a period, from 0 to 1, by chance but always the same one: replicas that start together spread out.
fn moment(replica: ReplicaId) -> f64 {
    let [.., a, b] = *replica.0.as_bytes();
    f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
}

/// One turn; none when another replica is at it.
async fn turn(app: &AppState) -> Result<Option<Total>, gc::Error> {
    let options = app.pool.connect_options();
    let late = |_| sqlx::Error::PoolTimedOut;
    let locked = async {
        let mut conn = PgConnection::connect_with(&options).await?;
        let lock = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(GARBAGE_LOCK);
        let locked: bool = lock.fetch_one(&mut conn).await?;
        Ok::<_, sqlx::Error>((conn, locked))
    };
    let (conn, locked) = timeout(PATIENCE, locked).await.map_err(late)??;
    let total = if locked {
        let (store, now) = (&app.uploads.store, app.clock.now());
        Some(gc::collect(&app.pool, store, now, &ORDERS, &mut tell).await)
    } else {
        None
    };
    // The end of the connection is the end of the lock, however it ends.
    let _ = timeout(PATIENCE, conn.close()).await;
    total.transpose()
}

fn tell(garbage: &Garbage<'_>) {
    let kind = match garbage.kind {
        Kind::Orphan => "orphan",
        Kind::Staged => "staged",
        Kind::Multipart => "multipart",
    };
    let (key, hours) = (garbage.key, garbage.age.num_hours());
    match &garbage.outcome {
        Outcome::Failed(error) => tracing::warn!(%key, kind, hours, %error, "garbage could not be removed"),
        Outcome::Seen | Outcome::Removed => {
            tracing::info!(%key, kind, hours, "garbage was removed");
            metrics::garbage_removed(kind);
        }
    }
}
