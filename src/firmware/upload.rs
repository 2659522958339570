//! `POST /api/firmware/upload`: from the client's socket to S3, hashed on the way, in the memory of one part.

use axum::body::Body;
use md5::{Digest, Md5};
use sha2::Sha256;
use sqlx::PgPool;

use super::form::{File, Form};
use super::{Draft, Error, Release, db};
use crate::clock::Clock;
use crate::ids::FirmwareId;
use crate::storage::{Buffers, ObjectKey, ObjectWriter, Store};

/// What an upload needs.
#[derive(Clone)]
pub struct Uploads {
    /// For the row.
    pub pool: PgPool,
    /// For the bytes.
    pub store: Store,
    /// The bound on all uploads' memory.
    pub buffers: Buffers,
    /// For `released_at`.
    pub clock: Clock,
    /// Largest file, in bytes.
    pub max_size: u64,
}

/// What arrived: checksums and size of a file whose bytes the writer has.
struct Received {
    md5: String,
    sha256: String,
    size: u64,
}

/// Takes in one form and makes a release of it. Must run to its end even when the client is gone, because it cleans
/// up after itself: spawn it, do not drop it.
pub async fn upload(on: &Uploads, content_type: &str, body: Body) -> Result<Release, Error> {
    let id = FirmwareId::generate();
    let mut form = Form::new(content_type, body.into_data_stream())?;
    let mut writer = None;
    let read = read(on, id, &mut form, &mut writer).await;
    match (read, writer) {
        (Ok((draft, received)), Some(writer)) => release(on, id, draft, received, writer).await,
        (Err(error), writer) => {
            if let Some(writer) = writer {
                writer.abort().await;
            }
            Err(error)
        }
        (Ok(_), None) => Err(missing_file()),
    }
}

/// Reads the form to its end; the file's bytes go into `writer` as they come.
async fn read(
    on: &Uploads,
    id: FirmwareId,
    form: &mut Form,
    writer: &mut Option<ObjectWriter>,
) -> Result<(Draft, Received), Error> {
    let mut received = None;
    while let Some(file) = form.next_file().await? {
        if received.is_some() {
            return Err(Error::Invalid(vec![(
                "file".into(),
                "is given more than once; upload one image at a time".into(),
            )]));
        }
        if form.names_release() {
            // Refuse before the bytes when the fields came first.
            check_free(on, &form.draft()?).await?;
        }
        let writer = writer.insert(ObjectWriter::open(on.store.clone(), &on.buffers, id).await);
        received = Some(receive(on, file, writer).await?);
    }
    let draft = form.draft();
    let Some(received) = received else {
        let mut errors = if let Err(Error::Invalid(errors)) = draft { errors } else { Vec::new() };
        errors.insert(0, ("file".into(), "is missing; send the image as -F file=@firmware.bin".into()));
        return Err(Error::Invalid(errors));
    };
    let draft = draft?;
    if received.size == 0 {
        return Err(Error::Invalid(vec![("file".into(), "is empty; send the compiled image".into())]));
    }
    check_free(on, &draft).await?;
    Ok((draft, received))
}

async fn receive(on: &Uploads, mut file: File, writer: &mut ObjectWriter) -> Result<Received, Error> {
    let (mut md5, mut sha256, mut size) = (Md5::new(), Sha256::new(), 0u64);
    while let Some(chunk) = file.chunk().await? {
        size += chunk.len() as u64;
        if size > on.max_size {
            return Err(Error::TooLarge { limit: on.max_size });
        }
        md5.update(&chunk);
        sha256.update(&chunk);
        writer.write(&chunk).await?;
    }
    Ok(Received { md5: hex::encode(md5.finalize()), sha256: hex::encode(sha256.finalize()), size })
}

/// The bytes get their name, then the row appears.
async fn release(
    on: &Uploads,
    id: FirmwareId,
    draft: Draft,
    received: Received,
    writer: ObjectWriter,
) -> Result<Release, Error> {
    let key = ObjectKey::firmware(id, &draft.version, draft.channel);
    writer.finish(&key).await?;
    let release = Release {
        id,
        number: 0,
        version: draft.version,
        channel: draft.channel,
        platform: draft.platform,
        object_key: key.clone(),
        file_size: i64::try_from(received.size).unwrap_or(i64::MAX),
        md5: received.md5,
        sha256: received.sha256,
        release_notes: draft.release_notes,
        changelog: draft.changelog,
        mandatory: draft.mandatory,
        min_upgrade_version: draft.min_upgrade_version,
        released_at: on.clock.now(),
        deprecated_at: None,
        download_count: 0,
        success_count: 0,
        failure_count: 0,
    };
    match insert(on, release).await {
        Ok(release) => Ok(release),
        Err(error) => {
            // When the database went away in mid-commit the row may stand, and a row without its object would be far
            // worse than an object without a row. Only a definite refusal takes the object back.
            let refused = match &error {
                Error::Database(error) => !crate::db::is_unavailable(error),
                _ => true,
            };
            if refused && let Err(error) = on.store.delete(&key).await {
                tracing::warn!(%key, %error, "an object without a row stays in the bucket until it is collected");
            }
            Err(error)
        }
    }
}

async fn insert(on: &Uploads, release: Release) -> Result<Release, Error> {
    let mut conn = on.pool.acquire().await?;
    db::insert(&mut conn, release).await
}

async fn check_free(on: &Uploads, draft: &Draft) -> Result<(), Error> {
    let mut conn = on.pool.acquire().await?;
    if db::exists(&mut conn, &draft.version, draft.channel, draft.platform).await? {
        return Err(Error::Exists {
            version: draft.version.clone(),
            channel: draft.channel,
            platform: draft.platform,
        });
    }
    Ok(())
}

fn missing_file() -> Error {
    Error::Invalid(vec![("file".into(), "is missing; send the image as -F file=@firmware.bin".into())])
}
