//! `PATCH /api/firmware/{version}`: what may change about a release. Its bytes never do.

use sqlx::PgPool;

use super::{Error, Release, Selector, db};
use crate::auth::Caller;
use crate::clock::Time;
use crate::push::{self, Hint};
use crate::version::Version;

/// What is to change; an inner none takes a value away.
#[derive(Clone, Debug, Default)]
pub struct Amendment {
    /// Short notes.
    pub release_notes: Option<Option<String>>,
    /// Long notes.
    pub changelog: Option<Option<String>>,
    /// Offered even where automatic updates are off.
    pub mandatory: Option<bool>,
    /// Printers below it cannot take this release.
    pub min_upgrade_version: Option<Option<Version>>,
    /// Withdrawn, or restored.
    pub deprecated: Option<bool>,
    /// Only when the release is still at this revision.
    pub if_revision: Option<i64>,
}

/// Applies an amendment. Every replica takes it into account at once: a withdrawn release is offered no more.
pub async fn amend(
    pool: &PgPool,
    caller: &Caller,
    by: &Selector,
    wanted: Amendment,
    now: Time,
) -> Result<Release, Error> {
    let mut tx = caller.begin(pool).await?;
    let id = db::find(&mut tx, &caller.scope, by).await?.id;
    db::lock(&mut tx, id).await?;
    let mut release = db::get(&mut tx, id).await?.ok_or_else(|| Error::NotFound(by.version.to_string()))?;
    if wanted.if_revision.is_some_and(|revision| revision != release.revision) {
        return Err(Error::Stale(release.revision));
    }
    if let Some(notes) = wanted.release_notes {
        release.release_notes = notes;
    }
    if let Some(changelog) = wanted.changelog {
        release.changelog = changelog;
    }
    if let Some(mandatory) = wanted.mandatory {
        release.mandatory = mandatory;
    }
    if let Some(least) = wanted.min_upgrade_version {
        release.min_upgrade_version = least;
    }
    match wanted.deprecated {
        Some(true) => release.deprecated_at = release.deprecated_at.or(Some(now)),
        Some(false) => release.deprecated_at = None,
        None => {}
    }
    release.revision += 1;
    db::amend(&mut tx, &release).await?;
    push::notify(&mut tx, Hint::Releases).await?;
    tx.commit().await?;
    Ok(release)
}
