//! `simulate`: printers against any server.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{Fatal, runtime};
use crate::shutdown::Shutdown;
use crate::simulate::{Args, run};

/// Runs printers until they are done, or until Ctrl-C.
pub fn simulate(args: Args) -> Result<ExitCode, Fatal> {
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                let _ = Shutdown::signalled().await;
                stop.cancel();
            }
        });
        run(args, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
