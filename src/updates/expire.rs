//! Updates that went silent.

use sqlx::PgConnection;

use super::types::{Reason, Status};
use crate::clock::Time;
use crate::ids::{PrinterRef, RolloutId};
use crate::telemetry::metrics;

/// Most updates that one turn gives up.
const BATCH: i64 = 1000;

/// Fails open updates without a sign of life since `silent_since`. Conditional, so that any number of replicas may do
/// it at once.
pub async fn expire(
    conn: &mut PgConnection,
    silent_since: Time,
    now: Time,
) -> Result<Vec<(PrinterRef, Option<RolloutId>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "update update_history set status = 'failed', open = false, reason = 'timeout', completed_at = $2, confirmed_at = null, \
         error_message = 'Nothing was heard of this update for too long.' \
         where id in (select id from update_history where open and last_activity_at < $1 order by last_activity_at limit $3 \
             for update skip locked) \
           and open and last_activity_at < $1 \
         returning printer, rollout_id",
        silent_since,
        now,
        BATCH
    );
    let rows = rows.fetch_all(conn).await?;
    for _ in &rows {
        metrics::ended(Status::Failed.as_str(), Reason::Timeout.as_str());
    }
    Ok(rows.into_iter().map(|row| (PrinterRef(row.printer), row.rollout_id.map(RolloutId))).collect())
}
