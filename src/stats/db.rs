//! What the statistics are read from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::tally::Tally;
use super::view::{ActiveRollout, CommonError, Printers};
use crate::auth::Scope;
use crate::clock::Time;
use crate::updates::Status;

/// Failures among which the most common are looked for.
const RECENT_FAILURES: i64 = 10_000;
/// Active rollouts that are listed.
const LISTED: i64 = 50;

/// Printers, counted by what they are.
pub(super) async fn printers(conn: &mut PgConnection, scope: &Scope) -> Result<Printers, sqlx::Error> {
    if !scope.is_all() {
        return some_printers(conn, scope).await;
    }
    let mut printers = Printers { online: online(conn).await?, ..Printers::default() };
    for (version, platform, channel, count) in census(conn).await? {
        printers.total += count;
        *printers.by_version.entry(version).or_default() += count;
        *printers.by_platform.entry(platform).or_default() += count;
        *printers.by_channel.entry(channel).or_default() += count;
    }
    Ok(printers)
}

/// Those of a scope, one by one.
async fn some_printers(conn: &mut PgConnection, scope: &Scope) -> Result<Printers, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select p.firmware_version, p.platform, p.update_channel, count(*) as "count!", count(r.id) as "online!"
           from printers p join presence q on q.printer = p.id left join replicas r on r.id = q.replica and r.lease_until > now()
           where ($1::text[] is null or p.user_id = any($1)) and ($2::text[] is null or p.update_channel = any($2))
             and ($3::text[] is null or p.platform = any($3))
           group by 1, 2, 3"#,
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    );
    let mut printers = Printers::default();
    for row in rows.fetch_all(conn).await? {
        printers.total += row.count;
        printers.online += row.online;
        *printers.by_version.entry(row.firmware_version).or_default() += row.count;
        *printers.by_platform.entry(row.platform).or_default() += row.count;
        *printers.by_channel.entry(row.update_channel).or_default() += row.count;
    }
    Ok(printers)
}

/// As every replica said at its last heartbeat: counting a million rows would take longer than all the rest.
async fn online(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let sum = sqlx::query_scalar!(
        r#"select coalesce(sum(printers), 0) as "sum!" from replicas where lease_until > now()"#
    );
    sum.fetch_one(conn).await
}

/// How many printers run which version on which platform and follow which channel.
async fn census(conn: &mut PgConnection) -> Result<Vec<(String, String, String, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select firmware_version, platform, update_channel, sum(n)::bigint as "count!" from census
           where rollout_id is null group by 1, 2, 3 having sum(n) <> 0"#
    );
    let rows = rows.fetch_all(conn).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.firmware_version, row.platform, row.update_channel, row.count))
        .collect())
}

/// How many rollouts are in which state.
pub(super) async fn rollouts(
    conn: &mut PgConnection,
    scope: &Scope,
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select status, count(*) as "count!" from update_rollouts where deleted_at is null
               and ($1::text[] is null or reach_users <@ $1) and ($2::text[] is null or reach_channels <@ $2)
               and ($3::text[] is null or reach_platforms <@ $3)
           group by 1"#,
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.status, row.count)).collect())
}

/// How many rollouts a threshold holds.
pub(super) async fn held(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_rollouts
           where status = 'paused' and status_reason in ('failures', 'silence') and deleted_at is null"#
    );
    count.fetch_one(conn).await
}

/// How many attempts are open of which nothing was heard since a moment.
pub(super) async fn silent(conn: &mut PgConnection, since: Time) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_history where open and sends > 0 and last_activity_at < $1"#,
        since
    );
    count.fetch_one(conn).await
}

/// How many printers are on no replica, and were on none since a moment.
pub(super) async fn offline(conn: &mut PgConnection, since: Time) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from presence q left join replicas r on r.id = q.replica and r.lease_until > now()
           where r.id is null and greatest(q.last_connected, q.last_disconnected) < $1"#,
        since
    );
    count.fetch_one(conn).await
}

/// Rollouts that are under way or held, the newest first.
pub(super) async fn active(
    conn: &mut PgConnection,
    scope: &Scope,
) -> Result<Vec<ActiveRollout>, sqlx::Error> {
    sqlx::query_as!(
        ActiveRollout,
        r#"select id, number, firmware_version, rollout_type as "rollout_type: _", rollout_percentage, status as "status: _",
               started_at as "started_at: DateTime<Utc>"
           from update_rollouts where status in ('active', 'paused') and deleted_at is null
               and ($2::text[] is null or reach_users <@ $2) and ($3::text[] is null or reach_channels <@ $3)
               and ($4::text[] is null or reach_platforms <@ $4)
           order by number desc limit $1"#,
        LISTED,
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    )
    .fetch_all(conn)
    .await
}

/// How many attempts are open.
pub(super) async fn open(conn: &mut PgConnection, scope: &Scope) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_history u where open and ($1 or exists (select 1 from printers p
               where p.id = u.printer and ($2::text[] is null or p.user_id = any($2))
                 and ($3::text[] is null or p.update_channel = any($3)) and ($4::text[] is null or p.platform = any($4))))"#,
        scope.is_all(),
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    );
    count.fetch_one(conn).await
}

/// Outcomes since a moment, gathered in different ways.
#[derive(Default)]
pub(super) struct Gathered {
    pub recent: Tally,
    pub all: Tally,
    /// By hour; by day before the last two days.
    pub times: BTreeMap<Time, Tally>,
    pub versions: BTreeMap<String, Tally>,
    pub platforms: BTreeMap<String, Tally>,
    pub channels: BTreeMap<String, Tally>,
}

/// Reads the sums and the log once, for everything; for a scope the attempts themselves, which nobody sums up. `recent` begins at `recent_since`.
pub(super) async fn outcomes(
    conn: &mut PgConnection,
    scope: &Scope,
    since: Time,
    recent_since: Time,
) -> Result<Gathered, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select grouping(recent)::int as "not_recent!", grouping(hour)::int as "not_hour!", grouping(version)::int as "not_version!",
               grouping(platform)::int as "not_platform!", grouping(channel)::int as "not_channel!",
               recent, hour, version, platform, channel, outcome as "outcome!: Status", duration as "duration?", sum(count)::bigint as "count!"
           from (
               select hour >= $2 as recent, hour, version, platform, channel, outcome, duration, count from outcomes
               where $3 and hour >= $1
               union all
               select hour >= $2, hour, version, platform, channel, outcome, duration, count from outcomes_log
               where $3 and hour >= $1
               union all
               select u.completed_at >= $2, date_trunc('hour', u.completed_at, 'UTC'), u.firmware_version,
                   coalesce(f.platform, 'unknown'), coalesce(f.channel, 'unknown'), u.status,
                   coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), (-1)::smallint), 1
               from update_history u join printers p on p.id = u.printer left join firmware_versions f on f.id = u.firmware_version_id
               where not $3 and not u.open and u.completed_at >= $1 and ($4::text[] is null or p.user_id = any($4))
                 and ($5::text[] is null or p.update_channel = any($5)) and ($6::text[] is null or p.platform = any($6))
           ) o
           group by grouping sets ((recent, outcome, duration), (hour, outcome), (version, outcome, duration), (platform, outcome, duration),
               (channel, outcome, duration))"#,
        since,
        recent_since,
        scope.is_all(),
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    );
    let mut gathered = Gathered::default();
    for row in rows.fetch_all(conn).await? {
        let (outcome, class, count) = (row.outcome, row.duration, row.count);
        if row.not_recent == 0 {
            gathered.all.add(outcome, class, count);
            if row.recent == Some(true) {
                gathered.recent.add(outcome, class, count);
            }
        } else if row.not_hour == 0 {
            gathered.times.entry(row.hour.unwrap_or_default()).or_default().add(outcome, None, count);
        } else if row.not_version == 0 {
            gathered.versions.entry(row.version.unwrap_or_default()).or_default().add(outcome, class, count);
        } else if row.not_platform == 0 {
            gathered
                .platforms
                .entry(row.platform.unwrap_or_default())
                .or_default()
                .add(outcome, class, count);
        } else if row.not_channel == 0 {
            gathered.channels.entry(row.channel.unwrap_or_default()).or_default().add(outcome, class, count);
        }
    }
    Ok(gathered)
}

/// What the last failures said most often.
pub(super) async fn errors(conn: &mut PgConnection, scope: &Scope) -> Result<Vec<CommonError>, sqlx::Error> {
    sqlx::query_as!(
        CommonError,
        r#"select reason, error_message, count(*) as "count!", max(completed_at) as "last_at: DateTime<Utc>",
               (array_agg(id order by number desc))[1] as "last_update_id!: Uuid"
           from (
               select id, number, reason, left(error_message, 200) as error_message, completed_at
               from update_history u where status = 'failed' and ($2 or exists (select 1 from printers p
                   where p.id = u.printer and ($3::text[] is null or p.user_id = any($3))
                     and ($4::text[] is null or p.update_channel = any($4)) and ($5::text[] is null or p.platform = any($5))))
               order by number desc limit $1
           ) failures
           group by 1, 2 order by 3 desc, 4 desc limit 10"#,
        RECENT_FAILURES,
        scope.is_all(),
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    )
    .fetch_all(conn)
    .await
}
