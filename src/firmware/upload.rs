//! `POST /api/firmware/upload`: from the client's socket to S3, hashed on the way, in the memory of one part.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use md5::{Digest, Md5};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::time::{sleep, timeout};

use super::form::{File, Form};
use super::image::{Findings, Inspector, Refusal};
use super::{Draft, Error, Release, db};
use crate::auth::Caller;
use crate::clock::Clock;
use crate::db::is_unavailable;
use crate::idempotency::is_taken;
use crate::ids::FirmwareId;
use crate::shutdown::Shutdown;
use crate::storage::{self, Buffers, ObjectKey, ObjectWriter, Remains, Store};
use crate::words::{Channel, Platform};

/// Tries of the row, when the database goes away while it is written.
const TRIES: u32 = 4;
/// One try.
const TRY_WITHIN: Duration = Duration::from_secs(5);
/// Wait before the next one; doubles.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

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
    /// Longest time for one form.
    pub patience: Duration,
    /// The process's end, which ends uploads too, and waits for what they clean up.
    pub shutdown: Shutdown,
    /// On whose behalf.
    pub by: Caller,
}

impl Uploads {
    /// The same on behalf of a caller.
    pub fn by(&self, by: Caller) -> Self {
        Self { by, ..self.clone() }
    }
}

/// What arrived: checksums and size of a file whose bytes the writer has.
pub(super) struct Received {
    md5: String,
    sha256: String,
    size: u64,
    /// SHA-256 that the part's header promised.
    promised: Option<String>,
    inspector: Inspector,
    /// What the image's check said, which counts unless the form says that it is not to be checked.
    refused: Option<Refusal>,
}

/// A file that may become a release.
pub(super) struct Accepted {
    md5: String,
    sha256: String,
    size: u64,
    image: Option<Findings>,
}

/// Takes in one form and makes a release of it. Must run to its end even when the client is gone, because it cleans
/// up after itself: spawn it, do not drop it.
pub async fn upload(on: &Uploads, content_type: &str, body: Body) -> Result<Release, Error> {
    let id = FirmwareId::generate();
    let mut form = Form::new(content_type, body.into_data_stream())?;
    let mut writer = None;
    let read = async {
        tokio::select! {
            read = timeout(on.patience, read(on, id, &mut form, &mut writer)) => read.unwrap_or_else(|_| {
                Err(Error::Interrupted(format!("it took longer than {} seconds", on.patience.as_secs())))
            }),
            () = on.shutdown.hard.cancelled() => Err(Error::ShuttingDown),
        }
    };
    let read = read.await;
    match (read, writer) {
        (Ok((draft, accepted)), Some(writer)) => release(on, id, draft, accepted, writer).await,
        (Ok(_), None) => Err(missing_file()),
        (Err(error), writer) => {
            if let Some(writer) = writer {
                clean(on, &error, writer.abandon()).await;
            }
            form.linger();
            Err(error)
        }
    }
}

/// Reads the form to its end; the file's bytes go into `writer` as they come.
async fn read(
    on: &Uploads,
    id: FirmwareId,
    form: &mut Form,
    writer: &mut Option<ObjectWriter>,
) -> Result<(Draft, Accepted), Error> {
    let mut received = None;
    while let Some(file) = form.next_file().await? {
        if received.is_some() {
            return Err(Error::Invalid(vec![(
                "file".into(),
                "is given more than once; upload one image at a time".into(),
            )]));
        }
        // Refuse before the bytes what the fields before them give away.
        form.check_so_far()?;
        if form.names_release() {
            let free = check_free(on, &form.draft()?).await;
            // The release of the first upload with this key may be in the way; the file will tell.
            if !(matches!(free, Err(Error::Exists { .. })) && came_before(on).await?) {
                free?;
            }
        }
        let opened = ObjectWriter::open(on.store.clone(), &on.buffers, id).await.ok_or(Error::Busy)?;
        let writer = writer.insert(opened);
        received = Some(receive(on, file, writer).await?);
    }
    let draft = form.draft();
    let Some(received) = received else {
        let mut errors = if let Err(Error::Invalid(errors)) = draft { errors } else { Vec::new() };
        errors.insert(0, ("file".into(), "is missing; send the image as -F file=@firmware.bin".into()));
        return Err(Error::Invalid(errors));
    };
    let draft = draft?;
    if let Some(once) = &on.by.once {
        once.describe(draft.asked().iter().chain([&received.sha256]));
    }
    let accepted = accept(on, &draft, received).await?;
    Ok((draft, accepted))
}

/// Judges a file that arrived whole.
pub(super) async fn accept(on: &Uploads, draft: &Draft, received: Received) -> Result<Accepted, Error> {
    if received.size == 0 {
        return Err(Refusal::Empty.into());
    }
    check_digests(draft, &received)?;
    let Received { md5, sha256, size, inspector, refused, .. } = received;
    let image = inspect(draft, inspector, refused)?;
    check_free(on, draft).await?;
    Ok(Accepted { md5, sha256, size, image })
}

/// What the client says that it sent must be what arrived.
fn check_digests(draft: &Draft, received: &Received) -> Result<(), Error> {
    let claims = [
        ("md5", &draft.md5, &received.md5),
        ("sha256", &draft.sha256, &received.sha256),
        ("Content-Digest", &received.promised, &received.sha256),
    ];
    let wrong = claims.into_iter().filter_map(|(field, claimed, arrived)| {
        let claimed = claimed.as_ref().filter(|claimed| *claimed != arrived)?;
        let detail = format!("says {claimed}, but the file that arrived has {arrived}; it was damaged on its way, or is another file");
        Some((field.to_owned(), detail))
    });
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// The image's check, unless the form waived it.
fn inspect(
    draft: &Draft,
    mut inspector: Inspector,
    refused: Option<Refusal>,
) -> Result<Option<Findings>, Error> {
    if !draft.validate {
        tracing::warn!(version = %draft.version, channel = %draft.channel, platform = %draft.platform, "an image is released unchecked");
        return Ok(None);
    }
    if let Some(refusal) = refused {
        return Err(refusal.into());
    }
    inspector.declare(draft.platform, &draft.version)?;
    Ok(Some(inspector.finish()?))
}

async fn receive(on: &Uploads, mut file: File, writer: &mut ObjectWriter) -> Result<Received, Error> {
    let promised = file.content_digest()?;
    let mut examiner = Examiner::new();
    while let Some(chunk) = file.chunk().await? {
        if examiner.size + chunk.len() as u64 > on.max_size {
            return Err(Error::TooLarge { limit: on.max_size });
        }
        examiner.take(&chunk);
        writer.write(&chunk).await?;
    }
    Ok(examiner.finish(promised))
}

/// Looks at a file's bytes as they pass. SHA-256 is aws-lc's here, which needs no instructions of its own to be fast.
pub(super) struct Examiner {
    md5: Md5,
    sha256: Context,
    size: u64,
    inspector: Inspector,
    refused: Option<Refusal>,
}

impl Examiner {
    /// curl sends the file before the fields that name it, `validate=off` among them: a refusal waits for the form.
    pub(super) fn new() -> Self {
        let (md5, sha256, inspector) = (Md5::new(), Context::new(&SHA256), Inspector::undeclared());
        Self { md5, sha256, size: 0, inspector, refused: None }
    }

    pub(super) fn take(&mut self, chunk: &[u8]) {
        self.size += chunk.len() as u64;
        self.md5.update(chunk);
        self.sha256.update(chunk);
        if self.refused.is_none() {
            self.refused = self.inspector.update(chunk).err();
        }
    }

    pub(super) fn finish(self, promised: Option<String>) -> Received {
        let Self { md5, sha256, size, inspector, refused } = self;
        let (md5, sha256) = (hex::encode(md5.finalize()), hex::encode(sha256.finish()));
        Received { md5, sha256, size, promised, inspector, refused }
    }
}

/// The bytes get their name, then the row appears.
async fn release(
    on: &Uploads,
    id: FirmwareId,
    draft: Draft,
    accepted: Accepted,
    writer: ObjectWriter,
) -> Result<Release, Error> {
    let key = ObjectKey::firmware(id, &draft.version, draft.channel);
    if let Err((error, remains)) = writer.hashed(&accepted.sha256).finish(&key).await {
        let error = Error::from(error);
        clean(on, &error, remains).await;
        return Err(error);
    }
    let release = made(on, id, draft, accepted, key.clone());
    record(on, &release, Remains::object(on.store.clone(), key)).await
}

/// The release that an accepted file becomes.
pub(super) fn made(
    on: &Uploads,
    id: FirmwareId,
    draft: Draft,
    accepted: Accepted,
    key: ObjectKey,
) -> Release {
    Release {
        id,
        number: 0,
        version: draft.version,
        channel: draft.channel,
        platform: draft.platform,
        object_key: key,
        file_size: i64::try_from(accepted.size).unwrap_or(i64::MAX),
        md5: accepted.md5,
        sha256: accepted.sha256,
        release_notes: draft.release_notes,
        changelog: draft.changelog,
        mandatory: draft.mandatory,
        min_upgrade_version: draft.min_upgrade_version,
        released_at: on.clock.now(),
        deprecated_at: None,
        download_count: 0,
        success_count: 0,
        failure_count: 0,
        image: accepted.image,
        validated: draft.validate,
        revision: 1,
    }
}

/// Writes the row of a release whose object stands, and takes the object back when there will be none.
pub(super) async fn record(on: &Uploads, release: &Release, object: Remains) -> Result<Release, Error> {
    match insert(on, release).await {
        Ok(release) => Ok(release),
        Err(NoRow { error, row_may_stand: true }) => {
            // A row without its object would be far worse than an object without a row.
            let key = &release.object_key;
            tracing::error!(%key, "whether the row of this object stands is not known, so the object stays");
            Err(error)
        }
        Err(NoRow { error, row_may_stand: false }) => {
            clean(on, &error, object).await;
            Err(error)
        }
    }
}

/// Why there is no row.
struct NoRow {
    error: Error,
    row_may_stand: bool,
}

/// Writes the row. A try that broke off may have taken effect, and may even do so later; the next one waits for it
/// inside PostgreSQL and finds its row by the id, so it is known in the end unless the database stays away.
async fn insert(on: &Uploads, release: &Release) -> Result<Release, NoRow> {
    let (mut row_may_stand, mut wait) = (false, TRY_AGAIN_AFTER);
    let mut last = Error::Database(sqlx::Error::PoolTimedOut);
    for _ in 0..TRIES {
        match on.by.begin(&on.pool).await {
            // Nothing of ours stands, and a whole wait for a connection is enough for one answer.
            Err(error) if !row_may_stand || is_taken(&error) => {
                return Err(NoRow { error: error.into(), row_may_stand: false });
            }
            Err(error) => last = error.into(),
            Ok(tx) => match timeout(TRY_WITHIN, commit(tx, release)).await {
                Ok(Ok(release)) => return Ok(release),
                Ok(Err(Error::Database(error))) if is_unavailable(&error) => {
                    (last, row_may_stand) = (error.into(), true);
                }
                Ok(Err(error)) => return Err(NoRow { error, row_may_stand: false }),
                Err(_) => row_may_stand = true,
            },
        }
        sleep(wait).await;
        wait *= 2;
    }
    Err(NoRow { error: last, row_may_stand })
}

async fn commit(mut tx: Transaction<'static, Postgres>, release: &Release) -> Result<Release, Error> {
    let release = db::insert(&mut tx, release).await?;
    tx.commit().await?;
    Ok(release)
}

/// Removes what a refused upload left: before the answer, so that it tells the truth; behind it when S3 is away.
pub(super) async fn clean(on: &Uploads, why: &Error, mut remains: Remains) {
    let away = matches!(why, Error::Storage(storage::Error::Unavailable(_) | storage::Error::Timeout(_)));
    if !away && remains.remove().await.is_ok() {
        return;
    }
    sweep(on, remains);
}

fn sweep(on: &Uploads, remains: Remains) {
    on.shutdown.tasks.spawn(remains.remove_patiently(on.shutdown.soft.clone()));
}

pub(super) async fn check_free(on: &Uploads, draft: &Draft) -> Result<(), Error> {
    check_scope(on, draft.channel, draft.platform)?;
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

/// Whether something was carried out with the key of this request.
async fn came_before(on: &Uploads) -> Result<bool, Error> {
    match &on.by.once {
        None => Ok(false),
        Some(once) => Ok(once.is_used(&mut *on.pool.acquire().await?).await?),
    }
}

/// Whoever may release on some channels and platforms only, releases there only.
pub(super) fn check_scope(on: &Uploads, channel: Channel, platform: Platform) -> Result<(), Error> {
    match on.by.scope.has_release(channel, platform) {
        true => Ok(()),
        false => Err(Error::OutOfScope { channel, platform }),
    }
}

fn missing_file() -> Error {
    Error::Invalid(vec![("file".into(), "is missing; send the image as -F file=@firmware.bin".into())])
}
