//! Forced updates: what an operator wants one printer to run, whatever rollouts say.

use sqlx::PgPool;

use super::create::within;
use super::{Error, db};
use crate::auth::Caller;
use crate::clock::Time;
use crate::ids::PrinterRef;
use crate::printers;
use crate::push::{self, Hint};
use crate::updates::{self, Forced, UpdateView};
use crate::version::Version;
use crate::words::Channel;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Force {
    /// The version that the printer is to run.
    pub version: Version,
    /// Only a release of this channel.
    pub channel: Option<Channel>,
    /// Whether it may be lower than what the printer runs.
    pub allow_downgrade: bool,
}

/// Opens the update. What cannot be undone from afar is still refused: a foreign platform, an image that the printer is
/// too old for.
pub async fn force(
    pool: &PgPool,
    caller: &Caller,
    printer: PrinterRef,
    wanted: Force,
    now: Time,
) -> Result<UpdateView, Error> {
    let mut tx = caller.begin(pool).await?;
    crate::firmware::hold(&mut tx, &wanted.version).await?;
    let facts = printers::facts(&mut tx, printer).await?;
    let (runs, version) = (&facts.cohort.version, &wanted.version);
    let catalog = db::catalog(&mut tx).await?;
    let channel = within(&caller.scope, wanted.channel)?;
    let best = catalog.best(version, channel, &facts.cohort);
    let Some(release) = best.filter(|release| caller.scope.has_release(release.channel, release.platform))
    else {
        let on = channel.map_or_else(String::new, |channel| format!(" on {channel}"));
        let platform = facts.cohort.platform;
        return Err(Error::FirmwareNotFound(format!(
            "there is no release {version}{on} for {platform} that stands"
        )));
    };
    let refuse = |why: String| Err(Error::Conflict(format!("Printer {}: {why}.", facts.printer_id)));
    if runs == version {
        return refuse(format!("it runs {version} already"));
    }
    if runs > version && !wanted.allow_downgrade {
        return refuse(format!(
            "it runs {runs}, which is newer than {version}; send allow_downgrade: true to take it down"
        ));
    }
    if let Some(least) = release.min_upgrade_version.as_ref().filter(|least| runs < *least) {
        return refuse(format!(
            "it runs {runs}, and {version} can be taken from {least} on; force a release in between first"
        ));
    }
    let forced = Forced { printer, release: release.id, version: version.clone(), from: runs.clone() };
    let Some(update) = updates::force(&mut tx, &forced, now).await? else {
        return refuse("it has an open update; wait for its end, it gets one at a time".into());
    };
    push::notify(&mut tx, Hint::Printer(printer.0)).await?;
    let view = updates::one(&mut tx, update).await?;
    tx.commit().await?;
    Ok(view)
}
