//! Direct upload: a pipeline puts the parts of a large image into S3 itself, and we look at it afterwards.
//!
//! The bytes rest in `staging/`. Completing compares the parts with what was announced, and takes the row, so that it
//! happens once; then the object is read back as a stream and judged as any upload is. What is refused is removed; what
//! is abandoned expires, and goes with the garbage.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::StreamExt as _;

use super::form::draft_of;
use super::upload::{self, Accepted, Examiner, Uploads};
use super::{Draft, Error, Release, db};
use crate::clock::Time;
use crate::ids::FirmwareId;
use crate::storage::{self, Arrived, ObjectKey, PART_SIZE, Remains};

/// Longest life of an upload: half as long as it takes until what it left is garbage.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Most parts of an upload (S3 user guide, "Multipart upload limits").
const MAX_PARTS: u64 = 10_000;
/// Parts that one refusal complains about.
const COMPLAINTS: usize = 10;
/// Longest wait for more bytes of the object.
const SILENCE: Duration = Duration::from_secs(30);

/// An upload that was begun.
pub struct Begun {
    /// Its name.
    pub id: FirmwareId,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// Where the parts go, from the first to the last.
    pub urls: Vec<String>,
    /// When the URLs end.
    pub expires_at: Time,
}

/// An upload as its row has it.
pub(super) struct Row {
    pub(super) id: FirmwareId,
    pub(super) upload: String,
    pub(super) fields: BTreeMap<String, String>,
    pub(super) size: i64,
    pub(super) parts: i32,
    pub(super) expires_at: Time,
}

fn draft(fields: &BTreeMap<String, String>) -> Result<Draft, Error> {
    let draft = draft_of(|name| fields.get(name).map(String::as_str));
    let nul = fields.iter().find(|(_, text)| text.contains('\0'));
    match (draft, nul) {
        (Ok(_), Some((name, _))) => Err(invalid(name, "must not contain a NUL character")),
        (draft, _) => draft,
    }
}

fn invalid(field: &str, detail: &str) -> Error {
    Error::Invalid(vec![(field.into(), detail.into())])
}

/// Begins an upload of so many bytes. The fields are those of the form, `sha256` must be among them.
pub async fn begin(on: &Uploads, fields: BTreeMap<String, String>, size: u64) -> Result<Begun, Error> {
    let wanted = draft(&fields)?;
    if wanted.sha256.is_none() {
        return Err(invalid("sha256", "is missing; send the file's SHA-256 in hex"));
    }
    if size == 0 {
        return Err(invalid("size", "must be the file's size in bytes"));
    }
    if size > on.max_size {
        return Err(Error::TooLarge { limit: on.max_size });
    }
    upload::check_free(on, &wanted).await?;
    let part_size = part_size(size);
    let parts = i32::try_from(size.div_ceil(part_size)).unwrap_or(i32::MAX);
    let (id, now, life) = (FirmwareId::generate(), on.clock.now(), on.store.expires().min(LONGEST));
    let expires_at = now + TimeDelta::from_std(life).unwrap_or(TimeDelta::MAX);
    let upload = on.store.direct_begin(id).await?;
    let noted = async {
        let mut urls = Vec::new();
        for number in 1..=parts {
            let part = (number, part_length(size, number));
            urls.push(on.store.direct_part(id, &upload, part, (now, life)).await?);
        }
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let row = Row { id, upload: upload.clone(), fields, size, parts, expires_at };
        db::begin_upload(&mut *on.pool.acquire().await?, &row).await?;
        Ok::<_, Error>(urls)
    };
    match noted.await {
        Ok(urls) => Ok(Begun { id, part_size, urls, expires_at }),
        Err(error) => {
            let remains = Remains::staged(on.store.clone(), id, Some(upload), Vec::new());
            upload::clean(on, &error, remains).await;
            Err(error)
        }
    }
}

/// Bytes of every part but the last.
fn part_size(size: u64) -> u64 {
    size.div_ceil(MAX_PARTS).max(PART_SIZE as u64)
}

/// Bytes of a part, counted from 1.
fn part_length(size: u64, number: i32) -> u64 {
    let before = u64::try_from(number - 1).unwrap_or_default() * part_size(size);
    part_size(size).min(size.saturating_sub(before))
}

/// The parts that S3 has must be those that the client says it sent. A slip costs nothing: it may send them again.
fn check_parts(size: u64, arrived: &BTreeMap<i32, Arrived>, tags: &[String]) -> Result<(), Error> {
    let bare = |tag: &str| tag.trim_matches('"').to_owned();
    let wrong = (1..).zip(tags).filter_map(|(number, tag)| {
        let length = part_length(size, number);
        let detail = match arrived.get(&number) {
            None => format!("part {number} has not arrived; PUT it to its URL, then complete again"),
            Some(part) if part.length != length => {
                format!("part {number} must have {length} bytes, {} arrived; PUT it again", part.length)
            }
            Some(Arrived { tag: Some(known), .. }) if bare(known) != bare(tag) => format!(
                "part {number} arrived as {known}, not as {tag}; send the ETags of the last PUT of each part, in order"
            ),
            Some(_) => return None,
        };
        Some(("parts".to_owned(), detail))
    });
    let wrong: Vec<_> = wrong.take(COMPLAINTS).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// Completes an upload of the parts with these entity tags, in order, and makes a release of it. Must run to its end,
/// because it cleans up after itself: spawn it, do not drop it.
pub async fn complete(on: &Uploads, id: FirmwareId, tags: &[String]) -> Result<Release, Error> {
    let gone = || Error::NoUpload(id.to_string());
    let row = db::find_upload(&mut *on.pool.acquire().await?, id, on.clock.now()).await?.ok_or_else(gone)?;
    let meant = draft(&row.fields)?;
    if !on.by.scope.has_release(meant.channel, meant.platform) {
        return Err(gone());
    }
    if usize::try_from(row.parts) != Ok(tags.len()) {
        let detail = format!("must have the entity tags of {} parts, these are {}", row.parts, tags.len());
        return Err(invalid("parts", &detail));
    }
    let arrived = on.store.direct_parts(id, &row.upload).await.map_err(|error| match error {
        storage::Error::NotFound(_) => gone(),
        error => error.into(),
    })?;
    check_parts(u64::try_from(row.size).unwrap_or_default(), &arrived, tags)?;
    if !db::take_upload(&mut *on.pool.acquire().await?, id).await? {
        return Err(gone());
    }
    let (staging, upload) = (ObjectKey::staging(id), row.upload.clone());
    let examined = async {
        on.store.direct_complete(id, &upload, tags).await.map_err(|error| match error {
            // A part was put again in this moment, or S3 knows better than its list.
            storage::Error::Other(text) | storage::Error::NotFound(text) => {
                invalid("parts", &format!("are not what arrived: {text}; begin a new upload"))
            }
            error => error.into(),
        })?;
        tokio::select! {
            examined = examine(on, &row, &staging) => examined,
            () = on.shutdown.hard.cancelled() => Err(Error::ShuttingDown),
        }
    };
    let (draft, accepted) = match examined.await {
        Ok(good) => good,
        Err(error) => {
            let remains = Remains::staged(on.store.clone(), id, Some(upload), vec![staging]);
            upload::clean(on, &error, remains).await;
            return Err(error);
        }
    };
    let key = ObjectKey::firmware(id, &draft.version, draft.channel);
    let moved = async {
        on.store.copy(&staging, &key).await?;
        on.store.delete(&staging).await
    };
    if let Err(error) = moved.await {
        let error = Error::from(error);
        let remains = Remains::staged(on.store.clone(), id, None, vec![staging, key]);
        upload::clean(on, &error, remains).await;
        return Err(error);
    }
    let release = upload::made(on, id, draft, accepted, key.clone());
    upload::record(on, &release, Remains::object(on.store.clone(), key)).await
}

/// Reads the object back and judges it.
async fn examine(on: &Uploads, row: &Row, staging: &ObjectKey) -> Result<(Draft, Accepted), Error> {
    let draft = draft(&row.fields)?;
    let object = on.store.get(staging).await?;
    if i64::try_from(object.length) != Ok(row.size) {
        let detail = format!("says {} bytes, but {} arrived", row.size, object.length);
        return Err(invalid("size", &detail));
    }
    let mut examiner = Examiner::new();
    let mut body = object.body.into_data_stream();
    let silent = |_| storage::Error::Timeout("the object's bytes stopped coming".into());
    while let Some(chunk) = tokio::time::timeout(SILENCE, body.next()).await.map_err(silent)? {
        examiner.take(&chunk.map_err(|error| storage::Error::Unavailable(error.to_string()))?);
    }
    let accepted = upload::accept(on, &draft, examiner.finish(None)).await?;
    Ok((draft, accepted))
}
