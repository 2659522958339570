//! Releases: what printers can be brought to.
//!
//! Invariants:
//! - A release is one immutable object in S3 and one row, unique by (version, channel, platform). Bytes first, row
//!   after: a row always has its object.
//! - A refused or broken upload leaves neither row nor object nor open multipart upload. When S3 went away as well,
//!   what it has is removed as soon as it is back.
//! - `latest` is the highest version by semver that is not deprecated, never the one uploaded last.

mod amend;
mod db;
mod delete;
mod direct;
mod form;
#[cfg(test)]
mod form_properties;
pub mod gc;
pub mod http;
pub mod image;
mod inspect;
mod promote;
mod types;
mod upload;

pub use amend::{Amendment, amend};
pub use db::{count_download, hold, releases_of};
pub use direct::{Begun, begin, complete};
pub use inspect::{Inspection, inspect};
pub use promote::{Promotion, promote};
pub use types::{Draft, Query, Release, Selector};
pub use upload::{Uploads, upload};

use crate::storage;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// What can go wrong with releases.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the form are missing or wrong.
    #[error("the form has errors")]
    Invalid(Vec<(String, String)>),
    /// The Content-Type is not that of a form.
    #[error("the Content-Type is `{0}`")]
    NoForm(String),
    /// The form is broken.
    #[error("{0}")]
    Malformed(String),
    /// The file is no image for these printers.
    #[error(transparent)]
    Image(#[from] image::Refusal),
    /// `If-Match` does not hold.
    #[error("the release is at revision {0} by now")]
    Stale(i64),
    /// The client vanished or went silent.
    #[error("{0}")]
    Interrupted(String),
    /// The file is larger than allowed.
    #[error("the file has more than {limit} bytes")]
    TooLarge {
        /// `MAX_FIRMWARE_SIZE`, in bytes.
        limit: u64,
    },
    /// The triple is taken.
    #[error("{version} is already released on {channel} for {platform}")]
    Exists {
        /// The version.
        version: Version,
        /// The channel.
        channel: Channel,
        /// The platform.
        platform: Platform,
    },
    /// The key is not for this channel or platform.
    #[error("the key is not for releases on {channel} for {platform}")]
    OutOfScope {
        /// The channel.
        channel: Channel,
        /// The platform.
        platform: Platform,
    },
    /// No such release.
    #[error("no release {0}")]
    NotFound(String),
    /// No such direct upload, or no longer.
    #[error("no upload {0}")]
    NoUpload(String),
    /// The version stands in several channels and none was named.
    #[error("the version stands in several channels")]
    Ambiguous(Vec<Channel>),
    /// A rollout or an update needs it.
    #[error("{0}")]
    InUse(String),
    /// As many uploads are under way as may be.
    #[error("as many uploads are under way as MAX_CONCURRENT_UPLOADS allows")]
    Busy,
    /// The server is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// S3.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// PostgreSQL.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}
