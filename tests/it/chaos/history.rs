//! What happened, in types that a test can make up.

use paperminder_ota::version::Version;
use uuid::Uuid;

/// Microseconds since 1970, by the one clock of this machine.
pub type Micros = i64;
pub const SECOND: Micros = 1_000_000;

/// Everything that was recorded.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order in which they became visible.
    pub commits: Vec<Commit>,
    /// In order.
    pub events: Vec<Event>,
    pub answers: Vec<Answer>,
    pub faults: Vec<Fault>,
    pub samples: Vec<Sample>,
}

/// What one transaction changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub at: Micros,
    pub changes: Vec<Change>,
}

/// A row before and after.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Update(Option<Update>, Option<Update>),
    Rollout(Option<Rollout>, Option<Rollout>),
    Printer(Option<PrinterRow>, Option<PrinterRow>),
    Census(Option<Counted>, Option<Counted>),
}

/// An attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub id: Uuid,
    /// None: it was forced.
    pub rollout: Option<Uuid>,
    pub printer: Uuid,
    pub version: String,
    pub status: String,
    pub open: bool,
    pub last: bool,
    pub tries: i64,
    pub sends: i64,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    pub id: Uuid,
    pub number: i64,
    pub version: String,
    pub status: String,
    pub max_in_flight: Option<i64>,
    pub max_attempts: i64,
    /// Whether every printer that runs an older version is to get it at once.
    pub everyone: bool,
}

impl Rollout {
    /// Whether it may claim now.
    pub fn offers(&self) -> bool {
        matches!(self.status.as_str(), "active" | "completed")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct PrinterRow {
    pub id: Uuid,
    /// What it calls itself.
    pub name: String,
    pub version: String,
}

/// A line of the census: so many more, or fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// None: of all printers.
    pub rollout: Option<Uuid>,
    pub version: String,
    pub state: Option<String>,
    pub n: i64,
}

/// Something at a printer's end of a socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub at: Micros,
    /// What the printer calls itself.
    pub printer: String,
    pub socket: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Opened,
    /// It is about to say what it runs.
    Subscribes(String),
    /// It is about to tell how far it is.
    Progress(i64),
    /// It is about to tell how it went: completed, failed or declined.
    Reports(&'static str),
    /// It is about to say something that the server answers in its turn.
    Marks,
    /// That was answered, and with it everything that was said before.
    Marked,
    /// An offer of this version came.
    Offered(String),
    Closes,
    /// A close frame came; none: the answer to ours.
    Closed(Option<u16>),
    Gone,
}

/// An operator's wish, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub rollout: Uuid,
    /// `active`, `paused` or `cancelled`.
    pub wanted: &'static str,
    pub sent: Micros,
    pub answered: Micros,
    pub status: u16,
}

/// What REST told of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub at: Micros,
    pub rollout: Uuid,
    pub total: i64,
    /// Completed, failed, declined, pending.
    pub parts: [i64; 4],
}

/// Something terrible.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub what: String,
    pub from: Micros,
    /// When it was over.
    pub to: Micros,
}

impl History {
    /// The name of a printer.
    pub fn name(&self, printer: Uuid) -> Option<&str> {
        self.changes().find_map(|(_, change)| match change {
            Change::Printer(_, Some(row)) if row.id == printer => Some(row.name.as_str()),
            _ => None,
        })
    }

    /// Every change with its moment.
    pub fn changes(&self) -> impl Iterator<Item = (Micros, &Change)> {
        self.commits.iter().flat_map(|commit| commit.changes.iter().map(|change| (commit.at, change)))
    }
}

/// Whether one version is newer than the other.
pub fn is_newer(one: &str, than: &str) -> bool {
    Version::from(one.to_owned()) > Version::from(than.to_owned())
}
