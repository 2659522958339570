//! What passed the printers' sockets, and the rows: an offer has its claim, an outcome its cause.

use std::collections::HashMap;

use uuid::Uuid;

use super::{About, Checked, ensure};
use crate::chaos::history::{Answer, Change, Event, History, Micros, SECOND, Update, What};

/// What was on its way when the answer came is read within this, when nothing tells it more exactly.
const ON_ITS_WAY: Micros = 2 * SECOND;

/// The close code of a replica that ends.
const LEAVING: u16 = 1001;

/// One attempt: the moments of its changes, the first of which is its claim, and what it was from there on.
pub type Attempt<'a> = Vec<(Micros, Option<&'a Update>)>;

/// The attempts with each printer, by what it calls itself, in order.
pub struct Attempts<'a>(HashMap<String, Vec<Attempt<'a>>>);

impl<'a> Attempts<'a> {
    pub fn of(history: &'a History) -> Self {
        let (mut names, mut places) = (HashMap::new(), HashMap::new());
        let mut sorted: HashMap<String, Vec<Attempt<'a>>> = HashMap::new();
        for (at, change) in history.changes() {
            match change {
                Change::Printer(_, Some(row)) => drop(names.insert(row.id, row.name.as_str())),
                Change::Update(old, new) => {
                    let Some(update) = new.as_ref().or(old.as_ref()) else { continue };
                    let name = names.get(&update.printer).copied().unwrap_or_default();
                    let attempts = sorted.entry(name.to_owned()).or_default();
                    let place = *places.entry(update.id).or_insert_with(|| {
                        attempts.push(Vec::new());
                        attempts.len() - 1
                    });
                    attempts[place].push((at, new.as_ref()));
                }
                _ => {}
            }
        }
        Self(sorted)
    }

    /// The attempt with this printer and version that was the newest at that moment.
    pub fn at(&self, printer: &str, version: &str, at: Micros) -> Option<&Attempt<'a>> {
        let of = |attempt: &&Attempt<'a>| attempt[0].1.is_some_and(|update| update.version == version);
        self.0.get(printer)?.iter().rev().filter(of).find(|attempt| attempt[0].0 <= at)
    }

    /// The newest attempt with this printer at that moment.
    pub fn newest(&self, printer: &str, at: Micros) -> Option<&Attempt<'a>> {
        self.0.get(printer)?.iter().rev().find(|attempt| attempt[0].0 <= at)
    }
}

/// The row of a printer that is known by its name.
fn row(history: &History, name: &str) -> About {
    let id = history.changes().find_map(|(_, change)| match change {
        Change::Printer(_, Some(row)) if row.name == name => Some(row.id),
        _ => None,
    });
    About::Printer(id.unwrap_or_default())
}

/// What came before an offer, on its socket: when it opened, and when what it was acknowledged last was said.
#[derive(Default)]
struct Before {
    opened: Micros,
    marks: Vec<Micros>,
    answered: usize,
}

impl Before {
    fn note(&mut self, event: &Event) {
        match event.what {
            What::Opened => self.opened = event.at,
            What::Marks => self.marks.push(event.at),
            What::Marked => self.answered += 1,
            _ => {}
        }
    }

    /// Whatever leaves now was written after this.
    fn since(&self) -> Micros {
        self.answered.checked_sub(1).and_then(|last| self.marks.get(last)).copied().unwrap_or(self.opened)
    }
}

pub fn claimed(history: &History) -> Checked {
    let attempts = Attempts::of(history);
    for event in &history.events {
        let What::Offered(version) = &event.what else { continue };
        let claim = attempts.at(&event.printer, version, event.at);
        let about = || row(history, &event.printer);
        ensure!(claim.is_some(), about(), "{version} at {} without a claim", event.at);
        let gone = claim.is_some_and(|changes| changes.iter().any(|(_, new)| new.is_none()));
        ensure!(!gone, about(), "{version}, seen at {}, was taken back as if it had never left", event.at);
    }
    Ok(())
}

pub fn nothing_after_the_answer(history: &History) -> Checked {
    let attempts = Attempts::of(history);
    let mut narrowed: HashMap<Uuid, Vec<&Answer>> = HashMap::new();
    for answer in &history.answers {
        narrowed.entry(answer.rollout).or_default().push(answer);
    }
    let mut sockets: HashMap<u64, Before> = HashMap::new();
    for event in &history.events {
        let socket = sockets.entry(event.socket).or_default();
        socket.note(event);
        let What::Offered(version) = &event.what else { continue };
        let rollout =
            attempts.at(&event.printer, version, event.at).and_then(|changes| changes[0].1?.rollout);
        let Some(answers) = rollout.and_then(|id| narrowed.get(&id)) else { continue };
        // The last wish that was answered by then, unless the opposite may have taken effect meanwhile.
        let before = |answer: &&&Answer| answer.answered < event.at && answer.status == 200;
        let Some(last) = answers.iter().filter(before).max_by_key(|answer| answer.answered) else { continue };
        let resumed =
            |other: &&Answer| other.wanted == "active" && other.sent > last.sent && other.sent < event.at;
        if last.wanted == "active" || answers.iter().any(resumed) {
            continue;
        }
        let late = socket.since() > last.answered || event.at > last.answered + ON_ITS_WAY;
        ensure!(
            !late,
            row(history, &event.printer),
            "{version} came at {} on socket {}, {} was answered at {}",
            event.at,
            event.socket,
            last.wanted,
            last.answered
        );
    }
    Ok(())
}

/// Which word of the printer an outcome needs.
fn cause(old: Option<&Update>, new: &Update) -> Option<What> {
    let was = old.map_or("pending", |old| old.status.as_str());
    let word = |word: &'static str| Some(What::Reports(word));
    match (new.status.as_str(), new.open) {
        ("completed", true) if was != "completed" => word("completed"),
        ("completed", false) if old.is_none_or(|old| old.open || was != "completed") => {
            Some(What::Subscribes(new.version.clone()))
        }
        ("failed", _) if was != "failed" && new.reason.as_deref() == Some("reported") => word("failed"),
        ("declined", _) if was != "declined" => word("declined"),
        _ => None,
    }
}

pub fn causes(history: &History) -> Checked {
    let mut claimed: HashMap<Uuid, Micros> = HashMap::new();
    let mut said: HashMap<&str, Vec<&Event>> = HashMap::new();
    for event in &history.events {
        said.entry(event.printer.as_str()).or_default().push(event);
    }
    let mut names: HashMap<Uuid, &str> = HashMap::new();
    for (at, change) in history.changes() {
        match change {
            Change::Printer(_, Some(row)) => drop(names.insert(row.id, &row.name)),
            Change::Update(old, Some(new)) => {
                let since = *claimed.entry(new.id).or_insert(at);
                let Some(wanted) = cause(old.as_ref(), new) else { continue };
                let mut events =
                    names.get(&new.printer).and_then(|name| said.get(name)).into_iter().flatten();
                let found = events.any(|event| event.what == wanted && (since..=at).contains(&event.at));
                ensure!(
                    found,
                    About::Printer(new.printer),
                    "{new:?} at {at}, but the printer never {wanted:?}"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// A report on one socket that waits to be acknowledged.
struct Waiting<'a> {
    report: &'a Event,
    word: &'static str,
    /// Marks before it.
    marks: usize,
}

pub fn nothing_lost(history: &History) -> Checked {
    let attempts = Attempts::of(history);
    let mut sockets: HashMap<u64, (usize, usize, Vec<Waiting<'_>>)> = HashMap::new();
    for event in &history.events {
        let (marks, marked, waiting) = sockets.entry(event.socket).or_default();
        let acknowledged = match event.what {
            What::Reports(word) => {
                waiting.push(Waiting { report: event, word, marks: *marks });
                continue;
            }
            What::Marks => {
                *marks += 1;
                continue;
            }
            What::Marked => {
                *marked += 1;
                let answered = |report: &Waiting<'_>| report.marks < *marked;
                waiting.extract_if(.., |report| answered(report)).collect()
            }
            // The server closed the socket in an orderly way, and reads what is on its way.
            What::Closed(None | Some(LEAVING)) => std::mem::take(waiting),
            _ => continue,
        };
        let by = event.at + if event.what == What::Closed(Some(LEAVING)) { ON_ITS_WAY } else { 0 };
        for Waiting { report, word, .. } in acknowledged {
            let Some(changes) = attempts.newest(&report.printer, report.at) else { continue };
            let before = changes.iter().rev().find(|(at, _)| *at <= by).and_then(|(_, new)| *new);
            let written = before.is_none_or(|update| !update.open || update.status == word);
            ensure!(
                written,
                row(history, &report.printer),
                "{word} was said at {} and acknowledged at {}, when it stood {before:?}",
                report.at,
                event.at
            );
        }
    }
    Ok(())
}
