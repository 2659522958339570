//! What a broken upload left in the bucket, and how it goes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Error, ObjectKey, Store};
use crate::ids::FirmwareId;

/// First wait between tries; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Tries before it is given up: some two hours.
const TRIES: u32 = 128;

/// Objects and an open multipart upload that must go. Whether they are there at all may not be known: when S3 did not
/// answer, a call may have taken effect all the same.
#[derive(Debug)]
#[must_use = "what is not removed stays in the bucket"]
pub struct Remains {
    store: Store,
    upload: Option<(ObjectKey, String)>,
    objects: Vec<ObjectKey>,
}

impl Remains {
    /// A single object.
    pub fn object(store: Store, key: ObjectKey) -> Self {
        Self { store, upload: None, objects: vec![key] }
    }

    /// What a direct upload may have left: its multipart upload, and objects.
    pub fn staged(store: Store, id: FirmwareId, upload: Option<String>, objects: Vec<ObjectKey>) -> Self {
        Self::new(store, upload.map(|upload| (ObjectKey::staging(id), upload)), objects)
    }

    pub(super) fn new(store: Store, upload: Option<(ObjectKey, String)>, objects: Vec<ObjectKey>) -> Self {
        Self { store, upload, objects }
    }

    /// Removes everything; what is gone already is fine.
    pub async fn remove(&mut self) -> Result<(), Error> {
        if let Some((key, upload)) = &self.upload {
            match self.store.multipart_abort(key, upload).await {
                Ok(()) | Err(Error::NotFound(_)) => self.upload = None,
                Err(error @ (Error::Unavailable(_) | Error::Timeout(_))) => return Err(error),
                // Another try would end the same. Some servers answer so when the upload is gone.
                Err(error) => {
                    tracing::warn!(%key, %error, "an open multipart upload could not be aborted");
                    self.upload = None;
                }
            }
        }
        while let Some(key) = self.objects.last() {
            self.store.delete(key).await?;
            self.objects.pop();
        }
        Ok(())
    }

    /// Tries until it is done, with growing waits; once more at the end when `stop` comes first.
    pub async fn remove_patiently(mut self, stop: CancellationToken) {
        let mut wait = FIRST_WAIT;
        for attempt in 1..=TRIES {
            let last = attempt == TRIES || stop.is_cancelled();
            match self.remove().await {
                Ok(()) => return,
                Err(error) if last => {
                    tracing::error!(%error, remains = ?(&self.upload, &self.objects), "remains of an upload stay in the bucket");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the remains of an upload could not be removed yet"),
            }
            let _ = tokio::time::timeout(wait, stop.cancelled()).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
