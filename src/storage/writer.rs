//! Bytes on their way in: one buffer of a part's size a writer, and a bound on the buffers of all writers.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Error, ObjectKey, Remains, Store};
use crate::ids::FirmwareId;

/// Size of a part, in bytes: the least that S3 allows for all but the last one (S3 user guide, "Multipart upload
/// limits"). Ten thousand of them make 48 GiB.
pub const PART_SIZE: usize = 5 << 20;

/// Longest wait for a buffer.
const WAIT: Duration = Duration::from_secs(20);

/// The buffers of all uploads of this process. A writer waits for one before it takes its first byte.
#[derive(Clone, Debug)]
pub struct Buffers(Arc<Semaphore>);

impl Buffers {
    /// Room for `most` buffers of [`PART_SIZE`] bytes.
    pub fn new(most: u32) -> Self {
        Self(Arc::new(Semaphore::new(most as usize)))
    }
}

/// An object that is being written. Up to one part it becomes a single PUT, above that a multipart upload.
///
/// It must end in [`finish`](Self::finish) or [`abandon`](Self::abandon): a multipart upload that nobody ends stays open.
pub struct ObjectWriter {
    store: Store,
    staging: ObjectKey,
    buffer: Vec<u8>,
    multipart: Option<Multipart>,
    sha256: Option<String>,
    _permit: Option<OwnedSemaphorePermit>,
}

struct Multipart {
    upload: String,
    parts: Vec<CompletedPart>,
}

impl ObjectWriter {
    /// Waits for a buffer, but not for ever. None when all stayed in use.
    pub async fn open(store: Store, buffers: &Buffers, id: FirmwareId) -> Option<Self> {
        // The semaphore is never closed.
        let permit = timeout(WAIT, buffers.0.clone().acquire_owned()).await.ok()?.ok();
        Some(Self {
            store,
            staging: ObjectKey::staging(id),
            buffer: Vec::new(),
            multipart: None,
            sha256: None,
            _permit: permit,
        })
    }

    /// Takes bytes, and sends a part when the buffer is full and more comes.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.buffer.len() == PART_SIZE {
                self.flush().await?;
            }
            // All at once: only what is written takes memory, and buffers that grow leave holes of every size behind.
            self.buffer.reserve_exact(PART_SIZE - self.buffer.len());
            let (now, later) = bytes.split_at(bytes.len().min(PART_SIZE - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            None => {
                let upload = self.store.multipart_create(&self.staging, true).await?;
                self.multipart.insert(Multipart { upload, parts: Vec::new() })
            }
        };
        let number = i32::try_from(multipart.parts.len() + 1).unwrap_or(i32::MAX);
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let part = self.store.multipart_part(&self.staging, &multipart.upload, number, bytes).await?;
        multipart.parts.push(part);
        Ok(())
    }

    /// Says the SHA-256 of all bytes, in hex, where somebody computed it already: a single PUT is signed with it, and S3
    /// refuses bytes that have another.
    #[must_use]
    pub fn hashed(self, sha256: &str) -> Self {
        Self { sha256: Some(sha256.to_owned()), ..self }
    }

    /// Makes the object appear under `key`, whole; or says why not, and what must go now.
    pub async fn finish(mut self, key: &ObjectKey) -> Result<(), (Error, Remains)> {
        match self.try_finish(key).await {
            Ok(()) => Ok(()),
            // A call that failed may have taken effect all the same, so every place that it could touch must go.
            Err(error) => {
                let objects = match self.multipart {
                    Some(_) => vec![self.staging.clone(), key.clone()],
                    None => vec![key.clone()],
                };
                Err((error, self.remains(objects)))
            }
        }
    }

    async fn try_finish(&mut self, key: &ObjectKey) -> Result<(), Error> {
        if self.multipart.is_none() {
            let bytes = Bytes::from(std::mem::take(&mut self.buffer));
            return self.store.put_hashed(key, bytes, self.sha256.take()).await;
        }
        self.flush().await?;
        if let Some(Multipart { upload, parts }) = &mut self.multipart {
            self.store.multipart_complete(&self.staging, upload, std::mem::take(parts)).await?;
        }
        self.store.copy(&self.staging, key).await?;
        self.store.delete(&self.staging).await
    }

    /// Gives up; the caller removes what is there.
    pub fn abandon(self) -> Remains {
        self.remains(Vec::new())
    }

    fn remains(self, objects: Vec<ObjectKey>) -> Remains {
        Remains::new(self.store, self.multipart.map(|multipart| (self.staging, multipart.upload)), objects)
    }
}
