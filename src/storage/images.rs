//! Images that many printers download at the same time, in memory: a rollout through links asks S3 once a replica
//! instead of once a printer, and a slow printer holds no connection to S3.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::signed::sha256;
use super::{Error, ObjectKey, Store};

/// An image that nobody downloads for so long is let go.
const IDLE: Duration = Duration::from_secs(600);
/// Longest time for reading one whole; beyond it it is streamed as it comes. A printer gives up after 8 seconds without a
/// byte (the ESP8266 core's updater).
const READ_WITHIN: Duration = Duration::from_secs(4);
/// One image may take this part of all the room.
const SHARE: u64 = 4;

/// The images in memory. Those that were pushed out by others and are still on their way count as well, so what is held
/// is at most twice the capacity.
#[derive(Clone, Debug)]
pub struct Images {
    held: Cache<ObjectKey, Bytes>,
    /// In KiB.
    room: Arc<Semaphore>,
    largest: u64,
}

/// Bytes, and their room until the last part of them is on its way.
struct Held(Vec<u8>, #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why an image is not in memory.
#[derive(Debug, thiserror::Error)]
enum Miss {
    #[error("there is no room")]
    Full,
    #[error("it took too long")]
    Slow,
    #[error("{0}")]
    Storage(#[from] Error),
    #[error("{0}")]
    Corrupt(String),
}

impl Images {
    /// Room for so many bytes; none at all with 0.
    pub fn new(capacity: u64) -> Self {
        let weigh = |_: &ObjectKey, image: &Bytes| u32::try_from(image.len()).unwrap_or(u32::MAX);
        let held = Cache::builder().max_capacity(capacity).weigher(weigh).time_to_idle(IDLE).build();
        let room = usize::try_from(2 * capacity / 1024).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { held, room: Arc::new(Semaphore::new(room)), largest: capacity / SHARE }
    }

    /// The image, read from S3 by whoever asks first and checked against its SHA-256 (in hex). None when it is too
    /// large, there is no room, or S3 is slow or away: then it can only be streamed.
    ///
    /// # Errors
    /// The object is not what was uploaded. No printer should get it.
    pub async fn get(
        &self,
        store: &Store,
        key: &ObjectKey,
        size: u64,
        hash: &str,
    ) -> Result<Option<Bytes>, Error> {
        if size > self.largest {
            return Ok(None);
        }
        match self.held.try_get_with_by_ref(key, self.read(store, key, size, hash)).await {
            Ok(image) => Ok(Some(image)),
            Err(miss) => match &*miss {
                Miss::Corrupt(why) => Err(Error::Other(why.clone())),
                Miss::Full | Miss::Slow | Miss::Storage(_) => {
                    tracing::debug!(%key, %miss, "an image is streamed from S3");
                    Ok(None)
                }
            },
        }
    }

    async fn read(&self, store: &Store, key: &ObjectKey, size: u64, hash: &str) -> Result<Bytes, Miss> {
        let kib = u32::try_from(size.div_ceil(1024)).map_err(|_| Miss::Full)?;
        let room = self.room.clone().try_acquire_many_owned(kib).map_err(|_| Miss::Full)?;
        let mut image = Vec::with_capacity(usize::try_from(size).map_err(|_| Miss::Full)?);
        let read = async {
            let object = store.get(key).await?;
            let mut bytes = object.body.into_data_stream();
            while let Some(chunk) =
                bytes.try_next().await.map_err(|error| Error::Unavailable(error.to_string()))?
            {
                // What is longer than it should be is not kept whole to find that out.
                if (image.len() + chunk.len()) as u64 > size {
                    return Err(Miss::Corrupt(format!("{key} has more than its {size} bytes")));
                }
                image.extend_from_slice(&chunk);
            }
            Ok(())
        };
        timeout(READ_WITHIN, read).await.map_err(|_| Miss::Slow)??;
        let found = sha256(&image);
        if found != hash {
            let length = image.len();
            return Err(Miss::Corrupt(format!(
                "{key} is not what was uploaded: {length} bytes with SHA-256 {found} instead of {size} with {hash}"
            )));
        }
        Ok(Bytes::from_owner(Held(image, room)))
    }
}
