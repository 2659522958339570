//! `simulate seed`: an empty database becomes one with a large fleet and its past, to measure and to try things with.
//!
//! Invariants: all or nothing is written; what the triggers keep beside the rows (census and outcomes) is as they would
//! have kept it; nothing of the world is held in memory but a chunk of rows.

mod rows;
mod world;
mod write;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sqlx::{Connection as _, PgConnection};

use self::world::{MOST_EACH, World};
use super::{Fatal, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::{app, db};

/// How large, and which one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many printers
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    printers: u64,
    /// How many attempts to update them, at most 20 each on average
    #[arg(long, value_name = "COUNT", default_value_t = 5_000_000)]
    updates: u64,
    /// Number that decides about everything; the same seed, the same fleet
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Fills the database.
pub(super) fn seed(args: &Args) -> Result<ExitCode, Fatal> {
    let Args { printers, updates, seed } = *args;
    if updates > printers * MOST_EACH {
        return Err(format!(
            "{updates} updates are too many for {printers} printers: at most {MOST_EACH} each are made"
        )
        .into());
    }
    let url = Config::database_from_env()?;
    let began = Instant::now();
    runtime()?.block_on(async {
        let options = app::database(&url).await?;
        let pool = db::pool(options.clone(), 1);
        if let Some(why) = db::standing(&pool).await?.refusal() {
            return Err(why.into());
        }
        pool.close().await;
        let world = World::new(seed, printers, updates, Clock::system().now());
        let style = "{elapsed_precise} [{bar:40}] {human_pos}/{human_len} rows  {msg}";
        let bar = ProgressBar::new(printers + updates)
            .with_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut conn = PgConnection::connect_with(&options).await?;
        let written = write::write(&mut conn, &world, seed, &bar).await;
        bar.finish_and_clear();
        written?;
        conn.close().await?;
        println!(
            "{printers} printers with {updates} updates of {} rollouts are in the database after {:.0} s; nobody has rolled out {} yet",
            world.waves.len(),
            began.elapsed().as_secs_f64(),
            world.versions.last().map(ToString::to_string).unwrap_or_default()
        );
        Ok(ExitCode::SUCCESS)
    })
}
