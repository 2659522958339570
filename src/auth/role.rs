//! Who may do what: roles have rights, and each operation of REST needs one.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::scope::Scope;

/// What the holder of a key is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, sqlx::Type, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// May do everything.
    Admin,
    /// A release pipeline: uploads, promotes, rolls out.
    Release,
    /// Rolls out, forces updates, says when printers may be updated.
    Operator,
    /// Looks.
    Viewer,
}

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// None: it is open to anybody, who need not say who they are.
    Open,
    /// To look.
    Read,
    /// To change releases.
    Firmware,
    /// To change rollouts.
    Rollouts,
    /// To force updates on printers, and to keep printers out.
    Printers,
    /// To change what is known of the owners of printers.
    Owners,
    /// To make and delete the keys of printers.
    PrinterKeys,
    /// To make and revoke keys.
    Keys,
    /// To see who did what.
    Audit,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Release, Self::Operator, Self::Viewer];

    /// Whether it has a right.
    pub fn may(self, right: Right) -> bool {
        match self {
            Self::Admin => true,
            _ if right == Right::Open => true,
            Self::Release => matches!(right, Right::Read | Right::Firmware | Right::Rollouts),
            Self::Operator => {
                matches!(right, Right::Read | Right::Rollouts | Right::Printers | Right::Owners)
            }
            Self::Viewer => right == Right::Read,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Release => "release",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        })
    }
}

impl Right {
    /// The roles that have it, as in `admin or release`.
    pub fn holders(self) -> String {
        let holders: Vec<_> =
            Role::ALL.iter().filter(|role| role.may(self)).map(ToString::to_string).collect();
        holders.join(" or ")
    }

    /// For the document.
    pub fn sentence(self) -> String {
        match self {
            Self::Open => "Open to anybody.".into(),
            _ => format!("Needs a key with the role {}.", self.holders()),
        }
    }

    /// Whether a scope is wide enough for what the right is about, or why not.
    pub fn within(self, scope: &Scope) -> Result<(), &'static str> {
        match self {
            Self::Firmware if !scope.has_everybody() => {
                Err("changes releases, which are everybody's, and the key is for some users only")
            }
            Self::Owners | Self::PrinterKeys if scope.channels.is_some() || scope.platforms.is_some() => {
                Err("is about all printers of a user, and the key is for some channels or platforms only")
            }
            _ => Ok(()),
        }
    }
}

/// What each operation of the OpenAPI document needs. One that does not stand here is closed to everybody.
static OPERATIONS: &[(Right, &[&str])] = &[
    (Right::Open, &["logIn", "beginLogin", "finishLogin"]),
    (
        Right::Read,
        &[
            "watchEvents",
            "listFirmware",
            "downloadFirmware",
            "latestFirmware",
            "getFirmware",
            "listPrinters",
            "exportPrinters",
            "getPrinter",
            "explainPrinter",
            "listPrinterUpdates",
            "listRollouts",
            "getRollout",
            "explainRollout",
            "getStats",
            "listUpdates",
            "exportUpdates",
            "getUser",
            "whoAmI",
            "getSession",
            "logOut",
        ],
    ),
    (
        Right::Firmware,
        &[
            "uploadFirmware",
            "beginUpload",
            "completeUpload",
            "updateFirmware",
            "deleteFirmware",
            "promoteFirmware",
        ],
    ),
    (
        Right::Rollouts,
        &[
            "createRollout",
            "updateRollout",
            "deleteRollout",
            "advanceRollout",
            "approveRollout",
            "denyRollout",
            "retryFailed",
            "rollBack",
        ],
    ),
    (Right::Printers, &["forceUpdate", "blockPrinter", "unblockPrinter"]),
    (
        Right::PrinterKeys,
        &[
            "listPrinterKeys",
            "createPrinterKey",
            "importPrinterKeys",
            "rotatePrinterKey",
            "deletePrinterKey",
            "resetPrinterKey",
        ],
    ),
    (Right::Owners, &["putUser", "deleteUser"]),
    (Right::Keys, &["listKeys", "createKey", "getKey", "rotateKey", "revokeKey"]),
    (Right::Audit, &["listAudit", "exportAudit"]),
];

/// What an operation needs; none when nobody said so.
pub fn needs(operation: &str) -> Option<Right> {
    OPERATIONS.iter().find(|(_, names)| names.contains(&operation)).map(|(right, _)| *right)
}

/// Every operation that has a right.
#[cfg(test)]
pub fn named() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().flat_map(|(_, names)| names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_nested_only_where_they_should_be() {
        let rights = [Right::Read, Right::Firmware, Right::Rollouts, Right::Owners, Right::Keys];
        let of = |role: Role| rights.map(|right| role.may(right));
        assert_eq!(of(Role::Admin), [true, true, true, true, true]);
        assert_eq!(of(Role::Release), [true, true, true, false, false]);
        assert_eq!(of(Role::Operator), [true, false, true, true, false]);
        assert_eq!(of(Role::Viewer), [true, false, false, false, false]);
        assert_eq!(Right::Firmware.holders(), "admin or release");
    }
}
