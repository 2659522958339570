//! Migrations, by any number of replicas at once.

use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{PgConnection, PgPool};

/// Everything under `migrations/`, compiled in.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Advisory lock of the migrator. A polled lock: one that waits inside PostgreSQL holds a snapshot, and an index that
/// is built concurrently waits for all snapshots, so two migrators could wait for each other for ever.
const LOCK: i64 = 0x7061_7065_725f_6d67;
const POLL: Duration = Duration::from_millis(200);

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// No connection.
    #[error("the database cannot be reached: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed, or the database is newer than this program.
    #[error("the migrations could not be applied: {0}")]
    Migrate(#[from] MigrateError),
}

/// Applies what is missing and tells how many that were.
pub async fn migrate(pool: &PgPool) -> Result<usize, MigrationError> {
    let mut conn = pool.acquire().await?;
    // An index on a large table takes as long as it takes. The connection is closed with the command's pool.
    sqlx::query("set statement_timeout = 0").execute(&mut *conn).await?;
    while !sqlx::query_scalar::<_, bool>("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *conn)
        .await?
    {
        tokio::time::sleep(POLL).await;
    }
    let outcome = run(&mut conn).await;
    // Closing the session would free the lock too, but the connection goes back to a pool.
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(&mut *conn).await?;
    outcome
}

async fn run(conn: &mut PgConnection) -> Result<usize, MigrationError> {
    let missing = pending_on(conn).await?;
    let mut migrator = Migrator { migrations: MIGRATOR.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_locking(false).run_direct(None, conn, false).await?;
    Ok(missing)
}

/// How many migrations the database lacks.
pub async fn pending(pool: &PgPool) -> Result<usize, MigrationError> {
    pending_on(&mut *pool.acquire().await?).await
}

async fn pending_on(conn: &mut PgConnection) -> Result<usize, MigrationError> {
    let table = &MIGRATOR.table_name;
    if !sqlx::query_scalar::<_, bool>("select to_regclass($1) is not null")
        .bind(&**table)
        .fetch_one(&mut *conn)
        .await?
    {
        return Ok(MIGRATOR.iter().count());
    }
    let applied = conn.list_applied_migrations(table).await?;
    Ok(MIGRATOR.iter().filter(|known| !applied.iter().any(|done| done.version == known.version)).count())
}
