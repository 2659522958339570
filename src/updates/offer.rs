//! Offers: claimed for a batch of printers in one statement, behind the rollouts' row locks.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterRef, RolloutId, UpdateId};
use crate::version::Version;

/// What a replica would like to offer to a printer on one of its sockets.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The attempt's id to be.
    pub update: UpdateId,
    /// Whose offer it is.
    pub rollout: RolloutId,
    /// The rollout's epoch when this was decided.
    pub epoch: i64,
    /// To whom.
    pub printer: PrinterRef,
    /// On which socket.
    pub connection: i64,
    /// What.
    pub release: FirmwareId,
    /// Its version.
    pub version: Version,
    /// What the printer runs.
    pub from: Version,
    /// Which try it is.
    pub attempt: u32,
}

/// Claims what may still be claimed, and returns it. What is not returned was decided on old news: the rollout was
/// paused, cancelled or narrowed, the printer went elsewhere or has an open update, or somebody was faster.
///
/// The rollouts' rows are locked against change (`for share`) until the transaction ends, so that whoever changes one
/// knows afterwards that no claim under its old state is still to come.
pub async fn claim(
    conn: &mut PgConnection,
    claims: &[Claim],
    now: Time,
) -> Result<Vec<UpdateId>, sqlx::Error> {
    let rollouts: Vec<Uuid> = claims.iter().map(|claim| claim.rollout.0).collect();
    let claimed = sqlx::query_scalar!(
        r#"with live as materialized (
               select id, epoch, max_attempts from update_rollouts
               where id = any($1) and status in ('active', 'completed') and deleted_at is null
               order by id for share
           )
           insert into update_history (id, rollout_id, printer, firmware_version_id, firmware_version, from_version, attempt,
               started_at, last_activity_at)
           select c.id, c.rollout, c.printer, c.release, c.version, c.from_version, c.attempt, $11, $11
           from unnest($2::uuid[], $1::uuid[], $3::bigint[], $4::uuid[], $5::bigint[], $6::uuid[], $7::text[], $8::text[], $9::int[])
               as c (id, rollout, epoch, printer, connection, release, version, from_version, attempt)
           join live on live.id = c.rollout and live.epoch = c.epoch
           join printers p on p.id = c.printer and p.connection = c.connection and p.firmware_version = c.from_version
           where c.attempt <= live.max_attempts
             and c.attempt = $10 + coalesce((select max(u.attempt) from update_history u
                 where u.rollout_id = c.rollout and u.printer = c.printer and u.status <> 'cancelled'), 0)
           on conflict (printer) where open do nothing
           returning id"#,
        &rollouts,
        &claims.iter().map(|claim| claim.update.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.epoch).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.printer.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.connection).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.release.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.version.to_string()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.from.to_string()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.attempt.cast_signed()).collect::<Vec<_>>(),
        1i32,
        now,
    );
    Ok(claimed.fetch_all(conn).await?.into_iter().map(UpdateId).collect())
}

/// Allows these open, untouched offers to go out once more, each on the connection that it names, and returns those
/// that may, with the rollout's epoch. A connection that is no longer its printer's newest gets nothing.
pub async fn reoffer(
    conn: &mut PgConnection,
    offers: &[(UpdateId, i64)],
    now: Time,
) -> Result<Vec<(UpdateId, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with wanted as (select * from unnest($1::uuid[], $2::bigint[]) as w (id, connection)),
           live as materialized (
               select r.id, r.epoch from update_rollouts r
               where r.id in (select u.rollout_id from update_history u join wanted on wanted.id = u.id)
                 and r.status in ('active', 'completed') and r.deleted_at is null
               order by r.id for share
           )
           update update_history u set sends = u.sends + 1, last_activity_at = $3
           from live, wanted, printers p
           where live.id = u.rollout_id and wanted.id = u.id and p.id = u.printer and p.connection = wanted.connection
             and u.open and u.status = 'pending' and u.socket_lost_at is null
           returning u.id, live.epoch"#,
        &offers.iter().map(|(update, _)| update.0).collect::<Vec<_>>(),
        &offers.iter().map(|(_, connection)| *connection).collect::<Vec<_>>(),
        now,
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (UpdateId(row.id), row.epoch)).collect())
}

/// Cancels open offers that were never seen and whose rollouts make none any more. Returns how many.
pub async fn recall(conn: &mut PgConnection, updates: &[UpdateId], now: Time) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "update update_history u set status = 'cancelled', open = false, reason = 'withdrawn', completed_at = $2 \
         from update_rollouts r where u.id = any($1) and r.id = u.rollout_id \
           and u.open and u.status = 'pending' and u.socket_lost_at is null \
           and (r.status not in ('active', 'completed') or r.deleted_at is not null)",
        &updates.iter().map(|update| update.0).collect::<Vec<_>>(),
        now
    );
    Ok(done.execute(conn).await?.rows_affected())
}

/// Takes an offer back that never left: the rollout was narrowed after the claim, or the socket was gone. One that
/// went out before on another socket stays open.
pub async fn withdraw(conn: &mut PgConnection, updates: &[UpdateId]) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = updates.iter().map(|update| update.0).collect();
    sqlx::query!(
        "delete from update_history where id = any($1) and open and status = 'pending' and sends = 1 and socket_lost_at is null",
        &ids
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update update_history set sends = sends - 1 where id = any($1) and open and status = 'pending' and sends > 1",
        &ids
    )
    .execute(conn)
    .await?;
    Ok(())
}
