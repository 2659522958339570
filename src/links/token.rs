//! The secret in a link. No I/O.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterRef, UpdateId};

/// 128 random bits, 22 characters of base64url (RFC 4648, section 5). Its Debug shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 16]);

/// Why a path segment is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a link of ours")]
pub struct BadToken;

impl Token {
    /// A new one, from the system's source of randomness.
    pub fn generate() -> Self {
        // A UUID v4 has 122 random bits; two of them, hashed, have the 128 that are wanted.
        let mut digest = Sha256::new();
        digest.update(uuid::Uuid::new_v4().as_bytes());
        digest.update(uuid::Uuid::new_v4().as_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        Self(bits)
    }

    /// What the database holds.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The link's path, which is a secret.
    pub fn path(&self) -> String {
        format!("/d/{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl std::str::FromStr for Token {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bits = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bits| bits.try_into().ok());
        bits.map(Self).ok_or(BadToken)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A link to be handed out.
#[derive(Debug)]
pub struct NewLink {
    /// Its secret.
    pub token: Token,
    /// To whom.
    pub printer: PrinterRef,
    /// What it downloads.
    pub release: FirmwareId,
    /// The attempt that it belongs to.
    pub update: UpdateId,
    /// From then on it downloads nothing.
    pub expires_at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_path_and_no_two_are_alike() {
        let token = Token::generate();
        let path = token.path();
        assert_eq!(path.len(), "/d/".len() + 22);
        assert_eq!(path.trim_start_matches("/d/").parse(), Ok(token.clone()));
        assert_ne!(token, Token::generate());
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn anything_else_is_no_token() {
        for text in
            ["", "short", "AAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA!", "../../etc/passwd......"]
        {
            assert_eq!(text.parse::<Token>(), Err(BadToken), "{text}");
        }
    }
}
