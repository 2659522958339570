//! What a key is made of: `pmk_<id>_<secret>`. The id is public and finds the row; the secret has 256 random bits, so
//! that its SHA-256 is as good as a slow hash.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use secrecy::SecretString;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

/// Bytes of the id, which is written in hexadecimal digits.
const ID: usize = 6;
/// Bytes of the secret, likewise.
const SECRET: usize = 32;

/// The public part of a key: 12 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[schema(value_type = String, example = "0f3a9c41d27b")]
pub struct KeyId(String);

impl KeyId {
    /// As it stands in the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`KeyId`].
#[derive(Debug, thiserror::Error)]
#[error("must be the 12 hexadecimal digits between `pmk_` and the secret")]
pub struct BadKeyId;

impl std::str::FromStr for KeyId {
    type Err = BadKeyId;

    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        let is_id = is_hex(text, ID);
        is_id.then(|| Self(text.to_owned())).ok_or(BadKeyId)
    }
}

/// Whether it is so many bytes in lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// SHA-256 of a whole key.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// What was kept of a key.
    pub(super) fn kept(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// In a time that does not tell how much of it is right.
    pub fn is(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }

    /// As it is kept.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A key that was made a moment ago, and will never be seen again.
pub struct NewKey {
    /// Its public part.
    pub id: KeyId,
    /// All of it.
    pub text: SecretString,
    /// What is kept of it.
    pub fingerprint: Fingerprint,
}

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoChance;

/// So many random bytes, in hexadecimal digits.
pub(super) fn random<const BYTES: usize>() -> Result<String, NoChance> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoChance)?;
    Ok(hex::encode(bytes))
}

impl NewKey {
    /// With an id of its own.
    pub fn generate() -> Result<Self, NoChance> {
        Self::with(KeyId(random::<ID>()?))
    }

    /// Another secret for a key that exists.
    pub fn with(id: KeyId) -> Result<Self, NoChance> {
        let text = format!("pmk_{id}_{}", random::<SECRET>()?);
        let fingerprint = Fingerprint::of(&text);
        Ok(Self { id, text: text.into(), fingerprint })
    }
}

/// Which row a key names, and what it should have kept. None for what is no key of ours, which the database is not asked
/// about.
pub fn parse(text: &str) -> Option<(KeyId, Fingerprint)> {
    let (id, secret) = text.strip_prefix("pmk_")?.split_once('_')?;
    is_hex(secret, SECRET).then_some(())?;
    Some((id.parse().ok()?, Fingerprint::of(text)))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_key_is_found_by_its_id_and_known_by_its_fingerprint() {
        let key = NewKey::generate().unwrap();
        let (id, fingerprint) = parse(key.text.expose_secret()).unwrap();
        assert!(id == key.id && fingerprint.is(key.fingerprint.bytes()));
        let next = NewKey::with(key.id.clone()).unwrap();
        assert!(next.id == key.id && !next.fingerprint.is(key.fingerprint.bytes()));
        assert_eq!(key.text.expose_secret().len(), 4 + 12 + 1 + 64);
    }

    #[test]
    fn what_is_no_key_is_not_looked_up() {
        let good = NewKey::generate().unwrap();
        let good = good.text.expose_secret();
        for bad in [
            "",
            "pmk_",
            "pmk__",
            &good[..good.len() - 1],
            &format!("{good}0"),
            &good.to_uppercase(),
            &good.replace("pmk", "pmx"),
            "pmk_0f3a9c41d27b_ü",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
