//! The upload's form, field by field: the file may come before the fields that name it, as curl sends it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::BodyDataStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use multer::{Field, Multipart};

use super::{Draft, Error};
use crate::words::Platform;

/// Longest wait for more bytes of an upload.
const SILENCE: Duration = Duration::from_secs(30);
/// Largest text field, in bytes.
const MAX_TEXT: usize = 256 << 10;
/// Most fields of a form.
const MAX_FIELDS: usize = 32;
/// Bytes that the parser may hold without giving any of them to us: headers and boundaries. Above it the form is
/// malformed.
const MAX_HELD: u64 = 1 << 20;
/// What is still read of a refused upload, so that the answer is not lost to a reset: for so long, and so much. The end of
/// the process waits longer for what is under way, or a client that stays would make it look unclean.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 256 << 20;

const TEXT_FIELDS: [&str; 10] = [
    "version",
    "channel",
    "platform",
    "release_notes",
    "changelog",
    "mandatory",
    "min_upgrade_version",
    "validate",
    "md5",
    "sha256",
];

/// A form that is being read.
pub struct Form {
    multipart: Multipart<'static>,
    body: Shared,
    given: Arc<AtomicU64>,
    fields: usize,
    texts: Vec<(&'static str, String)>,
}

/// A file that is being read.
pub struct File {
    field: Field<'static>,
    given: Arc<AtomicU64>,
}

impl Form {
    /// Reads the boundary from the Content-Type.
    pub fn new(content_type: &str, body: BodyDataStream) -> Result<Self, Error> {
        let Ok(boundary) = multer::parse_boundary(content_type) else {
            linger(body);
            return Err(Error::NoForm(content_type.to_owned()));
        };
        let (given, body) = (Arc::new(AtomicU64::new(0)), Shared::new(body));
        let metered = Metered { body: body.clone(), given: given.clone(), taken: 0, pause: false };
        let multipart = Multipart::new(metered, boundary);
        Ok(Self { multipart, body, given, fields: 0, texts: Vec::new() })
    }

    /// Reads on until the file begins, or the form ends.
    pub async fn next_file(&mut self) -> Result<Option<File>, Error> {
        while let Some(field) = patiently(self.multipart.next_field()).await? {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(Error::Malformed(format!("the form has more than {MAX_FIELDS} fields")));
            }
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                return Ok(Some(File { field, given: self.given.clone() }));
            }
            let Some(known) = TEXT_FIELDS.into_iter().find(|known| *known == name) else {
                return Err(invalid(
                    &name,
                    &format!("is not a field of this form; it has file, {}", TEXT_FIELDS.join(", ")),
                ));
            };
            if self.texts.iter().any(|(name, _)| *name == known) {
                return Err(invalid(known, "is given more than once; give it once"));
            }
            let text = text(File { field, given: self.given.clone() }, known).await?;
            self.texts.push((known, text));
        }
        Ok(None)
    }

    /// Reads on after a refusal, and throws away what comes. Somebody who writes the whole body before reading the
    /// answer, as many clients do, would otherwise find the connection reset and the answer gone.
    pub fn linger(self) {
        self.body.linger();
    }

    /// Refuses what is wrong already, while fields may still follow.
    pub fn check_so_far(&self) -> Result<(), Error> {
        let Err(Error::Invalid(mut errors)) = self.draft() else { return Ok(()) };
        errors.retain(|(field, _)| self.texts.iter().any(|(given, _)| given == field));
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }

    /// What the text fields said; every error at once.
    pub fn draft(&self) -> Result<Draft, Error> {
        draft_of(|name| self.texts.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str()))
    }

    /// Whether what was read so far already names the release.
    pub fn names_release(&self) -> bool {
        ["version", "channel", "platform"]
            .iter()
            .all(|name| self.texts.iter().any(|(known, _)| known == name))
    }
}

/// What text fields say; every error at once.
pub fn draft_of<'a>(raw: impl Fn(&str) -> Option<&'a str>) -> Result<Draft, Error> {
    let mut errors = Vec::new();
    let raw = |name: &str| raw(name).filter(|text| !text.is_empty());
    let version = parsed(raw("version"), "version", &mut errors);
    if raw("version").is_none() {
        errors.push(("version".into(), "is missing; send a semantic version such as 1.5.0".into()));
    }
    let channel = parsed(raw("channel"), "channel", &mut errors).unwrap_or_default();
    let platform: Platform = parsed(raw("platform"), "platform", &mut errors).unwrap_or_default();
    // Python's requests writes `True` and `False`.
    let mandatory = match raw("mandatory").map(str::to_ascii_lowercase).as_deref() {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(other) => {
            errors.push(("mandatory".into(), format!("must be true or false, this is `{other}`")));
            false
        }
    };
    let validate = match raw("validate") {
        None | Some("on") => true,
        Some("off") => false,
        Some(other) => {
            errors.push(("validate".into(), format!("must be on or off, this is `{other}`")));
            true
        }
    };
    let md5 = digest(raw("md5"), "md5", 32, &mut errors);
    let sha256 = digest(raw("sha256"), "sha256", 64, &mut errors);
    let min_upgrade_version = parsed(raw("min_upgrade_version"), "min_upgrade_version", &mut errors);
    let text = |name| raw(name).map(str::to_owned);
    match version {
        Some(version) if errors.is_empty() => Ok(Draft {
            version,
            channel,
            platform,
            release_notes: text("release_notes"),
            changelog: text("changelog"),
            mandatory,
            min_upgrade_version,
            validate,
            md5,
            sha256,
        }),
        _ => Err(Error::Invalid(errors)),
    }
}

impl File {
    /// SHA-256 from the part's own `Content-Digest` header (RFC 9530), in hex.
    pub fn content_digest(&self) -> Result<Option<String>, Error> {
        let Some(header) = self.field.headers().get("content-digest") else { return Ok(None) };
        let text = header.to_str().unwrap_or_default();
        let Some(value) = text.split(',').find_map(|one| one.trim().strip_prefix("sha-256=:")) else {
            return Ok(None);
        };
        let bytes = STANDARD.decode(value.trim_end_matches(':')).ok().filter(|bytes| bytes.len() == 32);
        let bytes = bytes
            .ok_or_else(|| invalid("Content-Digest", "must hold a digest such as sha-256=:<base64>:"))?;
        Ok(Some(hex::encode(bytes)))
    }

    /// The next bytes; none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = patiently(self.field.chunk()).await?;
        if let Some(bytes) = &chunk {
            self.given.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(chunk)
    }
}

async fn text(mut field: File, name: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        if bytes.len() + chunk.len() > MAX_TEXT {
            return Err(invalid(name, &format!("has more than {MAX_TEXT} bytes; make it shorter")));
        }
        bytes.extend_from_slice(&chunk);
    }
    // PostgreSQL's text has no NUL.
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(invalid(name, "is not valid UTF-8 text")),
    }
}

fn invalid(field: &str, detail: &str) -> Error {
    Error::Invalid(vec![(field.chars().take(80).collect(), detail.into())])
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    raw: Option<&str>,
    name: &str,
    errors: &mut Vec<(String, String)>,
) -> Option<T> {
    raw?.trim()
        .parse()
        .map_err(|error: T::Err| errors.push((name.into(), format!("is not valid: {error}"))))
        .ok()
}

/// A digest in hex of so many characters.
fn digest(
    raw: Option<&str>,
    name: &str,
    length: usize,
    errors: &mut Vec<(String, String)>,
) -> Option<String> {
    let text = raw?.trim().to_ascii_lowercase();
    if text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(text);
    }
    errors.push((name.into(), format!("must be {length} hexadecimal digits, as {name}sum prints them")));
    None
}

async fn patiently<T>(read: impl Future<Output = Result<T, multer::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(SILENCE, read).await {
        Err(_) => Err(Error::Interrupted(format!("nothing arrived for {} seconds", SILENCE.as_secs()))),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(match error {
            multer::Error::StreamReadFailed(cause) if cause.is::<Hoarding>() => Error::Malformed(
                "a field's headers, or the space before the first boundary, are far too long".into(),
            ),
            multer::Error::StreamReadFailed(_)
            | multer::Error::IncompleteStream
            | multer::Error::IncompleteHeaders
            | multer::Error::IncompleteFieldData { .. } => {
                Error::Interrupted("the form ended before its last boundary".into())
            }
            other => Error::Malformed(format!("the form cannot be read: {other}")),
        }),
    }
}

/// The parser held on to too much.
#[derive(Debug, thiserror::Error)]
#[error("too much is held")]
struct Hoarding;

/// [`Form::linger`] for a body of which nothing was read.
pub fn linger(body: BodyDataStream) {
    Shared::new(body).linger();
}

/// The request's body: the parser reads it, and whoever refuses the form reads what the parser left.
#[derive(Clone)]
struct Shared(Arc<Mutex<BodyDataStream>>);

impl Shared {
    fn new(body: BodyDataStream) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn linger(mut self) {
        let drain = async move {
            let mut left = LINGER_BYTES;
            while let Some(Ok(bytes)) = self.next().await
                && left > 0
            {
                left = left.saturating_sub(bytes.len());
            }
        };
        tokio::spawn(tokio::time::timeout(LINGER, drain));
    }
}

impl Stream for Shared {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }
}

/// Feeds the parser one chunk a poll. On its own it reads until the body has nothing ready, and a fast client would
/// fill its buffer without end.
struct Metered {
    body: Shared,
    given: Arc<AtomicU64>,
    taken: u64,
    pause: bool,
}

impl Stream for Metered {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.taken.saturating_sub(self.given.load(Ordering::Relaxed)) > MAX_HELD {
            return Poll::Ready(Some(Err(Box::new(Hoarding))));
        }
        let next = Pin::new(&mut self.body).poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            self.taken += bytes.len() as u64;
            self.pause = true;
        }
        next.map(|item| item.map(|bytes| bytes.map_err(Into::into)))
    }
}
