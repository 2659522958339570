//! `POST /api/firmware/{version}/promote`: the same bytes on another channel, without a second upload.

use super::upload::Uploads;
use super::{Error, Release, Selector, db};
use crate::ids::FirmwareId;
use crate::storage::{ObjectKey, Remains};
use crate::words::{Channel, Platform};

/// What is to be promoted where.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The version, the channel that it comes from unless only one has it, and the platform.
    pub from: Selector,
    /// The channel that it goes to.
    pub to: Channel,
}

/// Copies the object within S3 and makes a release of it, under a key of its own: keys are never shared. Nothing is
/// left behind by a refusal.
pub async fn promote(on: &Uploads, wanted: &Promotion) -> Result<Release, Error> {
    let (version, platform) = (&wanted.from.version, wanted.from.platform);
    super::upload::check_scope(on, wanted.to, platform)?;
    let source = source(on, wanted).await?;
    if db::exists(&mut *on.pool.acquire().await?, version, wanted.to, platform).await? {
        return Err(Error::Exists { version: version.clone(), channel: wanted.to, platform });
    }
    let id = FirmwareId::generate();
    let key = ObjectKey::firmware(id, version, wanted.to);
    on.store.copy(&source.object_key, &key).await?;
    let release = Release {
        id,
        channel: wanted.to,
        object_key: key.clone(),
        released_at: on.clock.now(),
        deprecated_at: None,
        download_count: 0,
        success_count: 0,
        failure_count: 0,
        revision: 1,
        ..source
    };
    super::upload::record(on, &release, Remains::object(on.store.clone(), key)).await
}

/// The release that is promoted. Without a channel it must be the only one of its version and platform, besides the
/// one that it would become.
async fn source(on: &Uploads, wanted: &Promotion) -> Result<Release, Error> {
    let mut conn = on.pool.acquire().await?;
    let by = &wanted.from;
    if by.channel.is_some() {
        return db::find(&mut conn, &on.by.scope, by).await;
    }
    let of_platform =
        |release: &Release, platform: Platform| release.platform == platform && release.channel != wanted.to;
    let mut all = db::releases_of(&mut conn, &on.by.scope, &by.version).await?;
    let taken = all.iter().any(|release| release.platform == by.platform && release.channel == wanted.to);
    all.retain(|release| of_platform(release, by.platform));
    match (all.len(), all.pop()) {
        (1, Some(only)) => Ok(only),
        (0, _) if taken => {
            Err(Error::Exists { version: by.version.clone(), channel: wanted.to, platform: by.platform })
        }
        (_, Some(last)) => {
            let mut channels: Vec<_> = all.iter().map(|release| release.channel).collect();
            channels.push(last.channel);
            Err(Error::Ambiguous(channels))
        }
        (_, None) => Err(Error::NotFound(format!("{} for {}", by.version, by.platform))),
    }
}
