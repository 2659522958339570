//! `DELETE /api/firmware/{version}`: a release that nothing refers to.

use sqlx::PgPool;

use super::{Error, Selector, db};
use crate::storage::{ObjectKey, Store};

/// Removes the row, then the object; a crash in between leaves an object that no row names.
pub async fn delete(pool: &PgPool, store: &Store, by: &Selector) -> Result<(), Error> {
    if let Some(key) = delete_row(pool, by).await?
        && let Err(error) = store.delete(&key).await
    {
        tracing::error!(%key, %error, "the object of a deleted release stays in the bucket");
    }
    Ok(())
}

async fn delete_row(pool: &PgPool, by: &Selector) -> Result<Option<ObjectKey>, Error> {
    let mut conn = pool.acquire().await?;
    if by.channel.is_none() {
        let all = db::releases_of(&mut conn, &by.version).await?;
        let channels: Vec<_> = all
            .iter()
            .filter(|release| release.platform == by.platform)
            .map(|release| release.channel)
            .collect();
        if channels.len() > 1 {
            return Err(Error::Ambiguous(channels));
        }
    }
    let release = db::find(&mut conn, by).await?;
    let (version, channel) = (&release.version, release.channel);
    if let Some(number) = db::used_by(&mut conn, &release).await? {
        return Err(Error::InUse(format!(
            "{version} on {channel} is what rollout {number} offers; cancel that rollout first."
        )));
    }
    match db::delete(&mut conn, release.id).await {
        Ok(key) => Ok(key),
        Err(error) if error.as_database_error().is_some_and(|error| error.is_foreign_key_violation()) => {
            Err(Error::InUse(format!(
                "{version} on {channel} is named by a rollout or by an update of a printer, so it stays; \
                 roll out another version instead."
            )))
        }
        Err(error) => Err(error.into()),
    }
}
