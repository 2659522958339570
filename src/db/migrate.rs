//! Migrations, by any number of replicas at once.

use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{PgConnection, PgPool};

use crate::version::Version;

/// Everything under `migrations/`, compiled in.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Advisory lock of the migrator. A polled lock: one that waits inside PostgreSQL holds a snapshot, and an index that
/// is built concurrently waits for all snapshots, so two migrators could wait for each other for ever.
const LOCK: i64 = 0x7061_7065_725f_6d67;
const POLL: Duration = Duration::from_millis(200);
/// Longest wait of a migration for a lock: whoever comes after it waits behind it, printers included.
const LOCK_TIMEOUT: &str = "set lock_timeout = '5s'";

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// No connection.
    #[error("the database cannot be reached: {0}")]
    Database(sqlx::Error),
    /// The role has no rights there (SQLSTATE 42501).
    #[error(
        "the role has no rights: {0}; run `paperminder-ota migrate --grant-to ROLE` as the tables' owner"
    )]
    Denied(sqlx::Error),
    /// A migration failed.
    #[error("the migrations could not be applied: {0}")]
    Migrate(MigrateError),
}

impl From<MigrateError> for MigrationError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => error.into(),
            error => Self::Migrate(error),
        }
    }
}

impl From<sqlx::Error> for MigrationError {
    fn from(error: sqlx::Error) -> Self {
        let denied = error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42501"));
        if denied { Self::Denied(error) } else { Self::Database(error) }
    }
}

/// Applies what is missing and tells how many that were.
pub async fn migrate(pool: &PgPool) -> Result<usize, MigrationError> {
    migrate_by(pool, &MIGRATOR).await
}

/// The same with other migrations than ours.
pub async fn migrate_by(pool: &PgPool, migrations: &Migrator) -> Result<usize, MigrationError> {
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
    let outcome = run(&mut conn, migrations).await;
    // Closing the session would free the lock too, but the connection goes back to a pool.
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(&mut *conn).await?;
    outcome
}

async fn run(conn: &mut PgConnection, migrations: &Migrator) -> Result<usize, MigrationError> {
    let mut migrator = Migrator { migrations: migrations.migrations.clone(), ..Migrator::DEFAULT };
    // What a newer release applied stays: this one was rolled back to.
    migrator.set_locking(false).set_ignore_missing(true);
    // sqlx makes sure of its table before each file, and PostgreSQL would say each time that it is there.
    sqlx::query("set client_min_messages = warning").execute(&mut *conn).await?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *conn).await?;
    let done = applied(conn).await?;
    let missing = migrations.iter().filter(|migration| !done.contains(&migration.version));
    let mut count = 0;
    for migration in missing.filter(|migration| !migration.migration_type.is_down_migration()) {
        // An index that is built concurrently waits for old transactions, and nobody waits for it.
        let patience = if migration.no_tx { "set lock_timeout = 0" } else { LOCK_TIMEOUT };
        sqlx::query(patience).execute(&mut *conn).await?;
        migrator.run_direct(Some(migration.version), conn, false).await?;
        count += 1;
    }
    sqlx::query(LOCK_TIMEOUT).execute(&mut *conn).await?;
    // Nothing is left to apply: whether what was applied is what this program has.
    migrator.run_direct(None, conn, false).await?;
    Ok(count)
}

/// Versions of the migrations that the database has.
async fn applied(conn: &mut PgConnection) -> Result<Vec<i64>, MigrationError> {
    let table = &MIGRATOR.table_name;
    let known = sqlx::query_scalar::<_, bool>("select to_regclass($1) is not null").bind(&**table);
    if !known.fetch_one(&mut *conn).await? {
        return Ok(Vec::new());
    }
    Ok(conn.list_applied_migrations(table).await?.into_iter().map(|done| done.version).collect())
}

/// How this program and a database's schema stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Migrations that the database lacks.
    pub missing: usize,
    /// Migrations of the database that this program does not know: a newer release was here.
    pub newer: usize,
    /// What our role may not do and `serve` does, as in `select on audit`.
    pub lacking: Vec<String>,
    /// The oldest release that the schema serves.
    floor: Option<Version>,
}

impl Standing {
    /// Why this program must not work on the database, as the end of a sentence; none when it may. A database that is newer
    /// is none by itself: migrations leave the release before them what it needs.
    pub fn refusal(&self) -> Option<String> {
        if let Some(why) = self.too_old() {
            return Some(why);
        }
        match (self.missing, self.lacking.as_slice()) {
            (0, []) => None,
            (0, lacking) => Some(format!(
                "the role may not {}; run `paperminder-ota migrate --grant-to ROLE` as the tables' owner",
                lacking.join(", ")
            )),
            (missing, _) => {
                Some(format!("the database lacks {missing} migrations; run `paperminder-ota migrate`"))
            }
        }
    }

    /// Why this program will never work on the database; what else is wrong, `migrate` mends.
    pub fn too_old(&self) -> Option<String> {
        let (ours, floor) = (env!("CARGO_PKG_VERSION"), self.floor.as_ref()?);
        ours.parse().is_ok_and(|ours: Version| ours < *floor).then(|| format!(
            "the database serves release {floor} and newer, and this is {ours}: go back to a newer release, or restore the database from before it"
        ))
    }
}

/// Looks how the database stands.
pub async fn standing(pool: &PgPool) -> Result<Standing, MigrationError> {
    standing_on(&mut *pool.acquire().await?).await
}

async fn standing_on(conn: &mut PgConnection) -> Result<Standing, MigrationError> {
    let applied = applied(conn).await?;
    let ours = || MIGRATOR.iter().map(|migration| migration.version);
    let known = sqlx::query_scalar("select to_regclass('schema_floor') is not null");
    let floor: Option<String> = match known.fetch_one(&mut *conn).await? {
        true => {
            sqlx::query_scalar("select oldest_release from schema_floor").fetch_optional(&mut *conn).await?
        }
        false => None,
    };
    Ok(Standing {
        missing: ours().filter(|version| !applied.contains(version)).count(),
        newer: applied.iter().filter(|done| !ours().any(|version| version == **done)).count(),
        lacking: super::lacking(conn).await?,
        floor: floor.and_then(|text| text.parse().ok()),
    })
}
