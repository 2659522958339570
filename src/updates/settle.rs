//! The proof: what a printer runs when it connects settles its open update.

use std::collections::{HashMap, HashSet};

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

/// A printer that just subscribed.
#[derive(Clone, Copy, Debug)]
pub struct Back<'a> {
    /// Which.
    pub printer: PrinterRef,
    /// What it runs.
    pub runs: &'a Version,
    /// Whether it said so on the same socket as the offer. Then only the new version proves something: the old one says
    /// no more than that the printer has not rebooted yet.
    pub same_socket: bool,
}

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

/// An attempt that ends without success.
struct Closed {
    update: UpdateId,
    status: Status,
    reason: Reason,
    why: String,
}

/// Settles the open updates of printers that just connected, each printer once, and returns what became of each, in
/// their order.
///
/// The caller holds the printers' rows, so two connections of one printer settle one after the other.
pub async fn settle(
    conn: &mut PgConnection,
    back: &[Back<'_>],
    now: Time,
) -> Result<Vec<Settled>, sqlx::Error> {
    let printers: Vec<_> = back.iter().map(|back| back.printer).collect();
    // From here on nobody else, the expiry above all, can close them.
    sqlx::query!(
        "select id from update_history where printer = any($1) and open order by id for update",
        &printers.iter().map(|printer| printer.0).collect::<Vec<_>>()
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut known = db::remembered(conn, &printers).await?;
    let (mut confirmed, mut closed, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    let (mut moved, mut touched, mut installed) = (HashSet::new(), HashMap::new(), HashMap::new());
    let mut without = Vec::new();
    for &Back { printer, runs, same_socket } in back {
        let Some(open) = known.get(&printer).and_then(|known| known.open.as_ref()) else {
            without.push((printer, runs));
            continue;
        };
        if same_socket && *runs != open.version {
            continue;
        }
        let (update, from, to) = (open.update, &open.from, &open.version);
        match open.judged_by(runs) {
            Settlement::Confirmed => {
                confirmed.push(update);
                let by = Installed { release: open.release, rollout: open.rollout };
                installed.insert(printer, (by, open.from.clone()));
            }
            Settlement::RolledBack => {
                let why = format!("The printer came back on {from} instead of {to}.");
                closed.push(Closed { update, status: Status::Failed, reason: Reason::RolledBack, why });
            }
            Settlement::Superseded => {
                let why = format!("The printer runs {runs}, neither {to} nor {from}.");
                closed.push(Closed { update, status: Status::Cancelled, reason: Reason::Superseded, why });
            }
            Settlement::Unseen => unseen.push(update),
            Settlement::Underway => {}
        }
        moved.insert(printer);
        touched.extend(open.rollout.map(|rollout| (printer, rollout)));
    }
    confirm(conn, &confirmed, now).await?;
    close(conn, &closed, now).await?;
    if !unseen.is_empty() {
        recall(conn, &unseen, now).await?;
    }
    for (printer, by, before) in confirm_late(conn, &without, now).await? {
        moved.insert(printer);
        touched.extend(by.rollout.map(|rollout| (printer, rollout)));
        installed.insert(printer, (by, before));
    }
    if !installed.is_empty() {
        let proved: Vec<_> =
            installed.iter().map(|(printer, (by, before))| (*printer, *by, before.clone())).collect();
        printers::installed(conn, &proved).await?;
    }
    if !moved.is_empty() {
        let moved: Vec<_> = moved.into_iter().collect();
        let mut fresh = db::remembered(conn, &moved).await?;
        known.extend(moved.into_iter().map(|printer| (printer, fresh.remove(&printer).unwrap_or_default())));
    }
    let settled = |printer| Settled {
        remembered: known.remove(&printer).unwrap_or_default(),
        touched: touched.get(&printer).copied(),
        installed: installed.remove(&printer),
    };
    Ok(printers.into_iter().map(settled).collect())
}

/// A stepping stone that was taken does not say how its rollout stands with the printer: the release is still to come.
async fn confirm(conn: &mut PgConnection, updates: &[UpdateId], now: Time) -> Result<(), sqlx::Error> {
    if updates.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update update_history set status = 'completed', open = false, last = not stone, last_percent = 100, confirmed_at = $2, \
         completed_at = coalesce(completed_at, $2), last_activity_at = $2 where id = any($1) and open",
        &updates.iter().map(|update| update.0).collect::<Vec<_>>(),
        now
    )
    .execute(conn)
    .await?;
    for _ in updates {
        metrics::ended(Status::Completed.as_str(), "confirmed");
    }
    Ok(())
}

async fn close(conn: &mut PgConnection, closed: &[Closed], now: Time) -> Result<(), sqlx::Error> {
    if closed.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update update_history u set status = c.status, open = false, last = (c.status <> 'cancelled'), reason = c.reason, \
         error_message = c.why, completed_at = $5, last_activity_at = $5 \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as c (id, status, reason, why) where u.id = c.id and u.open",
        &closed.iter().map(|closed| closed.update.0).collect::<Vec<_>>(),
        &closed.iter().map(|closed| closed.status.as_str().to_owned()).collect::<Vec<_>>(),
        &closed.iter().map(|closed| closed.reason.as_str().to_owned()).collect::<Vec<_>>(),
        &closed.iter().map(|closed| closed.why.clone()).collect::<Vec<_>>(),
        now,
    )
    .execute(&mut *conn)
    .await?;
    let cancelled = closed.iter().filter(|closed| closed.status == Status::Cancelled);
    let cancelled: Vec<_> = cancelled.map(|closed| closed.update.0).collect();
    if !cancelled.is_empty() {
        restore(conn, &cancelled).await?;
    }
    for closed in closed {
        metrics::ended(closed.status.as_str(), closed.reason.as_str());
    }
    Ok(())
}

/// A printer that was given up, and whose last attempt was for the version that it runs now, did succeed after all.
/// Returns those, with what installed their version and what they ran before.
async fn confirm_late(
    conn: &mut PgConnection,
    without: &[(PrinterRef, &Version)],
    now: Time,
) -> Result<Vec<(PrinterRef, Installed, Version)>, sqlx::Error> {
    if without.is_empty() {
        return Ok(Vec::new());
    }
    let runs: HashMap<Uuid, &Version> = without.iter().map(|(printer, runs)| (printer.0, *runs)).collect();
    let failed = sqlx::query!(
        "select u.id, u.rollout_id, u.printer, u.firmware_version, u.firmware_version_id, u.from_version \
         from unnest($1::uuid[]) as p (id) cross join lateral \
             (select * from update_history h where h.printer = p.id order by h.number desc limit 1) u \
         where u.status = 'failed'",
        &without.iter().map(|(printer, _)| printer.0).collect::<Vec<_>>()
    );
    let mut failed = failed.fetch_all(&mut *conn).await?;
    failed.retain(|last| Version::from(last.firmware_version.clone()) == *runs[&last.printer]);
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query!(
        "update update_history set status = 'completed', reason = null, error_message = null, last = not stone, last_percent = 100, \
         confirmed_at = $2, completed_at = $2, last_activity_at = $2 where id = any($1) and status = 'failed'",
        &failed.iter().map(|last| last.id).collect::<Vec<_>>(),
        now
    )
    .execute(conn)
    .await?;
    let proved = failed.into_iter().map(|last| {
        // A release that was deleted meanwhile installed it all the same.
        let release = FirmwareId(last.firmware_version_id.unwrap_or(Uuid::nil()));
        let by = Installed { release, rollout: last.rollout_id.map(RolloutId) };
        (PrinterRef(last.printer), by, last.from_version.into())
    });
    Ok(proved.collect())
}
