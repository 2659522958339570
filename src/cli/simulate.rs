//! `simulate`: printers against any server, or rows in a database.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{Fatal, runtime, seed};
use crate::shutdown::Shutdown;
use crate::simulate::run;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Choice {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    printers: crate::simulate::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fill an empty database (DATABASE_URL) with a large fleet and its past: releases, rollouts, printers, updates
    ///
    /// For measuring and trying things out. The releases have no images in S3, so keep real printers away from it.
    Seed(seed::Args),
}

/// Runs printers until they are done, or until Ctrl-C; or fills a database.
pub(super) fn simulate(args: Choice) -> Result<ExitCode, Fatal> {
    if let Some(Command::Seed(args)) = &args.command {
        return seed::seed(args);
    }
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                let _ = Shutdown::signalled().await;
                stop.cancel();
            }
        });
        run(args.printers, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
