//! Garbage: objects that no release names, and multipart uploads that nobody ended.
//!
//! Uploads clean up after themselves; what is found here is from processes that were killed, and from a database and
//! an S3 that went away together. Bytes come before rows, so an object without a row may be a release in the making:
//! only what is older than any upload takes is touched, and the rows are asked for after the listing. Names that we
//! would not make are somebody else's, whatever their age.

use std::collections::HashSet;
use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgPool;

use super::db;
use crate::clock::Time;
use crate::storage::{self, Folder, Listed, ObjectKey, OpenUpload, Store};

/// Why the garbage was not collected, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Most likely the wrong database, to which every object is garbage.
    #[error(
        "nothing was removed, because this database knows no release at all and the bucket has images: is it the \
         right one? --dry-run lists them, --no-releases removes them all the same"
    )]
    NoReleases,
    /// S3.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// PostgreSQL.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// Only what is older counts. It must be longer than the longest upload.
    pub older_than: Duration,
    /// Look, and remove nothing.
    pub dry_run: bool,
    /// That the database knows no release is right.
    pub no_releases: bool,
}

/// What kind of garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object under a release's name that no row names.
    Orphan,
    /// The object of an upload that broke off before its version was known.
    Staged,
    /// A multipart upload that nobody ended.
    Multipart,
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// Only looked at.
    Seen,
    /// It is gone.
    Removed,
    /// It is still there; the next run tries again.
    Failed(storage::Error),
}

/// A piece of garbage.
#[derive(Debug)]
pub struct Garbage<'a> {
    /// What kind.
    pub kind: Kind,
    /// Its name.
    pub key: &'a ObjectKey,
    /// Since it was written or begun.
    pub age: TimeDelta,
    /// Bytes; S3 does not tell those of a multipart upload.
    pub size: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
}

/// The sum of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Objects found to be garbage.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Multipart uploads found to be garbage.
    pub uploads: u64,
    /// How many of both could not be removed.
    pub failed: u64,
    /// This S3 does not list multipart uploads, so none was looked at.
    pub uploads_unknown: bool,
}

/// Looks through both folders and removes what is garbage at `now`; tells each piece as it goes.
pub async fn collect(
    pool: &PgPool,
    store: &Store,
    now: Time,
    orders: &Orders,
    tell: &mut (dyn FnMut(&Garbage<'_>) + Send),
) -> Result<Total, Error> {
    let mut run = Run { pool, store, now, orders, tell, total: Total::default() };
    if !orders.dry_run {
        // Direct uploads that nobody completed; their bytes are found below.
        db::forget_uploads(&mut *pool.acquire().await?, now).await?;
    }
    for folder in Folder::ALL {
        run.objects(folder).await?;
        run.uploads(folder).await?;
    }
    Ok(run.total)
}

struct Run<'a> {
    pool: &'a PgPool,
    store: &'a Store,
    now: Time,
    orders: &'a Orders,
    tell: &'a mut (dyn FnMut(&Garbage<'_>) + Send),
    total: Total,
}

impl Run<'_> {
    /// The age, when it is old enough. What S3 gives no age counts as new.
    fn old(&self, since: Option<Time>) -> Option<TimeDelta> {
        let least = TimeDelta::from_std(self.orders.older_than).unwrap_or(TimeDelta::MAX);
        since.map(|since| self.now - since).filter(|age| *age > least)
    }

    async fn objects(&mut self, folder: Folder) -> Result<(), Error> {
        let kind = match folder {
            Folder::Firmware => Kind::Orphan,
            Folder::Staging => Kind::Staged,
        };
        let mut after = None;
        loop {
            let page = self.store.list(folder, after).await?;
            let old = page
                .entries
                .into_iter()
                .filter_map(|Listed { key, size, modified }| Some((key?, size, self.old(modified)?)));
            let mut old: Vec<_> = old.collect();
            self.keep_named(folder, &mut old).await?;
            for (key, size, age) in old {
                self.total.objects += 1;
                self.total.bytes += size;
                let removed = if self.orders.dry_run { None } else { Some(self.store.delete(&key).await) };
                self.settle(
                    Garbage { kind, key: &key, age, size: Some(size), outcome: Outcome::Seen },
                    removed,
                )?;
            }
            after = match page.next {
                Some(next) => Some(next),
                None => return Ok(()),
            };
        }
    }

    /// Takes those out that a row names by now.
    async fn keep_named(
        &mut self,
        folder: Folder,
        old: &mut Vec<(ObjectKey, u64, TimeDelta)>,
    ) -> Result<(), Error> {
        if old.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = old.iter().map(|(key, ..)| key.to_string()).collect();
        let mut conn = self.pool.acquire().await?;
        let named: HashSet<_> = db::named(&mut conn, &keys).await?.into_iter().collect();
        old.retain(|(key, ..)| !named.contains(key.as_str()));
        let harmless = self.orders.dry_run || folder == Folder::Staging || old.is_empty();
        let sure = self.orders.no_releases || !named.is_empty();
        if !harmless && !sure && !db::any(&mut conn).await? {
            return Err(Error::NoReleases);
        }
        Ok(())
    }

    async fn uploads(&mut self, folder: Folder) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = match self.store.list_multipart(folder, after).await {
                Err(storage::Error::Unsupported(_)) => {
                    self.total.uploads_unknown = true;
                    return Ok(());
                }
                page => page?,
            };
            for open in page.entries {
                let (OpenUpload { key: Some(key), .. }, Some(age)) = (&open, self.old(open.begun)) else {
                    continue;
                };
                self.total.uploads += 1;
                let removed = if self.orders.dry_run { None } else { Some(self.store.abort(&open).await) };
                let garbage = Garbage { kind: Kind::Multipart, key, age, size: None, outcome: Outcome::Seen };
                self.settle(garbage, removed)?;
            }
            after = match page.next {
                Some(next) => Some(next),
                None => return Ok(()),
            };
        }
    }

    /// Tells a piece. One that stays is no reason to leave the others; an S3 that is away is.
    fn settle(
        &mut self,
        mut garbage: Garbage<'_>,
        removed: Option<Result<(), storage::Error>>,
    ) -> Result<(), Error> {
        garbage.outcome = match removed {
            None => Outcome::Seen,
            Some(Ok(())) => Outcome::Removed,
            Some(Err(error @ (storage::Error::Unavailable(_) | storage::Error::Timeout(_)))) => {
                return Err(error.into());
            }
            Some(Err(error)) => {
                self.total.failed += 1;
                Outcome::Failed(error)
            }
        };
        (self.tell)(&garbage);
        Ok(())
    }
}
