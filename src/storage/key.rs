//! The one place that knows how names in the bucket look.

use std::fmt;

use crate::ids::FirmwareId;
use crate::version::Version;
use crate::words::Channel;

/// The name of an object of ours.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// A release's image. The id makes it unique, so that no cache can serve old bytes under a new checksum.
    pub fn firmware(id: FirmwareId, version: &Version, channel: Channel) -> Self {
        Self(format!("firmware/{id}/paperminder-{version}-{channel}.bin"))
    }

    /// Where a large upload rests until its version is known: `curl -F file=@… -F version=…` sends the file first.
    pub fn staging(id: FirmwareId) -> Self {
        Self(format!("staging/{id}"))
    }

    /// A key as it was stored in a column.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// A name that was met in the bucket, if it is letter by letter one that we would make. Others may keep their own
    /// things beside ours, and those are none of our business.
    pub fn recognise(text: &str) -> Option<Self> {
        let key = match text.split_once('/')? {
            ("staging", id) => Self::staging(FirmwareId(id.parse().ok()?)),
            ("firmware", rest) => {
                let (id, name) = rest.split_once('/')?;
                let name = name.strip_prefix("paperminder-")?.strip_suffix(".bin")?;
                let (version, channel) = name.rsplit_once('-')?;
                let version: Version = version.parse().ok()?;
                Self::firmware(FirmwareId(id.parse().ok()?), &version, channel.parse().ok()?)
            }
            _ => return None,
        };
        (key.as_str() == text).then_some(key)
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
