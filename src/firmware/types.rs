//! What a release is, and how one is named. No I/O.

use super::image::Findings;
use crate::clock::Time;
use crate::ids::FirmwareId;
use crate::storage::ObjectKey;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// A release as it stands.
#[derive(Clone, Debug)]
pub struct Release {
    /// Row and part of the object key.
    pub id: FirmwareId,
    /// The number that people type.
    pub number: i64,
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: Channel,
    /// The chip family it runs on.
    pub platform: Platform,
    /// Where its bytes are.
    pub object_key: ObjectKey,
    /// Bytes.
    pub file_size: i64,
    /// MD5, lower-case hex.
    pub md5: String,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Short notes.
    pub release_notes: Option<String>,
    /// Long notes.
    pub changelog: Option<String>,
    /// Offered even where automatic updates are off.
    pub mandatory: bool,
    /// Printers below it cannot take this release.
    pub min_upgrade_version: Option<Version>,
    /// When it became available.
    pub released_at: Time,
    /// When it was withdrawn.
    pub deprecated_at: Option<Time>,
    /// Complete downloads through our own endpoint.
    pub download_count: i64,
    /// Updates to it that completed.
    pub success_count: i64,
    /// Updates to it that failed.
    pub failure_count: i64,
    /// What the image says about itself; none when it was not checked.
    pub image: Option<Findings>,
    /// Whether the image was checked.
    pub validated: bool,
    /// Raised by every change of an operator.
    pub revision: i64,
}

/// What an upload says about its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: Channel,
    /// The chip family it runs on.
    pub platform: Platform,
    /// Short notes.
    pub release_notes: Option<String>,
    /// Long notes.
    pub changelog: Option<String>,
    /// Offered even where automatic updates are off.
    pub mandatory: bool,
    /// Printers below it cannot take this release.
    pub min_upgrade_version: Option<Version>,
    /// Whether the image is to be checked.
    pub validate: bool,
    /// MD5 that the client says the file has, lower-case hex.
    pub md5: Option<String>,
    /// SHA-256 that the client says the file has, lower-case hex.
    pub sha256: Option<String>,
}

impl Draft {
    /// All that the release would be but its file, for telling two drafts apart.
    pub fn asked(&self) -> [String; 8] {
        // Checksums only promise something of the file.
        let Self {
            version,
            channel,
            platform,
            release_notes,
            changelog,
            mandatory,
            min_upgrade_version,
            validate,
            md5: _,
            sha256: _,
        } = self;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            version.to_string(),
            channel.to_string(),
            platform.to_string(),
            text(release_notes),
            text(changelog),
            mandatory.to_string(),
            min_upgrade_version.as_ref().map_or_else(String::new, ToString::to_string),
            validate.to_string(),
        ]
    }
}

/// Names one release by version; channel and platform have defaults.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The version.
    pub version: Version,
    /// A channel, else the most stable one that has it.
    pub channel: Option<Channel>,
    /// The chip family.
    pub platform: Platform,
}

/// Which releases a list has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// Only this channel.
    pub channel: Option<Channel>,
    /// Only this platform.
    pub platform: Option<Platform>,
    /// Only deprecated ones, or only those that stand.
    pub deprecated: Option<bool>,
}
