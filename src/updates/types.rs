//! What an update is, and what a subscribe message proves about it. No I/O.

use std::collections::HashMap;

use crate::clock::Time;
use crate::ids::{FirmwareId, RolloutId, UpdateId};
use crate::version::Version;
use crate::words::vocabulary;

vocabulary!(
    /// Where an attempt stands.
    #[schema(as = UpdateStatus)]
    Status {
        /// Offered; nothing was heard yet.
        #[default]
        Pending = "pending",
        /// The printer told of progress.
        Downloading = "downloading",
        /// The printer said so; proved once it is confirmed.
        Completed = "completed",
        /// It did not work out.
        Failed = "failed",
        /// The printer did not want it.
        Declined = "declined",
        /// It became pointless.
        Cancelled = "cancelled",
    }
);

vocabulary!(
    /// Why an attempt failed or was cancelled.
    #[schema(as = UpdateReason)]
    Reason {
        /// The printer reported an error.
        #[default]
        Reported = "reported",
        /// The printer came back on the version it had before.
        RolledBack = "rolled_back",
        /// Nothing was heard for too long.
        Timeout = "timeout",
        /// The printer came back on a third version.
        Superseded = "superseded",
        /// The printer has less room than the image needs.
        NoSpace = "no_space",
        /// The rollout stopped making offers, or the release was withdrawn, before the printer saw this one.
        Withdrawn = "withdrawn",
    }
);

/// Every way in which an attempt ends, as metrics tell it.
pub fn ends() -> impl Iterator<Item = (&'static str, &'static str)> {
    let without = |reason: &Reason| {
        (
            if matches!(reason, Reason::Withdrawn | Reason::Superseded) {
                Status::Cancelled
            } else {
                Status::Failed
            },
            reason.as_str(),
        )
    };
    let good = [(Status::Completed, "confirmed"), (Status::Declined, "declined")];
    Reason::ALL.iter().map(without).chain(good).map(|(status, reason)| (status.as_str(), reason))
}

/// An update whose outcome is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The attempt.
    pub update: UpdateId,
    /// Whose offer it was.
    pub rollout: Option<RolloutId>,
    /// Pending, downloading or completed.
    pub status: Status,
    /// What it brings.
    pub release: FirmwareId,
    /// The version of that.
    pub version: Version,
    /// What the printer ran when it was offered.
    pub from: Version,
    /// How often the offer went out.
    pub sends: i32,
    /// Whether the printer's socket was seen to end after the offer.
    pub socket_lost: bool,
}

/// The last attempt of one rollout with a printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// How many tries there were; what is forgiven does not count.
    pub tries: u32,
    /// How the last one ended.
    pub status: Status,
    /// When that was.
    pub ended_at: Option<Time>,
}

/// What is known about a printer's updates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The one that is open.
    pub open: Option<Open>,
    /// How each rollout stands with it: the last attempt, unless that was cancelled, forgiven or a stepping stone.
    pub past: HashMap<RolloutId, Past>,
}

/// How often one offer goes out before a printer that keeps coming back on its old version counts as having tried. It
/// bounds what a socket that dies without being noticed can cause.
pub const MAX_SENDS: i32 = 3;

/// What a printer's reconnect says about its open update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It runs the new version: proved.
    Confirmed,
    /// It runs the old version and most likely never saw the offer: it may be sent again.
    Unseen,
    /// It runs the old version because it may still be downloading: its socket was lost by us, not let go by it.
    Underway,
    /// It runs the old version although it took the offer.
    RolledBack,
    /// It runs something else: somebody flashed it.
    Superseded,
}

impl Open {
    /// Judges the update by the version that the printer runs when it reconnects.
    ///
    /// The socket dies when a download starts, so a socket that the printer let go after the offer means that it took
    /// it. A socket that we lost (our process died) means nothing: a printer that can do two things at once is back
    /// before its download is over.
    pub fn judged_by(&self, runs: &Version) -> Settlement {
        if *runs == self.version {
            Settlement::Confirmed
        } else if *runs != self.from {
            Settlement::Superseded
        } else if self.socket_lost {
            Settlement::RolledBack
        } else {
            match self.status {
                Status::Pending if self.sends < MAX_SENDS => Settlement::Unseen,
                Status::Downloading => Settlement::Underway,
                _ => Settlement::RolledBack,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(status: Status) -> Open {
        Open {
            update: UpdateId::generate(),
            rollout: None,
            status,
            release: FirmwareId::generate(),
            version: "1.5.0".to_owned().into(),
            from: "1.4.0".to_owned().into(),
            sends: 1,
            socket_lost: false,
        }
    }

    fn judge(open: &Open, runs: &str) -> Settlement {
        open.judged_by(&runs.to_owned().into())
    }

    #[test]
    fn the_new_version_proves_it_whatever_was_said_before() {
        for status in [Status::Pending, Status::Downloading, Status::Completed] {
            assert_eq!(judge(&open(status), "1.5.0"), Settlement::Confirmed);
        }
    }

    #[test]
    fn the_old_version_refutes_what_was_taken() {
        assert_eq!(judge(&open(Status::Completed), "1.4.0"), Settlement::RolledBack);
        for status in [Status::Pending, Status::Downloading, Status::Completed] {
            assert_eq!(judge(&Open { socket_lost: true, ..open(status) }, "1.4.0"), Settlement::RolledBack);
        }
    }

    #[test]
    fn a_download_whose_socket_we_lost_may_still_be_going_on() {
        assert_eq!(judge(&open(Status::Downloading), "1.4.0"), Settlement::Underway);
    }

    #[test]
    fn an_offer_that_we_lost_is_sent_again_but_not_for_ever() {
        assert_eq!(judge(&open(Status::Pending), "1.4.0"), Settlement::Unseen);
        assert_eq!(
            judge(&Open { sends: MAX_SENDS, ..open(Status::Pending) }, "1.4.0"),
            Settlement::RolledBack
        );
    }

    #[test]
    fn a_third_version_ends_it() {
        assert_eq!(judge(&open(Status::Pending), "2.0.0"), Settlement::Superseded);
        assert_eq!(judge(&open(Status::Completed), "1.3.0"), Settlement::Superseded);
    }
}
