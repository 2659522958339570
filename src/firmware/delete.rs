//! `DELETE /api/firmware/{version}`: a release that nothing active needs. What was done with it stays readable.

use sqlx::PgPool;

use super::{Error, Selector, db};
use crate::auth::Caller;
use crate::storage::{ObjectKey, Store};

/// Removes the row, then the object; a crash in between leaves an object that no row names.
pub async fn delete(pool: &PgPool, store: &Store, caller: &Caller, by: &Selector) -> Result<(), Error> {
    if let Some(key) = delete_row(pool, caller, by).await?
        && let Err(error) = store.delete(&key).await
    {
        tracing::error!(%key, %error, "the object of a deleted release stays in the bucket");
    }
    Ok(())
}

async fn delete_row(pool: &PgPool, caller: &Caller, by: &Selector) -> Result<Option<ObjectKey>, Error> {
    let mut tx = caller.begin(pool).await?;
    if by.channel.is_none() {
        let all = db::releases_of(&mut tx, &caller.scope, &by.version).await?;
        let channels: Vec<_> = all
            .iter()
            .filter(|release| release.platform == by.platform)
            .map(|release| release.channel)
            .collect();
        if channels.len() > 1 {
            return Err(Error::Ambiguous(channels));
        }
    }
    let release = db::find(&mut tx, &caller.scope, by).await?;
    // Whoever creates a rollout of this version holds its releases, so what is read next stays true until the end.
    db::lock(&mut tx, release.id).await?;
    let (version, channel) = (&release.version, release.channel);
    if let Some(number) = db::used_by(&mut tx, &release).await? {
        return Err(Error::InUse(format!(
            "{version} on {channel} is what rollout {number} offers; cancel that rollout first."
        )));
    }
    let open = db::open_updates(&mut tx, release.id).await?;
    if open > 0 {
        return Err(Error::InUse(format!(
            "{version} on {channel} is on its way to {open} printers; delete it when their updates have ended."
        )));
    }
    let key = db::delete(&mut tx, release.id).await?;
    tx.commit().await?;
    Ok(key)
}
