//! What the engine, the steward and people ask across rollouts.

use chrono::TimeDelta;
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

use super::{COLUMNS, REACH};
use crate::auth::Scope;
use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterId, RolloutId};
use crate::printers::Cohort;
use crate::rollouts::{Catalog, ReleaseBrief, Rollout, Status, census};
use crate::storage::ObjectKey;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// Starts what is due, once: whoever comes second finds nothing.
pub(in crate::rollouts) async fn start_due(
    conn: &mut PgConnection,
    now: Time,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let started = sqlx::query_scalar!(
        "update update_rollouts set status = 'active', started_at = coalesce(started_at, $1), stage_started_at = $1, updated_at = $1 \
         where status = 'pending' and scheduled_for <= $1 and deleted_at is null and approval in ('not_required', 'approved') returning id",
        now
    );
    started.fetch_all(conn).await
}

/// When the next scheduled rollout starts.
pub(in crate::rollouts) async fn next_due(conn: &mut PgConnection) -> Result<Option<Time>, sqlx::Error> {
    let due = sqlx::query_scalar!(
        "select min(scheduled_for) from update_rollouts where status = 'pending' and deleted_at is null \
         and approval in ('not_required', 'approved')"
    );
    due.fetch_one(conn).await
}

/// Every rollout that may make offers.
pub(in crate::rollouts) async fn offering(conn: &mut PgConnection) -> Result<Vec<Rollout>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS} from update_rollouts r where r.status in ('active', 'completed') and r.deleted_at is null"
    ));
    query.build_query_as().fetch_all(conn).await
}

/// Numbers of those that undo this one and were not cancelled.
pub(in crate::rollouts) async fn undone_by(
    conn: &mut PgConnection,
    rollout: RolloutId,
) -> Result<Vec<i64>, sqlx::Error> {
    let numbers = sqlx::query_scalar!(
        "select number from update_rollouts where rolls_back = $1 and status <> 'cancelled' and deleted_at is null order by number",
        rollout.0
    );
    numbers.fetch_all(conn).await
}

/// Numbers of all that make offers, or will at their time without another word.
pub(in crate::rollouts) async fn moving(conn: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    let numbers = sqlx::query_scalar!(
        "select number from update_rollouts where deleted_at is null and (status in ('active', 'completed') \
             or status = 'pending' and scheduled_for is not null and approval <> 'waiting') order by number"
    );
    numbers.fetch_all(conn).await
}

/// Rollouts that are under way or held, and those that came to rest since a moment: the newest `most`.
pub async fn current(
    conn: &mut PgConnection,
    rested_since: Time,
    most: i64,
) -> Result<Vec<Rollout>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS} from update_rollouts r where r.deleted_at is null \
         and (r.status in ('active', 'paused') or r.status = 'completed' and r.updated_at >= "
    ));
    query.push_bind(rested_since).push(") order by r.number desc limit ").push_bind(most);
    query.build_query_as().fetch_all(conn).await
}

/// Of every rollout that may make offers, and of those in `also`: its id, its epoch, and whether it may.
pub(in crate::rollouts) async fn gates(
    conn: &mut PgConnection,
    also: &[Uuid],
) -> Result<Vec<(Uuid, i64, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id, epoch, status in ('active', 'completed') and deleted_at is null as "open!" from update_rollouts
           where (status in ('active', 'completed') and deleted_at is null) or id = any($1)"#,
        also
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.id, row.epoch, row.open)).collect())
}

/// Everything in this scope that is not cancelled, for explaining.
pub(in crate::rollouts) async fn standing(
    conn: &mut PgConnection,
    scope: &Scope,
) -> Result<Vec<Rollout>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS} from update_rollouts r where r.deleted_at is null and r.status <> 'cancelled'"
    ));
    scope.push_within(&mut query, REACH);
    query.build_query_as().fetch_all(conn).await
}

/// All releases, and which rollouts were cancelled.
pub async fn catalog(conn: &mut PgConnection) -> Result<Catalog, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id, version, channel as "channel: Channel", platform as "platform: Platform", mandatory, min_upgrade_version,
               deprecated_at is not null as "deprecated!", file_size, object_key, md5_checksum
           from firmware_versions"#
    );
    let releases = rows.fetch_all(&mut *conn).await?.into_iter().map(|row| ReleaseBrief {
        id: FirmwareId(row.id),
        version: row.version.into(),
        channel: row.channel,
        platform: row.platform,
        mandatory: row.mandatory,
        min_upgrade_version: row.min_upgrade_version.map(Version::from),
        deprecated: row.deprecated,
        size: row.file_size,
        key: ObjectKey::stored(row.object_key),
        md5: row.md5_checksum,
    });
    let releases = releases.collect();
    let cancelled = sqlx::query_scalar!("select id from update_rollouts where status = 'cancelled'");
    let cancelled = cancelled.fetch_all(conn).await?.into_iter().map(RolloutId).collect();
    Ok(Catalog::new(releases, cancelled))
}

/// Lets a rollout rest, or wakes it, if nobody changed it meanwhile.
pub(in crate::rollouts) async fn rest(
    conn: &mut PgConnection,
    rollout: &Rollout,
    to: Status,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_rollouts set status = $3, updated_at = $4 where id = $1 and status = $2 and revision = $5",
        rollout.id.0,
        rollout.status.as_str(),
        to.as_str(),
        now,
        rollout.revision
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What the printers ran before this rollout's updates, of those that took one or are about to.
pub(in crate::rollouts) async fn versions_before(
    conn: &mut PgConnection,
    rollout: RolloutId,
) -> Result<Vec<Version>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"select from_version from update_history where rollout_id = $1 and (open or confirmed_at is not null) and not stone
           group by 1 order by count(*) desc"#,
        rollout.0
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(Version::from).collect())
}

/// The kinds of connected printers that a rollout's lists and percentage let in, and that it has not tried.
pub(in crate::rollouts) async fn untried(
    conn: &mut PgConnection,
    rollout: RolloutId,
) -> Result<Vec<Cohort>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select p.platform as "platform: Platform", p.firmware_version, p.auto_update, p.update_channel as "channel: Channel",
               p.installed_release, p.installed_rollout
           from update_rollouts r, printers p join presence q on q.printer = p.id
           where r.id = $1 and p.bucket < r.rollout_percentage and q.replica is not null
             and rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version)
             and not exists (select 1 from update_history u where u.rollout_id = r.id and u.printer = p.id and u.last)
           group by 1, 2, 3, 4, 5, 6"#,
        rollout.0
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| Cohort {
        platform: row.platform,
        version: row.firmware_version.into(),
        auto_update: row.auto_update,
        channel: row.channel,
        installed: census::installed(row.installed_release, row.installed_rollout),
    });
    Ok(rows.collect())
}

/// How many offers of a rollout were made since a moment.
pub(in crate::rollouts) async fn offered_since(
    conn: &mut PgConnection,
    rollout: RolloutId,
    since: Time,
) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_history where rollout_id = $1 and started_at > $2"#,
        rollout.0,
        since
    );
    count.fetch_one(conn).await
}

/// How many open updates of a rollout nothing was heard of since a moment, by stage, of those that count.
pub(in crate::rollouts) async fn silent(
    conn: &mut PgConnection,
    rollout: &Rollout,
    since: Time,
) -> Result<Vec<(i32, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select stage, count(*) as "count!" from update_history where rollout_id = $1 and open and started_at < $2 and last_activity_at < $2
             and not ($3 and shared_key)
           group by 1"#,
        rollout.id.0,
        since,
        rollout.own_keys_only
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.stage, row.count)).collect())
}

/// Some printers that the lists of a rollout name, with what decides about them.
pub(in crate::rollouts) async fn some_named(
    conn: &mut PgConnection,
    rollout: RolloutId,
    most: i64,
) -> Result<Vec<(PrinterId, Cohort)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select p.printer_id as "printer_id: PrinterId", p.platform as "platform: Platform", p.firmware_version, p.auto_update,
               p.update_channel as "channel: Channel", p.installed_release, p.installed_rollout
           from update_rollouts r, printers p
           where r.id = $1 and rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version) limit $2"#,
        rollout.0,
        most
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| {
        let cohort = Cohort {
            platform: row.platform,
            version: row.firmware_version.into(),
            auto_update: row.auto_update,
            channel: row.channel,
            installed: census::installed(row.installed_release, row.installed_rollout),
        };
        (row.printer_id, cohort)
    });
    Ok(rows.collect())
}

/// Median time from offer to proof of the last confirmed updates; none when there is none.
pub(in crate::rollouts) async fn typical_update(
    conn: &mut PgConnection,
) -> Result<Option<TimeDelta>, sqlx::Error> {
    let seconds = sqlx::query_scalar!(
        "select percentile_cont(0.5) within group (order by extract(epoch from confirmed_at - started_at)) \
         from (select confirmed_at, started_at from update_history where confirmed_at is not null order by number desc limit 1000) u"
    );
    let seconds = seconds.fetch_one(conn).await?;
    Ok(seconds.map(|seconds| TimeDelta::milliseconds((seconds * 1000.0) as i64)))
}
