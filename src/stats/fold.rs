//! Sums up the log of outcomes.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

/// Rows of one turn.
const BATCH: i64 = 20_000;
/// Hours are kept apart this long; then a day is enough.
const HOURLY: Duration = Duration::from_secs(48 * 3600);

/// Whoever folds, folds alone: two that write the same sums in another order would wait for each other. "outcomes", in
/// ASCII.
const LOCK: i64 = 0x6f75_7463_6f6d_6573;

/// Moves rows of the log into the sums, and hours that are two days old into days. Returns how many rows it moved; call
/// it until that is none. A reader sees a row in one place, and writers never wait.
pub async fn fold(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let mut tx = alone(conn).await?;
    let logged = sqlx::query_scalar!(
        r#"with taken as (
               delete from outcomes_log where ctid = any(array(select ctid from outcomes_log limit $1 for update skip locked))
               returning *
           ),
           summed as (
               insert into outcomes as o (hour, version, platform, channel, outcome, reason, duration, release, count)
               select hour, version, platform, channel, outcome, reason, duration, release, sum(count) from taken
               group by 1, 2, 3, 4, 5, 6, 7, 8 order by 1, 2, 3, 4, 5, 6, 7, 8
               on conflict (hour, version, platform, channel, outcome, reason, duration, release)
               do update set count = o.count + excluded.count
           )
           select count(*) as "count!" from taken"#,
        BATCH
    );
    let logged = logged.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    let mut tx = alone(conn).await?;
    let aged = sqlx::query_scalar!(
        r#"with taken as (
               delete from outcomes where ctid = any(array(
                   select ctid from outcomes
                   where hour < date_trunc('day', now() - make_interval(secs => $2), 'UTC') and hour <> date_trunc('day', hour, 'UTC')
                   order by hour limit $1 for update skip locked))
               returning *
           ),
           summed as (
               insert into outcomes as o (hour, version, platform, channel, outcome, reason, duration, release, count)
               select date_trunc('day', hour, 'UTC'), version, platform, channel, outcome, reason, duration, release, sum(count)
               from taken group by 1, 2, 3, 4, 5, 6, 7, 8 order by 1, 2, 3, 4, 5, 6, 7, 8
               on conflict (hour, version, platform, channel, outcome, reason, duration, release)
               do update set count = o.count + excluded.count
           )
           select count(*) as "count!" from taken"#,
        BATCH,
        HOURLY.as_secs_f64()
    );
    let aged = aged.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(logged + aged)
}

/// A transaction that waits for its turn.
async fn alone(conn: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let mut tx = conn.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    Ok(tx)
}
