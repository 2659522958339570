//! The proof: what a printer runs when it connects settles its open update.

use sqlx::PgConnection;
use uuid::Uuid;

use super::db;
use super::offer::{recall, restore};
use super::types::{Reason, Remembered, Settlement, Status};
use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterRef, RolloutId, UpdateId};
use crate::printers::{self, Installed};
use crate::telemetry::metrics;
use crate::version::Version;

/// What a subscribe message led to.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is known about the printer's updates from now on.
    pub remembered: Remembered,
    /// The rollout whose counters moved.
    pub touched: Option<RolloutId>,
    /// What was proved to be installed just now, and what the printer ran before.
    pub installed: Option<(Installed, Version)>,
}

/// Settles the open update of a printer that just connected running `runs`. On the `same_socket` as the offer only the
/// new version proves something: the old one says no more than that the printer has not rebooted yet.
///
/// The caller holds the printer's row, so two connections of one printer settle one after the other.
pub async fn settle(
    conn: &mut PgConnection,
    printer: PrinterRef,
    runs: &Version,
    same_socket: bool,
    now: Time,
) -> Result<Settled, sqlx::Error> {
    // From here on nobody else, the expiry above all, can close it.
    sqlx::query!("select id from update_history where printer = $1 and open for update", printer.0)
        .fetch_optional(&mut *conn)
        .await?;
    let known = db::remembered(conn, &[printer]).await?.remove(&printer).unwrap_or_default();
    let mut installed = None;
    let (changed, touched) = match &known.open {
        None => {
            installed = confirm_late(conn, printer, runs, now).await?;
            (installed.is_some(), installed.as_ref().and_then(|(by, _)| by.rollout))
        }
        Some(open) if same_socket && *runs != open.version => (false, None),
        Some(open) => {
            match open.judged_by(runs) {
                Settlement::Confirmed => {
                    confirm(conn, open.update, now).await?;
                    let by = Installed { release: open.release, rollout: open.rollout };
                    installed = Some((by, open.from.clone()));
                }
                Settlement::RolledBack => {
                    let why = format!("The printer came back on {} instead of {}.", open.from, open.version);
                    close(conn, open.update, Status::Failed, Reason::RolledBack, &why, now).await?;
                }
                Settlement::Superseded => {
                    let why = format!("The printer runs {runs}, neither {} nor {}.", open.from, open.version);
                    close(conn, open.update, Status::Cancelled, Reason::Superseded, &why, now).await?;
                }
                Settlement::Unseen => drop(recall(conn, &[open.update], now).await?),
                Settlement::Underway => {}
            }
            (true, open.rollout)
        }
    };
    if let Some((by, before)) = &installed {
        printers::installed(conn, printer, *by, before).await?;
    }
    if !changed {
        return Ok(Settled { remembered: known, touched: None, installed });
    }
    let remembered = db::remembered(conn, &[printer]).await?.remove(&printer).unwrap_or_default();
    Ok(Settled { remembered, touched, installed })
}

/// A stepping stone that was taken does not say how its rollout stands with the printer: the release is still to come.
async fn confirm(conn: &mut PgConnection, update: UpdateId, now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history set status = 'completed', open = false, last = not stone, last_percent = 100, confirmed_at = $2, \
         completed_at = coalesce(completed_at, $2), last_activity_at = $2 where id = $1 and open",
        update.0,
        now
    )
    .execute(conn)
    .await?;
    metrics::ended(Status::Completed.as_str(), "confirmed");
    Ok(())
}

async fn close(
    conn: &mut PgConnection,
    update: UpdateId,
    status: Status,
    reason: Reason,
    why: &str,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history set status = $2, open = false, last = ($2 <> 'cancelled'), reason = $3, error_message = $4, \
         completed_at = $5, last_activity_at = $5 where id = $1 and open",
        update.0,
        status.as_str(),
        reason.as_str(),
        why,
        now
    )
    .execute(&mut *conn)
    .await?;
    if status == Status::Cancelled {
        restore(conn, &[update.0]).await?;
    }
    metrics::ended(status.as_str(), reason.as_str());
    Ok(())
}

/// A printer that was given up, and whose last attempt was for the version that it runs now, did succeed after all.
async fn confirm_late(
    conn: &mut PgConnection,
    printer: PrinterRef,
    runs: &Version,
    now: Time,
) -> Result<Option<(Installed, Version)>, sqlx::Error> {
    let last = sqlx::query!(
        "select id, status, rollout_id, printer, firmware_version, firmware_version_id, from_version, last, tries \
         from update_history where printer = $1 order by number desc limit 1 for update",
        printer.0
    );
    let Some(last) = last.fetch_optional(&mut *conn).await? else { return Ok(None) };
    if last.status != Status::Failed.as_str() || Version::from(last.firmware_version) != *runs {
        return Ok(None);
    }
    sqlx::query!(
        "update update_history set status = 'completed', reason = null, error_message = null, last = not stone, last_percent = 100, \
         confirmed_at = $2, completed_at = $2, last_activity_at = $2 where id = $1",
        last.id,
        now
    )
    .execute(conn)
    .await?;
    // A release that was deleted meanwhile installed it all the same.
    let release = FirmwareId(last.firmware_version_id.unwrap_or(Uuid::nil()));
    let by = Installed { release, rollout: last.rollout_id.map(RolloutId) };
    Ok(Some((by, last.from_version.into())))
}
