//! The pool, the migrations, and what kind of trouble a database error is.

pub mod batch;
mod grants;
mod migrate;

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Database;

use grants::lacking;
pub use grants::{GrantError, grant};
pub use migrate::{MIGRATOR, MigrationError, Standing, migrate, migrate_by, standing};

/// Longest wait for a free connection; beyond it a request is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest statement, and longest wait for a lock, by PostgreSQL's own clock. Migrations lift both.
const STATEMENT_TIMEOUT: &str = "30s";
const LOCK_TIMEOUT: &str = "10s";
/// Longest silence in a transaction. Somebody that was frozen inside one would hold its rows, and with them everybody
/// who needs one of these, until it wakes.
const SILENCE_TIMEOUT: &str = "10s";
/// A plan that was made while a table was small, and kept, reads the whole table for each of a batch when it has grown:
/// 15,000 outcomes cost PostgreSQL 8 s that way, until it had counted the rows a minute later. Making the plan takes a
/// fraction of a millisecond.
const PLANS: &str = "force_custom_plan";

/// How often a password is read again: its file is small, and on Kubernetes a minute late anyhow.
const PASSWORD_EVERY: Duration = Duration::from_secs(5);

/// Connection options with this product's name on them, so that `pg_stat_activity` tells who is who.
///
/// The password is that of now: whoever keeps options for long asks again, or [`follow`]s.
pub fn options(database: &Database) -> Result<PgConnectOptions, sqlx::Error> {
    let mut options =
        PgConnectOptions::from_str(database.url().expose_secret())?.application_name("paperminder-ota");
    if let Some(password) = database.password().map_err(|wrong| sqlx::Error::Configuration(wrong.into()))? {
        options = options.password(password.expose_secret());
    }
    Ok(options.options([
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("lock_timeout", LOCK_TIMEOUT),
        ("idle_in_transaction_session_timeout", SILENCE_TIMEOUT),
        ("plan_cache_mode", PLANS),
        // Compiling a plan takes longer than any of ours takes to run: a tenth of a second, where a table is not analysed yet
        // and its size is guessed.
        ("jit", "off"),
    ]))
}

/// A pool of at most `most` connections. It connects when first used.
pub fn pool(options: PgConnectOptions, most: u32) -> PgPool {
    PgPoolOptions::new().max_connections(most).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options)
}

/// Gives the pool's next connections the password that the file has by then, until `stop`. Those that are open stay.
pub async fn follow(pool: PgPool, database: Database, stop: CancellationToken) {
    if !database.rotates() {
        return;
    }
    while timeout(PASSWORD_EVERY, stop.cancelled()).await.is_err() {
        match options(&database) {
            Ok(options) => pool.set_connect_options(options),
            Err(error) => tracing::warn!(%error, "the password that was read last is used on"),
        }
    }
}

/// True when the database was not there, or not in time, rather than that it refused what we asked.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        // PostgreSQL, appendix A: 08 connection, 25P03 a transaction that was silent for too long, 28 authorization, 3D000 no such database, 53 resources, 55000 a
        // database that takes no connections, 57 operator intervention and statements that took too long; 40001, 40P01 and
        // 55P03 a conflict that a second try does not meet. None of our statements causes one of these by itself.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "25P03", "28", "3D000", "40001", "40P01", "53", "55000", "55P03", "57"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// True when PostgreSQL could not read a value that we passed on (class 22, data exception), as in a forged cursor.
pub fn is_bad_value(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code.starts_with("22"))
}

/// True when PostgreSQL gave a statement up, because it took too long or somebody asked for it.
pub fn is_cancelled(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014")
}

/// True when a row of that name is there already.
pub fn is_duplicate(error: &sqlx::Error, constraint: &str) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation() && error.constraint() == Some(constraint))
}
