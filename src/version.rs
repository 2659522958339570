//! Versions: semver 2.0 with its precedence, in Rust and in the database.
//!
//! PostgreSQL knows no semver, so every version is stored beside a key whose byte order (`collate "C"`) is semver
//! precedence. Layout of the key: major, minor and patch, each as one character for its count of digits (`'0' + n`)
//! and the digits; then `~` for a release, or the pre-release identifiers: `0`, count, digits for a number, and `1`,
//! text, `!` for the others. `~` sorts above all identifiers, `!` below all their characters, and the end of a key
//! below everything: rule 11 of <https://semver.org>.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Serialize, Serializer};

/// This program's own version, and the commit that it was built from where the build was told
/// (`PAPERMINDER_COMMIT`), as in `0.1.0 (1a2b3c4)`.
pub fn program() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| match COMMIT {
        Some(commit) if !commit.is_empty() => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
        _ => env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The commit that this program was built from.
pub const COMMIT: Option<&str> = option_env!("PAPERMINDER_COMMIT");

/// A semantic version of at most 64 characters. Equality and order are precedence: build metadata does not count.
#[derive(Clone)]
pub struct Version(semver::Version);

/// Why a text is no [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a semantic version ({why}); write it like 1.5.0 or 1.5.0-beta.1")]
pub struct BadVersion {
    text: String,
    why: String,
}

impl Version {
    /// Longest version that is accepted, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// 0.0.0: what a printer runs that does not say.
    pub fn zero() -> Self {
        Self(semver::Version::new(0, 0, 0))
    }

    /// The byte-ordered form for the database.
    pub fn key(&self) -> String {
        let mut key = String::with_capacity(16);
        for number in [self.0.major, self.0.minor, self.0.patch] {
            push_digits(&mut key, &number.to_string());
        }
        if self.0.pre.is_empty() {
            key.push('~');
            return key;
        }
        for identifier in self.0.pre.split('.') {
            if identifier.bytes().all(|byte| byte.is_ascii_digit()) {
                key.push('0');
                push_digits(&mut key, identifier);
            } else {
                key.push('1');
                key.push_str(identifier);
                key.push('!');
            }
        }
        key
    }
}

/// Digits behind their count. At most 64 digits fit into a version, so the count stays below `~` (`'0' + 64` is `p`).
fn push_digits(key: &mut String, digits: &str) {
    key.push(char::from(b'0' + u8::try_from(digits.len()).unwrap_or(u8::MAX - b'0')));
    key.push_str(digits);
}

impl FromStr for Version {
    type Err = BadVersion;
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = |why: String| BadVersion { text: text.chars().take(80).collect(), why };
        if text.len() > Self::MAX_LENGTH {
            return Err(bad(format!("longer than {} characters", Self::MAX_LENGTH)));
        }
        semver::Version::parse(text).map(Self).map_err(|error| bad(error.to_string()))
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::zero()
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_precedence(&other.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<String> for Version {
    /// For columns, which hold what was parsed before. A row that was tampered with reads as 0.0.0.
    fn from(text: String) -> Self {
        text.parse().unwrap_or_else(|_| Self::zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Versions that lie close together, so that ties and prefixes happen.
    fn versions() -> impl Strategy<Value = Version> {
        let number = prop_oneof![0u64..12, Just(99), Just(100), Just(u64::MAX)];
        let identifier =
            prop_oneof!["(0|[1-9][0-9]{0,2})", "[a-c-]{1,3}", "[0-9]{0,2}[A-z--]", "rc", "1000000000000"];
        let pre = proptest::collection::vec(identifier, 0..4);
        (number.clone(), number.clone(), number, pre).prop_filter_map("not semver", |(a, b, c, pre)| {
            let tail = if pre.is_empty() { String::new() } else { format!("-{}", pre.join(".")) };
            format!("{a}.{b}.{c}{tail}").parse().ok()
        })
    }

    proptest! {
        #[test]
        fn the_key_sorts_as_semver_does(a in versions(), b in versions()) {
            prop_assert_eq!(a.key().as_bytes().cmp(b.key().as_bytes()), a.cmp(&b), "{} {}", a, b);
        }
    }

    #[test]
    fn the_order_of_the_specification_holds() {
        let chain = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        let keys: Vec<String> = chain.iter().map(|text| Version::from((*text).to_owned()).key()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn build_metadata_does_not_count() {
        assert_eq!(Version::from("1.0.0+a".to_owned()).key(), Version::from("1.0.0+b".to_owned()).key());
    }

    #[test]
    fn a_refusal_names_the_text_and_the_remedy() {
        let error = "v1.5".parse::<Version>().map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(
            error.unwrap_err(),
            "`v1.5` is not a semantic version (unexpected character 'v' while parsing major version number); \
             write it like 1.5.0 or 1.5.0-beta.1"
        );
    }
}
