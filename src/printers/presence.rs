//! Which replicas live, and with them which printers are online.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::ids::ReplicaId;

/// How long a replica counts as alive without a heartbeat, by the database's clock.
const LEASE: Duration = Duration::from_secs(15);
/// Rows of replicas that ended without a farewell are kept this long, for people.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// Renews this replica's lease and says how many printers it holds; makes its row when it is not there.
pub async fn heartbeat(
    conn: &mut PgConnection,
    replica: ReplicaId,
    name: &str,
    printers: usize,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into replicas (id, name, lease_until, printers) values ($1, $2, now() + make_interval(secs => $3), $4) \
         on conflict (id) do update set lease_until = excluded.lease_until, printers = excluded.printers",
        replica.0,
        name,
        LEASE.as_secs_f64(),
        i32::try_from(printers).unwrap_or(i32::MAX),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from replicas where lease_until < now() - make_interval(secs => $1)",
        KEEP.as_secs_f64()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// This moment, by the database's clock.
pub async fn moment(conn: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(conn).await
}

/// This replica has taken note of whatever was committed before that moment.
pub async fn noted(
    conn: &mut PgConnection,
    replica: ReplicaId,
    moment: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update replicas set noted_at = $2 where id = $1 and (noted_at is null or noted_at < $2)",
        replica.0,
        moment
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many other replicas live that have not taken note of what was committed before that moment.
pub async fn unaware(
    conn: &mut PgConnection,
    replica: ReplicaId,
    moment: DateTime<Utc>,
) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from replicas
           where id <> $1 and lease_until > now() and (noted_at is null or noted_at < $2)"#,
        replica.0,
        moment
    );
    count.fetch_one(conn).await
}

/// Ends this replica's lease: its printers are offline at once.
pub async fn farewell(conn: &mut PgConnection, replica: ReplicaId) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from replicas where id = $1", replica.0).execute(conn).await?;
    Ok(())
}
