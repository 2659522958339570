//! Offers: claimed for a batch of printers in one statement, behind the rollouts' row locks.

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterRef, RolloutId, UpdateId};
use crate::printers;
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
    pub tries: u32,
    /// Whether it is a stepping stone.
    pub stone: bool,
}

/// Claims what may still be claimed, and returns it. What is not returned was decided on old news: the rollout was
/// paused, cancelled or narrowed, the printer went elsewhere or has an open update, or somebody was faster.
///
/// The caller holds the releases, and then the rollouts, so that whoever changes one knows afterwards that no claim under
/// its old state is still to come. The printers' rows are held from here on.
pub async fn claim(
    conn: &mut PgConnection,
    claims: &[Claim],
    now: Time,
) -> Result<Vec<UpdateId>, sqlx::Error> {
    let printers: Vec<_> = claims.iter().map(|claim| claim.printer).collect();
    printers::hold(conn, &printers).await?;
    let claimed = sqlx::query_scalar!(
        r#"insert into update_history (id, rollout_id, printer, firmware_version_id, firmware_version, from_version, tries, stone,
               attempt, stage, started_at, last_activity_at, shared_key)
           select c.id, c.rollout, c.printer, c.release, c.version, c.from_version, c.tries, c.stone,
               1 + coalesce(before.attempt, 0), r.stage, $11, $11, p.shared_key
           from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::bigint[], $6::uuid[], $7::text[], $8::text[], $9::int[],
                   $10::bool[])
               as c (id, rollout, epoch, printer, connection, release, version, from_version, tries, stone)
           join update_rollouts r on r.id = c.rollout and r.epoch = c.epoch and r.status in ('active', 'completed') and r.deleted_at is null
           join firmware_versions f on f.id = c.release and f.deprecated_at is null
           join printers p on p.id = c.printer and p.firmware_version = c.from_version
               and (r.target_owners is null or p.user_id = any(r.target_owners))
               and (r.target_platforms is null or p.platform = any(r.target_platforms))
           join presence q on q.printer = c.printer and q.connection = c.connection
           cross join lateral (
               select max(u.attempt) as attempt, max(u.tries) filter (where u.last) as tries from update_history u
               where u.printer = c.printer and (u.rollout_id = c.rollout) is true
           ) before
           where c.tries <= r.max_attempts and c.tries = 1 + coalesce(before.tries, 0)
           on conflict (printer) where open do nothing
           returning id"#,
        &claims.iter().map(|claim| claim.update.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.rollout.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.epoch).collect::<Vec<_>>(),
        &printers.iter().map(|printer| printer.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.connection).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.release.0).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.version.to_string()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.from.to_string()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.tries.cast_signed()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.stone).collect::<Vec<_>>(),
        now,
    );
    let claimed = claimed.fetch_all(&mut *conn).await?;
    if claims.iter().any(|claim| claim.tries > 1) {
        sqlx::query!(
            "update update_history u set last = false from update_history c \
             where c.id = any($1) and c.tries > 1 and u.rollout_id = c.rollout_id and u.printer = c.printer and u.last and u.id <> c.id",
            &claimed
        )
        .execute(conn)
        .await?;
    }
    Ok(claimed.into_iter().map(UpdateId).collect())
}

/// Holds releases against deletion. One that is gone already is not found afterwards.
pub async fn hold_releases(
    conn: &mut PgConnection,
    releases: impl Iterator<Item = FirmwareId>,
) -> Result<(), sqlx::Error> {
    let mut ids: Vec<_> = releases.map(|release| release.0).collect();
    ids.sort_unstable();
    ids.dedup();
    sqlx::query!("select id from firmware_versions where id = any($1) order by id for key share", &ids)
        .fetch_all(conn)
        .await?;
    Ok(())
}

/// Allows these open, untouched offers to go out once more, each on the connection that it names, and returns those
/// that may, with the rollout's epoch; 0 for a forced update. It holds no printers, so it waits for nobody: what somebody
/// is changing right now does not go out. A connection that is no longer its printer's newest gets
/// nothing.
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
           ),
           held as materialized (
               select id from update_history where id in (select id from wanted) order by id for no key update skip locked
           )
           update update_history u set sends = u.sends + 1, last_activity_at = $3
           from wanted join held using (id) left join update_history h on h.id = wanted.id left join live on live.id = h.rollout_id,
               presence q
           where wanted.id = u.id and q.printer = u.printer and q.connection = wanted.connection
             and (u.rollout_id is null or live.id is not null)
             and u.open and u.status = 'pending' and u.socket_lost_at is null
           returning u.id, coalesce(live.epoch, 0) as "epoch!""#,
        &offers.iter().map(|(update, _)| update.0).collect::<Vec<_>>(),
        &offers.iter().map(|(_, connection)| *connection).collect::<Vec<_>>(),
        now,
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (UpdateId(row.id), row.epoch)).collect())
}

/// Cancels open offers that were never seen and that will not go out again: their rollouts make no offers any more, or
/// their release was withdrawn. Returns how many.
pub async fn recall(conn: &mut PgConnection, updates: &[UpdateId], now: Time) -> Result<usize, sqlx::Error> {
    let ids: Vec<_> = updates.iter().map(|update| update.0).collect();
    let mut tx = conn.begin().await?;
    let recalled = sqlx::query_scalar!(
        "with p as materialized (select p.id from printers p join update_history h on h.printer = p.id where h.id = any($1) \
             order by p.id for no key update of p) \
         update update_history u set status = 'cancelled', open = false, last = false, reason = 'withdrawn', completed_at = $2 \
         from p where p.id = u.printer and u.id = any($1) and u.open and u.status = 'pending' and u.socket_lost_at is null \
           and ((u.rollout_id is not null and not exists (select 1 from update_rollouts r where r.id = u.rollout_id \
                   and r.status in ('active', 'completed') and r.deleted_at is null)) \
               or not exists (select 1 from firmware_versions f where f.id = u.firmware_version_id and f.deprecated_at is null)) \
         returning u.id",
        &ids,
        now
    );
    let recalled = recalled.fetch_all(&mut *tx).await?;
    restore(&mut tx, &recalled).await?;
    tx.commit().await?;
    Ok(recalled.len())
}

/// Takes an offer back that never left: the rollout was narrowed after the claim, or the socket was gone. One that
/// went out before on another socket stays open, and so does a forced one.
pub async fn withdraw(conn: &mut PgConnection, updates: &[UpdateId]) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = updates.iter().map(|update| update.0).collect();
    let mut tx = conn.begin().await?;
    sqlx::query!(
        "select p.id from printers p join update_history h on h.printer = p.id where h.id = any($1) order by p.id for no key update of p",
        &ids
    )
    .fetch_all(&mut *tx)
    .await?;
    let gone = sqlx::query_scalar!(
        "select id from update_history where id = any($1) and rollout_id is not null and open and status = 'pending' and sends = 1 \
           and socket_lost_at is null for update",
        &ids
    );
    let gone = gone.fetch_all(&mut *tx).await?;
    restore(&mut tx, &gone).await?;
    sqlx::query!("delete from update_history where id = any($1)", &gone).execute(&mut *tx).await?;
    sqlx::query!(
        "update update_history set sends = sends - 1 where id = any($1) and open and status = 'pending' \
           and (sends > 1 or (rollout_id is null and sends > 0))",
        &ids
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// These attempts do not count any more: where one followed another, the one before is the last again.
pub(super) async fn restore(conn: &mut PgConnection, gone: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history u set last = true from update_history c \
         where c.id = any($1) and c.tries > 1 and u.rollout_id = c.rollout_id and u.printer = c.printer and u.tries = c.tries - 1 \
           and u.id = (select x.id from update_history x where x.rollout_id = c.rollout_id and x.printer = c.printer and x.id <> c.id \
               and x.status <> 'cancelled' order by x.attempt desc limit 1)",
        gone
    )
    .execute(conn)
    .await?;
    Ok(())
}
