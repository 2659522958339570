//! Whether every release has its image, as long as it was; after a restore the two may be of different moments.

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use sqlx::PgPool;

use super::{Error, db};
use crate::clock::Time;
use crate::storage::{Folder, Store};

/// What is younger may be an upload under way.
const YOUNG: TimeDelta = TimeDelta::days(1);

/// What a comparison of rows and objects found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Releases that were looked at.
    pub releases: usize,
    /// A sentence for each release whose image is not what it should be.
    pub wrong: Vec<String>,
    /// Objects, more than a day old, that no release names.
    pub unnamed: usize,
}

/// Compares every release with the bucket's listing. Nothing is changed, and no image is read.
pub async fn inspect(pool: &PgPool, store: &Store, now: Time) -> Result<Inspection, Error> {
    // Objects come before rows: what has a row by now is in the listing that follows.
    let stored = db::stored(&mut *pool.acquire().await?).await?;
    let mut sizes = HashMap::new();
    let mut unknown = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(Folder::Firmware, after).await?;
        for listed in page.entries {
            let Some(key) = listed.key else { continue };
            if listed.modified.is_some_and(|modified| now - modified > YOUNG) {
                unknown.push(key.clone());
            }
            sizes.insert(key, listed.size);
        }
        after = match page.next {
            Some(next) => Some(next),
            None => break,
        };
    }
    let mut found = Inspection { releases: stored.len(), ..Inspection::default() };
    for release in &stored {
        let name = format!("{} on {} for {}", release.version, release.channel, release.platform);
        match sizes.get(&release.key) {
            Some(size) if *size == release.size => {}
            Some(size) => found
                .wrong
                .push(format!("{name} should have {} bytes, and {} has {size}", release.size, release.key)),
            None => found.wrong.push(format!("{name} has no image: {} is not in the bucket", release.key)),
        }
    }
    let named: HashSet<_> = stored.iter().map(|release| &release.key).collect();
    found.unnamed = unknown.iter().filter(|key| !named.contains(key)).count();
    Ok(found)
}
