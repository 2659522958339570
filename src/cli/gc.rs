//! `gc`.

use std::process::ExitCode;
use std::time::Duration;

use chrono::TimeDelta;
use indicatif::{HumanBytes, HumanDuration};

use super::{Fatal, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::firmware::gc::{self, Garbage, Kind, Orders, Outcome, Total};
use crate::storage::Store;
use crate::{app, db};

#[derive(clap::Args)]
pub(super) struct Args {
    /// List what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave what is younger; uploads that take longer than this are broken off
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    older_than: u32,
    /// Go on although the database knows no release at all
    #[arg(long)]
    no_releases: bool,
}

/// Collects the garbage: exit code 1 when some of it stays.
pub(super) fn gc(args: &Args) -> Result<ExitCode, Fatal> {
    let (database, storage) = Config::data_from_env()?;
    let orders = Orders {
        older_than: Duration::from_secs(u64::from(args.older_than) * 3600),
        dry_run: args.dry_run,
        no_releases: args.no_releases,
    };
    runtime()?.block_on(async {
        let pool = db::pool(app::database(&database).await?, 2);
        let store = Store::connect(&storage).await;
        store.check().await.map_err(|error| app::Error::Bucket { bucket: storage.bucket.clone(), error })?;
        let now = Clock::system().now();
        let mut tell = |garbage: &Garbage<'_>| println!("{}", line(garbage));
        let total = gc::collect(&pool, &store, now, &orders, &mut tell).await?;
        println!("{}", sum(&total, orders.dry_run));
        if total.uploads_unknown {
            println!("This S3 does not list multipart uploads, so open ones were not looked at.");
        }
        Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn line(garbage: &Garbage<'_>) -> String {
    let (verb, why) = match &garbage.outcome {
        Outcome::Seen => ("would remove", String::new()),
        Outcome::Removed => ("removed", String::new()),
        Outcome::Failed(error) => ("could not remove", format!(": {error}")),
    };
    let what = match garbage.kind {
        Kind::Orphan => "no release names it",
        Kind::Staged => "left by an upload",
        Kind::Multipart => "multipart upload that was not ended",
    };
    let size = garbage.size.map_or_else(String::new, |size| format!(", {}", HumanBytes(size)));
    format!("{verb} {} ({what}, {} old{size}){why}", garbage.key, age(garbage.age))
}

fn age(age: TimeDelta) -> HumanDuration {
    HumanDuration(age.to_std().unwrap_or_default())
}

fn sum(total: &Total, dry_run: bool) -> String {
    let Total { objects, bytes, uploads, failed, .. } = *total;
    let found = format!("{objects} objects ({}), {uploads} open multipart uploads", HumanBytes(bytes));
    match (dry_run, failed) {
        (true, _) => format!("garbage: {found}; nothing was removed (--dry-run)"),
        (false, 0) => format!("garbage: {found}; all removed"),
        (false, failed) => format!("garbage: {found}; {failed} of them could not be removed"),
    }
}
