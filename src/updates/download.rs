//! What downloads through our own links tell about an attempt.

use sqlx::PgConnection;

use super::types::{Reason, Status};
use crate::clock::Time;
use crate::ids::{PrinterRef, RolloutId, UpdateId};
use crate::telemetry::metrics;

/// The printer asked for its image: it took the offer.
pub async fn download_started(
    conn: &mut PgConnection,
    update: UpdateId,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history set status = case when status = 'pending' then 'downloading' else status end, \
         download_started_at = coalesce(download_started_at, $2), last_activity_at = $2 where id = $1 and open",
        update.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// So many bytes went out. True to what happened, also for an attempt that is closed by now.
pub async fn download_ended(
    conn: &mut PgConnection,
    update: UpdateId,
    bytes: u64,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history set download_bytes = greatest(download_bytes, $2), download_ended_at = greatest(download_ended_at, $3), \
         last_activity_at = greatest(last_activity_at, $3) where id = $1",
        update.0,
        i64::try_from(bytes).unwrap_or(i64::MAX),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The image does not fit into the printer. Returns whose attempt that ended, if it was open.
pub async fn no_space(
    conn: &mut PgConnection,
    update: UpdateId,
    why: &str,
    now: Time,
) -> Result<Option<(PrinterRef, Option<RolloutId>)>, sqlx::Error> {
    let row = sqlx::query!(
        "with p as materialized (select p.id from printers p join update_history h on h.printer = p.id where h.id = $1 \
             for no key update of p) \
         update update_history u set status = 'failed', open = false, reason = 'no_space', error_message = $2, completed_at = $3, \
         last_activity_at = $3 from p where p.id = u.printer and u.id = $1 and u.open and u.status in ('pending', 'downloading') \
         returning u.printer, u.rollout_id",
        update.0,
        why,
        now
    );
    let row = row.fetch_optional(conn).await?;
    if row.is_some() {
        metrics::ended(Status::Failed.as_str(), Reason::NoSpace.as_str());
    }
    Ok(row.map(|row| (PrinterRef(row.printer), row.rollout_id.map(RolloutId))))
}
