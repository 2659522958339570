//! What a line remembers about its printer, and which news it may take in. No I/O.

use crate::ids::UpdateId;
use crate::printers::Facts;
use crate::updates::{Open, Remembered, Status};

/// How far the open offer got on this socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sent {
    /// Not here.
    #[default]
    No,
    /// Handed to the socket's task.
    Queued,
    /// On the wire.
    Written,
}

/// The memory of one line. Rows are the truth; this is a copy that two parties keep up to date, the socket's task and
/// the engine, so every change raises a generation, and what was read before a change is not taken in after it.
#[derive(Debug)]
pub struct Known {
    /// Who it is and what it runs.
    pub facts: Facts,
    remembered: Remembered,
    sent: Sent,
    generation: u64,
}

impl Known {
    /// As the rows say when the printer subscribes.
    pub fn new(facts: Facts, remembered: Remembered) -> Self {
        Self { facts, remembered, sent: Sent::No, generation: 0 }
    }

    /// Its updates.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Note it before reading rows, and give it to [`renew`](Self::renew) with them.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes in fresh rows, unless something changed since `seen`. How far the open offer got stays known as long as
    /// it is the same one.
    pub fn renew(&mut self, seen: u64, mut fresh: Remembered) -> bool {
        if seen != self.generation {
            return false;
        }
        let id = |open: &Option<Open>| open.as_ref().map(|open| open.update);
        if id(&self.remembered.open) != id(&fresh.open) {
            self.sent = Sent::No;
        }
        // Progress is in memory before it is in its row.
        if let (Some(open), Some(fresh)) = (&self.remembered.open, &mut fresh.open)
            && open.update == fresh.update
            && (open.status, fresh.status) == (Status::Downloading, Status::Pending)
        {
            fresh.status = Status::Downloading;
        }
        self.remembered = fresh;
        self.generation += 1;
        true
    }

    /// An offer was granted and is about to be queued.
    pub(super) fn queued(&mut self, claimed: Option<Open>) {
        if claimed.is_some() {
            self.remembered.open = claimed;
        }
        self.sent = Sent::Queued;
        self.generation += 1;
    }

    /// The offer could not be queued, or was taken back before it was written.
    pub fn unsent(&mut self) {
        self.sent = Sent::No;
        self.generation += 1;
    }

    /// The offer is on the wire.
    pub fn written(&mut self, update: UpdateId) {
        if self.is_open(update) {
            self.sent = Sent::Written;
            self.generation += 1;
        }
    }

    /// The printer told of progress.
    pub fn underway(&mut self, update: UpdateId) {
        if let Some(open) = self.remembered.open.as_mut().filter(|open| open.update == update) {
            open.status = Status::Downloading;
            self.generation += 1;
        }
    }

    fn is_open(&self, update: UpdateId) -> bool {
        self.remembered.open.as_ref().is_some_and(|open| open.update == update)
    }

    /// Whether the open offer was never seen by the printer and is not on its way.
    pub(super) fn may_go_again(&self) -> bool {
        let open = self.remembered.open.as_ref();
        self.sent == Sent::No && open.is_some_and(|open| open.status == Status::Pending && !open.socket_lost)
    }

    /// The update that the printer took, if the end of its socket means that it took one.
    pub fn taken(&self) -> Option<UpdateId> {
        let open = self.remembered.open.as_ref();
        open.filter(|open| self.sent == Sent::Written || open.status != Status::Pending)
            .map(|open| open.update)
    }

    /// The update whose offer waits in the socket's queue.
    pub fn waiting(&self) -> Option<UpdateId> {
        let open = self.remembered.open.as_ref().filter(|_| self.sent == Sent::Queued);
        open.map(|open| open.update)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::ids::{FirmwareId, PrinterRef};
    use crate::printers::{Cohort, Downloads};
    use crate::version::Version;
    use crate::words::{Channel, Platform};

    fn open() -> Open {
        Open {
            update: UpdateId::generate(),
            rollout: None,
            status: Status::Pending,
            release: FirmwareId::generate(),
            version: Version::zero(),
            from: Version::zero(),
            sends: 1,
            socket_lost: false,
        }
    }

    fn rows(open: Option<Open>) -> Remembered {
        Remembered { open, past: HashMap::new() }
    }

    fn known(open: Option<Open>) -> Known {
        let facts = Facts {
            printer: PrinterRef::generate(),
            printer_id: "p".parse().unwrap(),
            user_id: "u".parse().unwrap(),
            bucket: 0,
            cohort: Cohort {
                platform: Platform::Esp8266,
                version: Version::zero(),
                auto_update: true,
                channel: Channel::Stable,
                installed: None,
            },
            previous: None,
            downloads: Downloads::default(),
            time_zone: None,
            shared_key: false,
        };
        Known::new(facts, rows(open))
    }

    #[test]
    fn what_was_read_before_a_change_is_not_taken_in_after_it() {
        let update = open();
        let mut known = known(Some(update.clone()));
        let (engine, session) = (known.generation(), known.generation());
        assert!(known.renew(session, rows(None)), "the printer failed it");
        assert!(!known.renew(engine, rows(Some(update))), "the engine read before that");
        assert!(known.remembered().open.is_none());
    }

    #[test]
    fn a_claim_is_not_forgotten_for_an_older_read() {
        let mut known = known(None);
        let session = known.generation();
        known.queued(Some(open()));
        assert!(!known.renew(session, rows(None)));
        assert!(known.remembered().open.is_some());
    }

    #[test]
    fn only_a_written_offer_counts_as_taken_when_the_socket_ends() {
        let update = open();
        let mut known = known(Some(update.clone()));
        assert!(known.may_go_again());
        known.queued(None);
        assert_eq!(
            (known.taken(), known.waiting(), known.may_go_again()),
            (None, Some(update.update), false)
        );
        known.written(update.update);
        assert_eq!((known.taken(), known.waiting()), (Some(update.update), None));
        let seen = known.generation();
        assert!(known.renew(seen, rows(Some(update.clone()))));
        assert_eq!(known.taken(), Some(update.update), "the same offer keeps how far it got");
        let seen = known.generation();
        assert!(known.renew(seen, rows(Some(open()))));
        assert_eq!(known.taken(), None, "another one does not");
    }
}
