//! Updates that went silent.

use sqlx::PgConnection;

use super::types::{Reason, Status};
use crate::clock::Time;
use crate::ids::{PrinterRef, RolloutId};
use crate::telemetry::metrics;

/// Most updates that one turn gives up.
const BATCH: i64 = 1000;

/// Fails open updates without a sign of life for `stuck_after` seconds, or for what their rollout says instead. A forced
/// update that waits for its printer is not silent. Conditional, so that any number of replicas may do it at once.
pub async fn expire(
    conn: &mut PgConnection,
    stuck_after: i32,
    now: Time,
) -> Result<Vec<(PrinterRef, Option<RolloutId>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "with silent as materialized ( \
             select u.id, u.printer, coalesce(r.stuck_after, $1) as stuck_after \
             from update_history u left join update_rollouts r on r.id = u.rollout_id \
             where u.open and u.sends > 0 \
               and u.started_at < $2::timestamptz - make_interval(secs => least($1, (select min(stuck_after) from update_rollouts))) \
               and u.last_activity_at < $2::timestamptz - make_interval(secs => coalesce(r.stuck_after, $1)) \
             order by u.last_activity_at limit $3), \
         p as materialized (select id from printers where id in (select printer from silent) order by id for no key update skip locked) \
         update update_history u set status = 'failed', open = false, reason = 'timeout', completed_at = $2, confirmed_at = null, \
         error_message = 'Nothing was heard of this update for too long.' \
         from silent, p where u.id = silent.id and p.id = u.printer \
           and u.open and u.last_activity_at < $2::timestamptz - make_interval(secs => silent.stuck_after) \
         returning u.printer, u.rollout_id",
        stuck_after,
        now,
        BATCH
    );
    let rows = rows.fetch_all(conn).await?;
    for _ in &rows {
        metrics::ended(Status::Failed.as_str(), Reason::Timeout.as_str());
    }
    Ok(rows.into_iter().map(|row| (PrinterRef(row.printer), row.rollout_id.map(RolloutId))).collect())
}
