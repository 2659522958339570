//! `doctor`: tries what the server stands on with the server's own settings, and says what is wrong and what to do. It
//! writes one object of its own in the bucket, which it removes, and nothing in the database.

mod bucket;
mod database;
mod public;

use std::fmt;
use std::process::ExitCode;

use super::{Fatal, runtime};
use crate::clock::Clock;
use crate::config::{Auth, Config, Delivery, PrinterAuth};
use crate::storage::Store;
use crate::{auth, firmware};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Error,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Says what was found as it is found, and counts.
#[derive(Default)]
struct Report {
    counts: [usize; 3],
}

impl Report {
    fn say(&mut self, area: &str, verdict: Verdict, text: impl fmt::Display) {
        self.counts[verdict as usize] += 1;
        println!("{verdict:<8} {area:<12} {text}");
    }

    fn ok(&mut self, area: &str, text: impl fmt::Display) {
        self.say(area, Verdict::Ok, text);
    }

    fn warning(&mut self, area: &str, text: impl fmt::Display) {
        self.say(area, Verdict::Warning, text);
    }

    fn error(&mut self, area: &str, text: impl fmt::Display) {
        self.say(area, Verdict::Error, text);
    }
}

/// Looks at everything: exit code 1 when something is wrong that keeps the server from its work.
pub(super) fn doctor() -> Result<ExitCode, Fatal> {
    let config = Config::from_env()?;
    let mut report = Report::default();
    settings(&config, &mut report);
    runtime()?.block_on(examine(&config, &mut report));
    let [ok, warnings, errors] = report.counts;
    println!("\n{ok} ok, {warnings} warnings, {errors} errors");
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(config: &Config, report: &mut Report) {
    let area = "settings";
    let before = report.counts;
    if matches!(config.auth, Auth::Off) {
        report.warning(area, "AUTH=off: whoever reaches the server may install anything on every printer");
    }
    if config.printer_auth == PrinterAuth::Open {
        report.warning(
            area,
            "PRINTER_AUTH=open: anybody may say that it is any printer; `enroll` binds each to its first key",
        );
    }
    if config.edge.tls.is_none() && config.edge.trusted_proxies.is_empty() {
        report.warning(
            area,
            "neither TLS_CERT_FILE nor TRUSTED_PROXIES is set: behind a load balancer all clients seem to have its address, \
             and share what one address may do",
        );
    }
    if report.counts == before {
        report.ok(area, "all can be read, and none is for development only");
    }
}

async fn examine(config: &Config, report: &mut Report) {
    let clock = Clock::system();
    let pool = database::check(config, &clock, report).await;
    let store = Store::connect(&config.storage).await;
    let usable = bucket::check(config, &store, &clock, report).await;
    public::check(config, report).await;
    let Some(pool) = pool else { return };
    keys(&pool, config, &clock, report).await;
    if usable {
        releases(&pool, &store, &clock, report).await;
    }
    pool.close().await;
}

async fn keys(pool: &sqlx::PgPool, config: &Config, clock: &Clock, report: &mut Report) {
    let admins = async { auth::db::admins(&mut *pool.acquire().await?, clock.now()).await };
    match (admins.await, &config.auth) {
        (Err(error), _) => report.error("keys", format!("cannot be read: {error}")),
        (Ok(0), Auth::On { admin_key: None }) => report.warning(
            "keys",
            "no key opens the API as an administrator; make one with `paperminder-ota key create --name me --role admin`",
        ),
        (Ok(count), _) => report.ok("keys", format!("{count} keys of administrators")),
    }
}

/// Every release has its image in the bucket, as long as it should be. A release that a CDN or a link serves needs it too.
async fn releases(pool: &sqlx::PgPool, store: &Store, clock: &Clock, report: &mut Report) {
    let area = "releases";
    match firmware::inspect(pool, store, clock.now()).await {
        Err(error) => report.error(area, format!("rows and objects cannot be compared: {error}")),
        Ok(inspection) => {
            for wrong in &inspection.wrong {
                report.error(
                    area,
                    format!("{wrong}; restore the object from the bucket's older versions or a backup, or delete the release"),
                );
            }
            if inspection.wrong.is_empty() {
                report
                    .ok(area, format!("all {} releases have their image in the bucket", inspection.releases));
            }
            if inspection.unnamed > 0 {
                report.warning(
                    area,
                    format!(
                        "{} objects that no release names; `paperminder-ota gc --dry-run` lists them",
                        inspection.unnamed
                    ),
                );
            }
        }
    }
}

/// Whether printers are given URLs of S3 itself.
fn presigned(config: &Config) -> bool {
    matches!(config.delivery, Delivery::Presigned)
}
