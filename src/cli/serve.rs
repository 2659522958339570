//! `serve` and `migrate`.

use std::process::ExitCode;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::{Fatal, key, runtime};
use crate::clock::Clock;
use crate::config::{Config, Database};
use crate::shutdown::Shutdown;
use crate::storage::Store;
use crate::{app, db, telemetry};

/// How often a database is asked whether it is up to date.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What is done before a replica starts. Each is harmless when it was done before, and when several replicas do it at once.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Before {
    /// Apply missing migrations before starting
    #[arg(long)]
    migrate: bool,
    /// Make the bucket when it is not there
    #[arg(long)]
    create_bucket: bool,
    /// Make an administrator's key when there is no key at all, and print it once to standard output
    #[arg(long)]
    first_key: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Migrate {
    /// Only tell whether migrations are missing: exit code 1 when some are
    #[arg(long)]
    check: bool,
    /// Apply nothing, and wait until somebody else has: exit code 1 when it takes longer
    #[arg(long, value_name = "SECONDS", conflicts_with = "check")]
    wait: Option<u32>,
    /// Then let this role do what `serve` needs, and nothing else; the role must exist
    #[arg(long, value_name = "ROLE", conflicts_with_all = ["check", "wait"])]
    grant_to: Option<String>,
}

/// Runs a replica until SIGTERM or Ctrl-C.
pub(super) fn serve(before: Before) -> Result<ExitCode, Fatal> {
    let config = Config::from_env()?;
    let telemetry = telemetry::init(config.log_format, &config.log_filter)?;
    let code = runtime()?.block_on(async {
        prepare(before, &config).await?;
        // It may wait for migrations, and the first process of a container is not ended by a signal that it does not heed.
        let app = tokio::select! {
            app = app::start(&config, Clock::system()) => app?,
            signalled = Shutdown::signalled() => return Ok::<_, Fatal>(signalled.map(|()| ExitCode::SUCCESS)?),
        };
        tracing::info!(address = %app.address, internal = %app.internal_address, replica = %app.state.replica, "serving");
        Shutdown::signalled().await?;
        tracing::info!("shutting down; a second signal ends it at once");
        let clean = tokio::select! { clean = app.stop() => clean, _ = Shutdown::signalled() => false };
        Ok::<_, Fatal>(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    telemetry.flush();
    code
}

async fn prepare(before: Before, config: &Config) -> Result<(), Fatal> {
    if before.migrate {
        apply(&config.database).await?;
    }
    if before.create_bucket {
        let made = Store::connect(&config.storage).await.create_bucket().await;
        made.map_err(|error| app::Error::Bucket { bucket: config.storage.bucket.clone(), error })?;
    }
    if before.first_key {
        key::first(&config.database, &config.base_url).await?;
    }
    Ok(())
}

/// Applies missing migrations and gives a role its rights, or tells how many there are, or waits until there are none.
pub(super) fn migrate(args: &Migrate) -> Result<ExitCode, Fatal> {
    let database = Config::database_from_env()?;
    runtime()?.block_on(async {
        if let Some(patience) = args.wait {
            return wait(&database, Duration::from_secs(patience.into())).await;
        }
        let pool = connect(&database).await?;
        if args.check {
            let standing = db::standing(&pool).await?;
            println!("{} migrations are missing", standing.missing);
            return Ok(if standing.missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        println!("{} migrations applied", db::migrate(&pool).await?);
        if let Some(role) = &args.grant_to {
            match db::standing(&pool).await?.newer {
                0 => {
                    db::grant(&mut *pool.acquire().await?, role).await?;
                    println!("the role {role} may do what `serve` needs");
                }
                newer => println!(
                    "the database has {newer} migrations that this release does not know, so the rights of {role} stay as a newer release gave them"
                ),
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A database that is not there yet, or not in time, is waited for like one that is not up to date.
async fn wait(database: &Database, patience: Duration) -> Result<ExitCode, Fatal> {
    let end = Instant::now() + patience;
    let mut last = String::new();
    loop {
        let standing = async { Ok::<_, Fatal>(db::standing(&connect(database).await?).await?) };
        let why = match standing.await.map(|standing| standing.refusal()) {
            Ok(None) => {
                println!("no migrations are missing");
                return Ok(ExitCode::SUCCESS);
            }
            Ok(Some(why)) => why,
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(format!("waited {} s in vain: {why}", patience.as_secs()).into());
        }
        if why != last {
            eprintln!("waiting: {why}");
            last = why;
        }
        sleep(ASK_EVERY).await;
    }
}

async fn connect(database: &Database) -> Result<PgPool, app::Error> {
    Ok(db::pool(app::database(database).await?, 2))
}

async fn apply(database: &Database) -> Result<(), Fatal> {
    let pool = connect(database).await?;
    db::migrate(&pool).await?;
    pool.close().await;
    Ok(())
}
