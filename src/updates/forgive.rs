//! Failures that an operator forgives, and updates that one forces.

use sqlx::PgConnection;

use super::offer::hold_releases;
use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterRef, RolloutId, UpdateId};
use crate::version::Version;

/// The printers of a rollout that failed for good are as if they had never been tried. Their history stays. Returns how
/// many there were.
pub async fn forgive(
    conn: &mut PgConnection,
    rollout: RolloutId,
    max_attempts: u32,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "with p as materialized (select p.id from printers p where p.id in ( \
             select u.printer from update_history u where u.rollout_id = $1 and u.last and u.status = 'failed' and u.tries >= $2) \
             order by p.id for no key update) \
         update update_history u set last = false from p \
         where p.id = u.printer and u.rollout_id = $1 and u.last and u.status = 'failed' and u.tries >= $2",
        rollout.0,
        max_attempts.cast_signed()
    );
    Ok(done.execute(conn).await?.rows_affected())
}

/// An update that an operator forces on a printer.
#[derive(Clone, Debug)]
pub struct Forced {
    /// To whom.
    pub printer: PrinterRef,
    /// What.
    pub release: FirmwareId,
    /// Its version.
    pub version: Version,
    /// What the printer runs.
    pub from: Version,
}

/// Opens a forced update; it goes out when the printer is there. None when an update of the printer is open already.
pub async fn force(
    conn: &mut PgConnection,
    forced: &Forced,
    now: Time,
) -> Result<Option<UpdateId>, sqlx::Error> {
    hold_releases(conn, std::iter::once(forced.release)).await?;
    let update = UpdateId::generate();
    let inserted = sqlx::query_scalar!(
        "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt, sends, started_at, \
             last_activity_at, shared_key) \
         select $1, $2, f.id, $4, $5, 1, 0, $6, $6, p.shared_key from firmware_versions f, printers p where f.id = $3 and p.id = $2 on conflict (printer) where open do nothing returning id",
        update.0,
        forced.printer.0,
        forced.release.0,
        forced.version.to_string(),
        forced.from.to_string(),
        now
    );
    Ok(inserted.fetch_optional(conn).await?.map(UpdateId))
}
