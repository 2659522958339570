//! What stands in the bucket, told a page at a time: nobody holds all of it in memory.

use aws_sdk_s3::primitives::DateTime;

use super::s3::typed;
use super::{Error, ObjectKey, Store};
use crate::clock::Time;

/// The two prefixes that are ours. Nothing else in the bucket is ever looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Releases.
    Firmware,
    /// Uploads whose version is not known yet.
    Staging,
}

impl Folder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Firmware, Self::Staging];

    fn prefix(self) -> &'static str {
        match self {
            Self::Firmware => "firmware/",
            Self::Staging => "staging/",
        }
    }
}

/// An object as the listing tells it.
#[derive(Debug)]
pub struct Listed {
    /// Its name, when it is one of ours. Others share the bucket.
    pub key: Option<ObjectKey>,
    /// Bytes.
    pub size: u64,
    /// When it was written; of one that came in parts, S3 may tell when the first one did.
    pub modified: Option<Time>,
}

/// A multipart upload that was begun and not ended.
#[derive(Debug)]
pub struct OpenUpload {
    /// The name that it would get, when it is one of ours.
    pub key: Option<ObjectKey>,
    /// S3's name of the upload.
    pub upload: String,
    /// When it was begun.
    pub begun: Option<Time>,
}

/// At most a thousand entries, and where to go on, if anywhere.
#[derive(Debug)]
pub struct Page<T, C> {
    /// The entries.
    pub entries: Vec<T>,
    /// What the next call takes.
    pub next: Option<C>,
}

/// Where a listing of multipart uploads goes on: behind this key and this upload.
pub type UploadCursor = (String, Option<String>);

impl Store {
    /// Objects of a folder, from the beginning or from where the last page ended.
    pub async fn list(&self, folder: Folder, after: Option<String>) -> Result<Page<Listed, String>, Error> {
        let call = self.client.list_objects_v2().bucket(&self.bucket).prefix(folder.prefix());
        let answer = call.set_continuation_token(after.clone()).send().await.map_err(typed)?;
        let next = answer.next_continuation_token.filter(|_| answer.is_truncated == Some(true));
        let entries = answer.contents.unwrap_or_default().into_iter().map(|object| Listed {
            key: object.key.as_deref().and_then(ObjectKey::recognise),
            size: object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            modified: object.last_modified.and_then(time),
        });
        Ok(Page { entries: entries.collect(), next: onward(after, next)? })
    }

    /// Open multipart uploads of a folder, likewise.
    pub async fn list_multipart(
        &self,
        folder: Folder,
        after: Option<UploadCursor>,
    ) -> Result<Page<OpenUpload, UploadCursor>, Error> {
        let (key, upload) = after.clone().map_or((None, None), |(key, upload)| (Some(key), upload));
        let call = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(folder.prefix());
        let call = call.set_key_marker(key).set_upload_id_marker(upload);
        let answer = call.send().await.map_err(typed)?;
        let next = answer.next_key_marker.filter(|_| answer.is_truncated == Some(true));
        let next = next.map(|key| (key, answer.next_upload_id_marker));
        let entries = answer.uploads.unwrap_or_default().into_iter().filter_map(|open| {
            let key = open.key.as_deref().and_then(ObjectKey::recognise);
            Some(OpenUpload { key, upload: open.upload_id?, begun: open.initiated.and_then(time) })
        });
        Ok(Page { entries: entries.collect(), next: onward(after, next)? })
    }

    /// Ends a multipart upload and frees its parts; one that is gone already is fine.
    pub async fn abort(&self, open: &OpenUpload) -> Result<(), Error> {
        let Some(key) = &open.key else { return Ok(()) };
        match self.multipart_abort(key, &open.upload).await {
            Ok(()) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A server that sends us to where we are would keep us for ever.
pub(super) fn onward<C: PartialEq>(here: Option<C>, next: Option<C>) -> Result<Option<C>, Error> {
    if next.is_some() && next == here {
        return Err(Error::Other("a listing that does not go on".into()));
    }
    Ok(next)
}

fn time(told: DateTime) -> Option<Time> {
    Time::from_timestamp(told.secs(), told.subsec_nanos())
}
