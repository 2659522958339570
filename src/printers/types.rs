//! What a printer is. No I/O.

use std::net::IpAddr;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::{Credential, Owner};
use crate::ids::{FirmwareId, Handle, PrinterId, PrinterRef, RolloutId, UserId};
use crate::version::Version;
use crate::windows::TimeZoneName;
use crate::words::{Channel, Platform};

/// Its place in gradual rollouts, 0 to 99: the MD5 digest of its id, read as one big-endian 128-bit integer, mod 100.
/// Python says the same with `int(hashlib.md5(printer_id.encode()).hexdigest(), 16) % 100`.
pub fn bucket(printer: &PrinterId) -> u8 {
    let digest: [u8; 16] = Md5::digest(printer.as_str()).into();
    // Below 100, so it fits.
    (u128::from_be_bytes(digest) % 100) as u8
}

/// What a subscribe message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its own name, or the one derived for it.
    pub printer_id: PrinterId,
    /// Its owner.
    pub user_id: UserId,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Chip family.
    pub platform: Platform,
    /// What it runs.
    pub version: Version,
    /// Whether it accepts updates that are not mandatory.
    pub auto_update: bool,
    /// The channel that it follows.
    pub channel: Channel,
    /// What it can take when it downloads.
    pub downloads: Downloads,
    /// Where it stands.
    pub time_zone: Option<TimeZoneName>,
    /// The key that it shows.
    pub credential: Option<Credential>,
}

impl Subscription {
    /// Who it says it is and the key that it shows, as one hash: the same again is judged the same.
    pub fn shown(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [self.printer_id.as_str(), self.user_id.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.credential.as_ref().map_or(&[][..], Credential::bytes));
        hash.finalize().into()
    }
}

/// What a printer can take when it downloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downloads {
    /// Longest URL, in characters, when it says so.
    pub max_url_length: Option<u32>,
    /// Whether it follows redirects.
    pub follows_redirects: bool,
}

/// What decisions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its row.
    pub printer: PrinterRef,
    /// Its own name.
    pub printer_id: PrinterId,
    /// Its owner.
    pub user_id: UserId,
    /// Place in gradual rollouts, 0 to 99.
    pub bucket: u8,
    /// What it has in common with others.
    pub cohort: Cohort,
    /// What it ran before the update that installed what it runs, when that was one of ours.
    pub previous: Option<Version>,
    /// What it can take when it downloads.
    pub downloads: Downloads,
    /// Where it stands, when it says so.
    pub time_zone: Option<TimeZoneName>,
    /// Whether the key that it showed speaks for others as well.
    pub shared_key: bool,
}

impl Facts {
    /// The time zone that its windows are told in: its own, else that of its owner. None: that of the windows.
    pub fn zone<'a>(&'a self, owner: Option<&'a Owner>) -> Option<&'a TimeZoneName> {
        self.time_zone.as_ref().or(owner.and_then(|owner| owner.time_zone.as_ref()))
    }
}

/// Printers that are alike in everything that decides which releases they can take. The table `census` counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// Chip family.
    pub platform: Platform,
    /// What they run.
    pub version: Version,
    /// Whether they accept updates that are not mandatory.
    pub auto_update: bool,
    /// The channel that they follow.
    pub channel: Channel,
    /// What installed their version, when that was one of our updates.
    pub installed: Option<Installed>,
}

/// The proved update that brought a printer the version that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// What was installed.
    pub release: FirmwareId,
    /// On whose behalf; none when an operator forced it.
    pub rollout: Option<RolloutId>,
}

/// A subscribe message, and the socket that it came on.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What it said.
    pub said: Subscription,
    /// The number that the socket got before, when it subscribes again: it keeps that.
    pub connection: Option<i64>,
    /// Where the socket comes from.
    pub ip: IpAddr,
    /// Whether the key that it showed speaks for others as well: nothing is known before it is judged.
    pub shared_key: bool,
}

/// A printer whose row was written.
#[derive(Clone, Debug)]
pub struct Subscribed {
    /// What decisions are made from.
    pub facts: Facts,
    /// Number of this socket.
    pub connection: i64,
}

/// How a path names a printer. Numbers and ids of ours come first: a printer chooses its own name, and must not be
/// able to take another's place.
#[derive(Clone, Debug)]
pub struct Named {
    /// The segment.
    pub text: String,
    /// The segment as a number or a UUID.
    pub handle: Option<Handle>,
}

impl std::str::FromStr for Named {
    type Err = crate::ids::BadName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<PrinterId>()?;
        Ok(Self { text: text.to_owned(), handle: text.parse().ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_python() {
        // python3 -c 'import hashlib; print(int(hashlib.md5("printer-abc".encode()).hexdigest(), 16) % 100)'
        for (id, expected) in VECTORS {
            assert_eq!(bucket(&id.parse().unwrap()), *expected, "{id}");
        }
    }

    const VECTORS: &[(&str, u8)] = &[
        ("printer-abc", 50),
        ("printer-def", 38),
        ("770e8400-e29b-41d4-a716-446655440000", 94),
        ("880e8400-e29b-41d4-a716-446655440001", 25),
        ("Küche", 4),
        ("a", 97),
    ];
}
