//! What the statistics are read from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::tally::Tally;
use super::view::{ActiveRollout, CommonError, Printers};
use crate::clock::Time;
use crate::updates::Status;

/// Failures among which the most common are looked for.
const RECENT_FAILURES: i64 = 10_000;
/// Active rollouts that are listed.
const LISTED: i64 = 50;

/// Printers, counted by what they are.
pub(super) async fn printers(conn: &mut PgConnection) -> Result<Printers, sqlx::Error> {
    let mut printers = Printers { online: online(conn).await?, ..Printers::default() };
    for (version, platform, channel, count) in census(conn).await? {
        printers.total += count;
        *printers.by_version.entry(version).or_default() += count;
        *printers.by_platform.entry(platform).or_default() += count;
        *printers.by_channel.entry(channel).or_default() += count;
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
pub(super) async fn rollouts(conn: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select status, count(*) as "count!" from update_rollouts where deleted_at is null group by 1"#
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.status, row.count)).collect())
}

/// Rollouts that are under way or held, the newest first.
pub(super) async fn active(conn: &mut PgConnection) -> Result<Vec<ActiveRollout>, sqlx::Error> {
    sqlx::query_as!(
        ActiveRollout,
        r#"select id, number, firmware_version, rollout_type as "rollout_type: _", rollout_percentage, status as "status: _",
               started_at as "started_at: DateTime<Utc>"
           from update_rollouts where status in ('active', 'paused') and deleted_at is null order by number desc limit $1"#,
        LISTED
    )
    .fetch_all(conn)
    .await
}

/// How many attempts are open.
pub(super) async fn open(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from update_history where open"#);
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

/// Reads the sums and the log once, for everything. `recent` begins at `recent_since`.
pub(super) async fn outcomes(
    conn: &mut PgConnection,
    since: Time,
    recent_since: Time,
) -> Result<Gathered, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select grouping(recent)::int as "not_recent!", grouping(hour)::int as "not_hour!", grouping(version)::int as "not_version!",
               grouping(platform)::int as "not_platform!", grouping(channel)::int as "not_channel!",
               recent, hour, version, platform, channel, outcome as "outcome!: Status", duration as "duration?", sum(count)::bigint as "count!"
           from (
               select hour >= $2 as recent, * from outcomes where hour >= $1
               union all
               select hour >= $2, * from outcomes_log where hour >= $1
           ) o
           group by grouping sets ((recent, outcome, duration), (hour, outcome), (version, outcome, duration), (platform, outcome, duration),
               (channel, outcome, duration))"#,
        since,
        recent_since
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
pub(super) async fn errors(conn: &mut PgConnection) -> Result<Vec<CommonError>, sqlx::Error> {
    sqlx::query_as!(
        CommonError,
        r#"select reason, error_message, count(*) as "count!", max(completed_at) as "last_at: DateTime<Utc>",
               (array_agg(id order by number desc))[1] as "last_update_id!: Uuid"
           from (
               select id, number, reason, left(error_message, 200) as error_message, completed_at
               from update_history where status = 'failed' order by number desc limit $1
           ) failures
           group by 1, 2 order by 3 desc, 4 desc limit 10"#,
        RECENT_FAILURES
    )
    .fetch_all(conn)
    .await
}
