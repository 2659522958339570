//! What a fleet tells about itself: events as they happen, and counts of everything that did.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::broadcast;

/// Something that happened to a printer.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its `printer_id`, or `user/name` when it has none.
    pub printer_id: Arc<str>,
    /// When.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The WebSocket is open.
    Connected,
    /// The subscribe message is sent.
    Subscribed {
        /// The version it named.
        version: Arc<str>,
    },
    /// A `firmware_update` came.
    Offered {
        /// Version offered.
        version: Arc<str>,
        /// Length of the URL.
        url_len: usize,
        /// MD5, when one came.
        md5: Option<String>,
    },
    /// The download begins.
    DownloadStarted,
    /// All bytes came.
    Downloaded {
        /// How many.
        bytes: u64,
        /// Whether the MD5 is right.
        md5_ok: bool,
    },
    /// The update failed on the printer.
    Failed {
        /// Why.
        reason: String,
    },
    /// The offer was declined.
    Declined,
    /// Up again, about to connect.
    Rebooted {
        /// With this version.
        version: Arc<str>,
    },
    /// The WebSocket is gone.
    Disconnected {
        /// The server's close code, when it sent one. A printer pays no attention to it.
        code: Option<u16>,
    },
    /// A `status` message came.
    Status {
        /// Its code.
        code: String,
        /// Its words.
        detail: String,
    },
    /// It will not be heard of again.
    Bricked,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of everything that happened, each a relaxed atomic: they are read for display and for tests that wait.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        /// A fleet at one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Summary {
            /// How many printers there are.
            pub printers: usize,
            /// Which version how many printers run, those that are bricked left out.
            pub versions: BTreeMap<String, usize>,
            /// Why the last attempt to connect, or the last download, failed.
            pub last_error: Option<String>,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            fn read(&self) -> Summary {
                Summary { printers: 0, versions: BTreeMap::new(), last_error: None, $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Printers that are connected and have subscribed.
    online,
    /// WebSockets opened.
    connects,
    /// Attempts that came to no WebSocket.
    connect_failures,
    /// WebSockets lost or closed.
    disconnects,
    /// Subscribe messages sent.
    subscribes,
    /// `firmware_update` messages understood.
    offers,
    /// The same offer again while it was being installed: idle, but no fault.
    repeated_offers,
    /// A different offer while one was being installed: a violation of the protocol.
    double_offers,
    /// Offers of the version that runs already.
    pointless_offers,
    /// `firmware_update` messages longer than the printer's JSON document.
    unparsable,
    /// Text that is no message at all.
    malformed,
    /// Frames that ended a connection by their length, and other breaches of the WebSocket protocol.
    protocol_errors,
    /// `status` messages.
    statuses,
    /// Downloads begun.
    downloads_started,
    /// Downloads that were complete and right.
    downloads_ok,
    /// Downloads whose MD5 did not match.
    md5_mismatches,
    /// Downloads that failed otherwise.
    downloads_failed,
    /// Bytes of complete downloads.
    bytes,
    /// Offers declined.
    declined,
    /// Reboots after a download.
    reboots,
    /// Printers that are gone for good.
    bricked,
}

impl Summary {
    /// How many printers run this version.
    #[must_use]
    pub fn running(&self, version: &str) -> usize {
        self.versions.get(version).copied().unwrap_or(0)
    }

    /// Whether every printer runs this version and is there to say so.
    #[must_use]
    pub fn all_run(&self, version: &str) -> bool {
        self.running(version) == self.printers && self.online == self.printers as u64
    }
}

/// Where the printers of a fleet write.
#[derive(Debug)]
pub(super) struct Tally {
    counters: Counters,
    events: broadcast::Sender<Event>,
    last_error: Mutex<Option<String>>,
    /// Grows with every event, so that those who wait look only when there is something to see.
    pub(super) generation: AtomicU64,
}

impl Tally {
    pub(super) fn new(event_capacity: usize) -> Self {
        Self {
            counters: Counters::default(),
            events: broadcast::Sender::new(event_capacity.max(1)),
            generation: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Counts the event, then tells it: who hears of something finds it counted.
    pub(super) fn emit(&self, printer_id: &Arc<str>, kind: EventKind) {
        let counters = &self.counters;
        match &kind {
            EventKind::Connected => add(&counters.connects),
            EventKind::Subscribed { .. } => add(&counters.subscribes),
            EventKind::Offered { .. } => add(&counters.offers),
            EventKind::DownloadStarted => add(&counters.downloads_started),
            EventKind::Downloaded { bytes, md5_ok } => {
                add(if *md5_ok { &counters.downloads_ok } else { &counters.md5_mismatches });
                counters.bytes.fetch_add(*bytes, Relaxed);
            }
            EventKind::Failed { reason } => self.blame(reason.clone()),
            EventKind::Declined => add(&counters.declined),
            EventKind::Rebooted { .. } => add(&counters.reboots),
            EventKind::Disconnected { .. } => add(&counters.disconnects),
            EventKind::Status { .. } => add(&counters.statuses),
            EventKind::Bricked => add(&counters.bricked),
        }
        self.touch();
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(Event { printer_id: Arc::clone(printer_id), at: Instant::now(), kind });
        }
    }

    /// Counts what is no event of its own.
    pub(super) fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        add(counter(&self.counters));
        self.touch();
    }

    /// Remembers a failure for those who ask why nothing goes on.
    pub(super) fn blame(&self, reason: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// The counts; who the printers are, the fleet knows.
    pub(super) fn read(&self) -> Summary {
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Summary { last_error, ..self.counters.read() }
    }

    pub(super) fn touch(&self) {
        self.generation.fetch_add(1, Relaxed);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts a printer as online until it is dropped, however its connection ends.
pub(super) struct Online(Arc<Tally>);

impl Online {
    pub(super) fn enter(tally: &Arc<Tally>) -> Self {
        tally.count(|counters| &counters.online);
        Self(Arc::clone(tally))
    }
}

impl Drop for Online {
    fn drop(&mut self) {
        self.0.counters.online.fetch_sub(1, Relaxed);
        self.0.touch();
    }
}
