//! The proof: what a printer runs when it connects settles its open update.

use sqlx::PgConnection;

use super::db;
use super::types::{Reason, Remembered, Settlement, Status};
use crate::clock::Time;
use crate::ids::{PrinterRef, RolloutId, UpdateId};
use crate::telemetry::metrics;
use crate::version::Version;

/// Settles the open update of a printer that just connected running `runs`. Returns what is known about its updates
/// from now on, and the rollout whose counters moved, if any. On the `same_socket` as the offer only the new version
/// proves something: the old one says no more than that the printer has not rebooted yet.
///
/// The caller holds the printer's row, so two connections of one printer settle one after the other.
pub async fn settle(
    conn: &mut PgConnection,
    printer: PrinterRef,
    runs: &Version,
    same_socket: bool,
    now: Time,
) -> Result<(Remembered, Option<RolloutId>), sqlx::Error> {
    let known = db::remembered(conn, &[printer]).await?.remove(&printer).unwrap_or_default();
    let touched = match &known.open {
        None => confirm_late(conn, printer, runs, now).await?,
        Some(open) if same_socket && *runs != open.version => None,
        Some(open) => {
            let settled = match open.judged_by(runs) {
                Settlement::Confirmed => confirm(conn, open.update, now).await?,
                Settlement::RolledBack => {
                    let why = format!("The printer came back on {} instead of {}.", open.from, open.version);
                    close(conn, open.update, Status::Failed, Reason::RolledBack, &why, now).await?
                }
                Settlement::Superseded => {
                    let why = format!("The printer runs {runs}, neither {} nor {}.", open.from, open.version);
                    close(conn, open.update, Status::Cancelled, Reason::Superseded, &why, now).await?
                }
                Settlement::Underway => false,
                Settlement::Unseen => cancel_if_pointless(conn, open.update, now).await?,
            };
            if settled { open.rollout } else { None }
        }
    };
    if touched.is_none() {
        return Ok((known, None));
    }
    let known = db::remembered(conn, &[printer]).await?.remove(&printer).unwrap_or_default();
    Ok((known, touched))
}

async fn confirm(conn: &mut PgConnection, update: UpdateId, now: Time) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "update update_history set status = 'completed', open = false, last_percent = 100, confirmed_at = $2, \
         completed_at = coalesce(completed_at, $2), last_activity_at = $2 where id = $1 and open",
        update.0,
        now
    )
    .execute(conn)
    .await?;
    metrics::ended(Status::Completed.as_str(), "confirmed");
    Ok(done.rows_affected() > 0)
}

async fn close(
    conn: &mut PgConnection,
    update: UpdateId,
    status: Status,
    reason: Reason,
    why: &str,
    now: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "update update_history set status = $2, open = false, reason = $3, error_message = $4, completed_at = $5, last_activity_at = $5 \
         where id = $1 and open",
        update.0,
        status.as_str(),
        reason.as_str(),
        why,
        now
    )
    .execute(conn)
    .await?;
    metrics::ended(status.as_str(), reason.as_str());
    Ok(done.rows_affected() > 0)
}

/// An offer that the printer never saw is pointless when its rollout was cancelled meanwhile.
async fn cancel_if_pointless(
    conn: &mut PgConnection,
    update: UpdateId,
    now: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "update update_history u set status = 'cancelled', open = false, reason = 'rollout_cancelled', completed_at = $2 \
         from update_rollouts r where u.id = $1 and u.open and r.id = u.rollout_id and r.status = 'cancelled'",
        update.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A printer that was given up, and whose last attempt was for the version that it runs now, did succeed after all.
async fn confirm_late(
    conn: &mut PgConnection,
    printer: PrinterRef,
    runs: &Version,
    now: Time,
) -> Result<Option<RolloutId>, sqlx::Error> {
    let rollout = sqlx::query_scalar!(
        "update update_history set status = 'completed', reason = null, error_message = null, last_percent = 100, \
         confirmed_at = $3, completed_at = $3, last_activity_at = $3 \
         where id = (select id from update_history where printer = $1 order by number desc limit 1) \
           and status = 'failed' and firmware_version = $2 \
         returning rollout_id",
        printer.0,
        runs.to_string(),
        now
    );
    Ok(rollout.fetch_optional(conn).await?.flatten().map(RolloutId))
}
