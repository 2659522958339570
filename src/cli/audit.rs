//! `audit`: whether the trail of changes is whole.

use std::process::ExitCode;

use super::{Fatal, runtime};
use crate::audit::{self, Head};
use crate::config::Config;
use crate::{app, db};

#[derive(clap::Subcommand)]
pub(super) enum What {
    /// Check every entry's hash, and print the last one's; exit code 1 when one is missing or was changed
    ///
    /// Keep what it prints somewhere else: with --expect, a later run tells whether the trail was cut off or written anew.
    Verify {
        /// An entry that an earlier run printed, as NUMBER:HASH
        #[arg(long, value_name = "NUMBER:HASH", value_parser = head)]
        expect: Option<Head>,
    },
}

fn head(text: &str) -> Result<Head, String> {
    let read = || {
        let (number, hash) = text.split_once(':')?;
        Some(Head { number: number.parse().ok()?, hash: hash.to_owned() })
    };
    read().ok_or_else(|| "must be NUMBER:HASH, as `audit verify` prints it".to_owned())
}

/// Does it.
pub(super) fn audit(what: &What) -> Result<ExitCode, Fatal> {
    let What::Verify { expect } = what;
    let database = Config::database_from_env()?;
    runtime()?.block_on(async {
        let pool = db::pool(app::database(&database).await?, 1);
        let mut conn = pool.acquire().await?;
        // A long trail takes longer than a statement of the server may.
        sqlx::query("set statement_timeout = 0").execute(&mut *conn).await?;
        match audit::verify(&mut conn, expect.as_ref()).await? {
            Ok(head) if head.number == 0 => println!("the trail is empty"),
            Ok(head) => println!(
                "{} entries are as they were written; the last is {}:{}",
                head.number, head.number, head.hash
            ),
            Err(broken) => return Err(format!("the trail is broken: {broken}").into()),
        }
        Ok(ExitCode::SUCCESS)
    })
}
