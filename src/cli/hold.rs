//! `hold`.

use std::process::ExitCode;

use super::{Fatal, runtime};
use crate::auth::Caller;
use crate::clock::Clock;
use crate::config::Config;
use crate::{app, db, rollouts, updates};

/// Pauses every rollout.
pub(super) fn hold() -> Result<ExitCode, Fatal> {
    let database = Config::database_from_env()?;
    runtime()?.block_on(async {
        let pool = db::pool(app::database(&database).await?, 1);
        let mut caller = Caller::admin("cli");
        caller.actor.operation = Some("hold".into());
        let held = rollouts::hold(&pool, &caller, Clock::system().now()).await?;
        let list: Vec<_> = held.iter().map(ToString::to_string).collect();
        match list.as_slice() {
            [] => println!("no rollout made offers"),
            _ => println!(
                "{} rollouts are paused now: {}. Resume one with PATCH /api/rollouts/{{number}} {{\"status\": \"active\"}}.",
                list.len(),
                list.join(", ")
            ),
        }
        let forced = updates::open_forced(&mut *pool.acquire().await?).await?;
        if forced > 0 {
            println!(
                "{forced} forced updates are open, and go out when their printers come: look at GET /api/updates?status=pending"
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}
