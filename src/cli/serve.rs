//! `serve` and `migrate`.

use std::process::ExitCode;

use secrecy::SecretString;
use sqlx::PgPool;

use super::{Fatal, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::shutdown::Shutdown;
use crate::{app, db, telemetry};

/// Runs a replica until SIGTERM or Ctrl-C.
pub fn serve(migrate: bool) -> Result<ExitCode, Fatal> {
    let config = Config::from_env()?;
    let telemetry = telemetry::init(config.log_format, &config.log_filter)?;
    let code = runtime()?.block_on(async {
        if migrate {
            apply(&config.database_url).await?;
        }
        let app = app::start(&config, Clock::system()).await?;
        tracing::info!(address = %app.address, internal = %app.internal_address, replica = %app.state.replica, "serving");
        Shutdown::signalled().await?;
        tracing::info!("shutting down; a second signal ends it at once");
        let clean = tokio::select! { clean = app.stop() => clean, _ = Shutdown::signalled() => false };
        Ok::<_, Fatal>(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    telemetry.flush();
    code
}

/// Applies missing migrations and gives a role its rights, or tells how many there are.
pub fn migrate(check: bool, grant_to: Option<&str>) -> Result<ExitCode, Fatal> {
    let url = Config::database_from_env()?;
    runtime()?.block_on(async {
        if !check {
            println!("{} migrations applied", apply(&url).await?);
            if let Some(role) = grant_to {
                db::grant(&mut *connect(&url).await?.acquire().await?, role).await?;
                println!("the role {role} may do what `serve` needs");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let missing = db::pending(&connect(&url).await?).await?;
        println!("{missing} migrations are missing");
        Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

async fn connect(url: &SecretString) -> Result<PgPool, app::Error> {
    let options = app::database(url).await?;
    Ok(db::pool(options, 2))
}

async fn apply(url: &SecretString) -> Result<usize, Fatal> {
    let pool = connect(url).await?;
    let applied = db::migrate(&pool).await?;
    pool.close().await;
    Ok(applied)
}
