//! Names of things: UUIDs of rows, and the two opaque strings that come with printers.
//!
//! Rows are named by UUID v7 (RFC 9562), so that new rows sort behind old ones in an index. People type the small
//! sequential `number` instead; [`Handle`] is a path segment that may be either.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, sqlx::Type)]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, time-ordered id.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row_id!(
    /// A release: one image under one (version, channel, platform).
    FirmwareId
);
row_id!(
    /// A printer's row. What a printer calls itself is [`PrinterId`].
    PrinterRef
);
row_id!(
    /// A rollout.
    RolloutId
);
row_id!(
    /// One attempt to update one printer.
    UpdateId
);
row_id!(
    /// A key of printers.
    PrinterKeyId
);
row_id!(
    /// A running server process; new at every start.
    ReplicaId
);

/// Why a string is no [`PrinterId`] or [`UserId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Empty, or above 64 characters.
    #[error("must have 1 to 64 characters, this has {0}")]
    Length(usize),
    /// Control characters would break logs and headers.
    #[error("must not contain control characters")]
    Control,
}

fn checked(text: &str) -> Result<(), BadName> {
    let length = text.chars().count();
    if !(1..=64).contains(&length) {
        return Err(BadName::Length(length));
    }
    if text.chars().any(char::is_control) { Err(BadName::Control) } else { Ok(()) }
}

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, sqlx::Type)]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                checked(text).map(|()| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque!(
    /// What a printer calls itself: 1 to 64 characters, opaque.
    PrinterId
);
opaque!(
    /// The owner of printers: 1 to 64 characters, opaque.
    UserId
);

/// Namespace of the ids that we derive for printers that send none. It must never change: it names rows.
const PRINTER_NAMESPACE: Uuid = Uuid::from_u128(0x7d2f_3c1e_5b0a_4e86_9c57_1f44_0a6e_b2d9);

impl PrinterId {
    /// The id of a printer that sends none: UUID v5 (RFC 9562) of owner and name. The separator is a control
    /// character, which neither may contain, so that no two pairs collide.
    pub fn derived(user: &UserId, name: &str) -> Self {
        Self(Uuid::new_v5(&PRINTER_NAMESPACE, format!("{user}\u{1f}{name}").as_bytes()).to_string())
    }
}

/// A UUID has neither too many characters nor wrong ones.
impl From<Uuid> for PrinterId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

/// A path segment that names a row: its UUID or its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// The row's UUID.
    Id(Uuid),
    /// The row's sequential number.
    Number(i64),
}

impl Handle {
    /// The UUID, when it is one; for queries that take either.
    pub fn id(self) -> Option<Uuid> {
        if let Self::Id(id) = self { Some(id) } else { None }
    }

    /// The number, when it is one.
    pub fn number(self) -> Option<i64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }
}

impl FromStr for Handle {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Self::Number(number));
        }
        text.parse().map(Self::Id).map_err(|_| "must be a number such as 42, or a UUID".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_64_characters() {
        assert!("ü".repeat(64).parse::<PrinterId>().is_ok());
        assert_eq!("x".repeat(65).parse::<PrinterId>(), Err(BadName::Length(65)));
        assert_eq!("".parse::<UserId>(), Err(BadName::Length(0)));
        assert_eq!("a\nb".parse::<UserId>(), Err(BadName::Control));
    }

    #[test]
    fn a_derived_id_is_stable_and_depends_on_both_parts() -> Result<(), BadName> {
        let (a, b) = ("user-1".parse()?, "user-2".parse()?);
        assert_eq!(PrinterId::derived(&a, "Desk"), PrinterId::derived(&a, "Desk"));
        assert_ne!(PrinterId::derived(&a, "Desk"), PrinterId::derived(&b, "Desk"));
        assert_ne!(PrinterId::derived(&a, "Desk"), PrinterId::derived(&a, "Desk 2"));
        Ok(())
    }
}
