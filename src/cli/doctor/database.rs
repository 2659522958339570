//! PostgreSQL: reached, encrypted, up to date, with the rights and the room that a replica needs.

use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;

use super::Report;
use crate::clock::Clock;
use crate::config::Config;
use crate::{app, db};

const AREA: &str = "database";
/// A round trip that makes batches of claims slow.
const SLOW: Duration = Duration::from_millis(5);
/// Of so many the best counts: distance makes every one slow, a moment's load only some.
const TRIPS: u32 = 10;
/// Difference of two clocks that shifts schedules noticeably.
const SKEW_SECONDS: f64 = 2.0;
/// A name that no hint of ours has.
const CHANNEL: &str = "paperminder_doctor";

/// The pool when the database can be used.
pub(super) async fn check(config: &Config, clock: &Clock, report: &mut Report) -> Option<PgPool> {
    let options = match app::database(&config.database).await {
        Ok(options) => options,
        Err(error) => {
            report.error(AREA, error);
            return None;
        }
    };
    let pool = db::pool(options, 2);
    let outcome = async {
        let mut conn = pool.acquire().await?;
        server(&mut conn, config, clock, report).await?;
        rights(&mut conn, report).await?;
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = outcome.await {
        report.error(AREA, format!("cannot be asked: {error}"));
        return None;
    }
    notifications(&pool, report).await;
    let standing = match db::standing(&pool).await {
        Err(error) => {
            report.error(AREA, error);
            return None;
        }
        Ok(standing) => standing,
    };
    if let Some(why) = standing.refusal() {
        report.error(AREA, why);
        return None;
    }
    match standing.newer {
        0 => report.ok(AREA, "the schema is up to date, and the role may do what `serve` does"),
        newer => report.warning(
            AREA,
            format!("a newer release applied {newer} migrations, which this one can live with"),
        ),
    }
    Some(pool)
}

async fn server(
    conn: &mut PgConnection,
    config: &Config,
    clock: &Clock,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let mut trip = Duration::MAX;
    for _ in 0..TRIPS {
        let begun = Instant::now();
        sqlx::query("select 1").execute(&mut *conn).await?;
        trip = trip.min(begun.elapsed());
    }
    let version: String = sqlx::query_scalar("show server_version").fetch_one(&mut *conn).await?;
    let text = format!("PostgreSQL {version} answers in {:.1} ms", trip.as_secs_f64() * 1000.0);
    if trip > SLOW {
        report
            .warning(AREA, format!("{text}, which makes every batch slow: bring the replicas nearer to it"));
    } else {
        report.ok(AREA, text);
    }
    let (encrypted, local, standby): (bool, bool, bool) = sqlx::query_as(
        "select coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false), \
         coalesce(inet_client_addr() <<= '127.0.0.0/8' or inet_client_addr() = '::1', true), pg_is_in_recovery()",
    )
    .fetch_one(&mut *conn)
    .await?;
    if standby {
        report.error(AREA, "this is a standby, which takes no writes: point DATABASE_URL at the primary");
    }
    match (encrypted, local) {
        (true, _) => report.ok(AREA, "the connection is encrypted"),
        (false, true) => report.ok(AREA, "the connection is not encrypted, and stays on this machine"),
        (false, false) => {
            report
                .warning(AREA, "the connection is not encrypted: add `?sslmode=verify-full` to DATABASE_URL");
        }
    }
    let theirs: f64 = sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8")
        .fetch_one(&mut *conn)
        .await?;
    let skew = (theirs - clock.now().timestamp_millis() as f64 / 1000.0).abs();
    if skew > SKEW_SECONDS {
        report.warning(AREA, format!("its clock and ours are {skew:.0} s apart: see to NTP on both"));
    }
    let (room, used): (i32, i64) = sqlx::query_as(
        "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
             - coalesce(current_setting('reserved_connections', true)::int, 0), \
         (select coalesce(sum(numbackends), 0)::bigint from pg_stat_database)",
    )
    .fetch_one(conn)
    .await?;
    let needs = i64::from(config.database_max_connections) + 1;
    let left = i64::from(room) - used;
    let text = format!("{left} of its {room} connections are free, and a replica may hold {needs}");
    if left < needs {
        report.warning(
            AREA,
            format!(
                "{text}: lower DATABASE_MAX_CONNECTIONS or the number of replicas, or raise max_connections"
            ),
        );
    } else {
        report.ok(AREA, text);
    }
    Ok(())
}

/// The role may do what `serve` does, and not more than it must.
async fn rights(conn: &mut PgConnection, report: &mut Report) -> Result<(), sqlx::Error> {
    let (role, owner): (String, bool) = sqlx::query_as(
        "select current_user::text, exists (select 1 from pg_tables where schemaname = current_schema() and pg_has_role(tableowner, 'usage'))",
    )
    .fetch_one(conn)
    .await?;
    if owner {
        report.warning(AREA, format!("the role {role} owns the tables and may do anything to them, the trail of changes included: give `serve` a role of its own with `paperminder-ota migrate --grant-to`"));
    } else {
        report.ok(AREA, format!("the role {role} owns nothing"));
    }
    Ok(())
}

/// A pooler that gives each statement another connection (PgBouncer's transaction mode) loses what replicas tell each other.
async fn notifications(pool: &PgPool, report: &mut Report) {
    let heard = async {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        sqlx::query("select pg_notify($1, '')").bind(CHANNEL).execute(pool).await?;
        listener.recv().await
    };
    match timeout(Duration::from_secs(3), heard).await {
        Ok(Ok(_)) => report.ok(AREA, "what one replica notifies, others hear"),
        Ok(Err(error)) => report.error(AREA, format!("LISTEN and NOTIFY fail: {error}")),
        Err(_) => report.error(
            AREA,
            "notifications get lost: a pooler in between must pass LISTEN on (session mode), or be left out",
        ),
    }
}
