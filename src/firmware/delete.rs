//! `DELETE /api/firmware/{version}`: a release that nothing refers to.

use sqlx::PgPool;

use super::{Error, Selector, db};
use crate::storage::Store;

/// Removes the row, then the object; a crash in between leaves an object that no row names.
pub async fn delete(pool: &PgPool, store: &Store, by: &Selector) -> Result<(), Error> {
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
    let key = match db::delete(&mut conn, release.id).await {
        Ok(key) => key,
        Err(error) if error.as_database_error().is_some_and(|error| error.is_foreign_key_violation()) => {
            return Err(Error::InUse(format!(
                "{} on {} is named by a rollout or by an update of a printer, so it stays; roll out another version instead.",
                release.version, release.channel
            )));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(key) = key
        && let Err(error) = store.delete(&key).await
    {
        tracing::warn!(%key, %error, "an object without a row stays in the bucket until it is collected");
    }
    Ok(())
}
