//! What printers say about their open update. Whatever changes how an update stands holds the printer's row, because
//! the census counts both together.

use sqlx::PgConnection;

use super::types::{Reason, Status};
use crate::clock::Time;
use crate::ids::UpdateId;
use crate::telemetry::metrics;

/// A report, after its message was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// How far it is.
    Progress {
        /// 0 to 100, or -1 for an error.
        percent: i32,
        /// The printer's words.
        status: Option<String>,
    },
    /// It was installed; a reboot follows.
    Complete,
    /// It did not work out.
    Failed {
        /// The printer's words.
        error: Option<String>,
    },
    /// The printer does not want it.
    Declined,
}

/// Writes a report down. False when it changed nothing, because the update is closed or further on already.
pub async fn report(
    conn: &mut PgConnection,
    update: UpdateId,
    report: &Report,
    now: Time,
) -> Result<bool, sqlx::Error> {
    let done = match report {
        Report::Progress { percent, status } => {
            sqlx::query!(
                "update update_history set status = case when $2 >= 0 then 'downloading' else status end, last_percent = $2, \
                 last_status_message = coalesce($3, last_status_message), last_activity_at = $4 \
                 where id = $1 and open and status in ('pending', 'downloading')",
                update.0,
                percent,
                status.as_deref(),
                now
            )
            .execute(conn)
            .await?
        }
        Report::Complete => {
            sqlx::query!(
                "with p as materialized (select p.id from printers p join update_history h on h.printer = p.id where h.id = $1 \
                     for no key update of p) \
                 update update_history u set status = 'completed', last_percent = 100, completed_at = $2, last_activity_at = $2 \
                 from p where p.id = u.printer and u.id = $1 and u.open and u.status in ('pending', 'downloading')",
                update.0,
                now
            )
            .execute(conn)
            .await?
        }
        Report::Failed { error } => {
            sqlx::query!(
                "with p as materialized (select p.id from printers p join update_history h on h.printer = p.id where h.id = $1 \
                     for no key update of p) \
                 update update_history u set status = 'failed', open = false, reason = 'reported', error_message = $2, \
                 completed_at = $3, last_activity_at = $3 \
                 from p where p.id = u.printer and u.id = $1 and u.open and u.status in ('pending', 'downloading')",
                update.0,
                error.as_deref(),
                now
            )
            .execute(conn)
            .await?
        }
        Report::Declined => {
            sqlx::query!(
                "with p as materialized (select p.id from printers p join update_history h on h.printer = p.id where h.id = $1 \
                     for no key update of p) \
                 update update_history u set status = 'declined', open = false, completed_at = $2, last_activity_at = $2 \
                 from p where p.id = u.printer and u.id = $1 and u.open and u.status in ('pending', 'downloading')",
                update.0,
                now
            )
            .execute(conn)
            .await?
        }
    };
    let changed = done.rows_affected() > 0;
    match report {
        Report::Failed { .. } if changed => {
            metrics::ended(Status::Failed.as_str(), Reason::Reported.as_str())
        }
        Report::Declined if changed => metrics::ended(Status::Declined.as_str(), "declined"),
        _ => {}
    }
    Ok(changed)
}

/// The printer let go of its socket after the offer: the normal course when a download starts.
pub async fn socket_lost(conn: &mut PgConnection, update: UpdateId, now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history set socket_lost_at = $2, last_activity_at = $2 where id = $1 and open and socket_lost_at is null",
        update.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
