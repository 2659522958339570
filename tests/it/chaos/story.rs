//! The story of a printer or a rollout, for people.

use std::collections::HashSet;

use uuid::Uuid;

use super::history::{Change, History, Micros};
use super::rules::About;
use super::state::State;

/// Lines that are told of a rollout: the first and the last of them.
const MOST: usize = 400;

/// Everything that was recorded about it, in order, in seconds from the beginning.
pub fn of(history: &History, about: &About) -> String {
    let updates = |change: &Change| match change {
        Change::Update(old, new) => new.as_ref().or(old.as_ref()).cloned(),
        _ => None,
    };
    let (printer, rollouts) = match about {
        About::Rollout(rollout) => (None, HashSet::from([*rollout])),
        About::Printer(printer) => {
            let mine = history.changes().filter_map(|(_, change)| updates(change));
            (
                Some(*printer),
                mine.filter(|update| update.printer == *printer).filter_map(|u| u.rollout).collect(),
            )
        }
    };
    let name = printer.and_then(|printer| history.name(printer));
    let belongs = |change: &Change| match change {
        Change::Update(..) => updates(change).is_some_and(|update| match printer {
            Some(printer) => update.printer == printer,
            None => update.rollout.is_some_and(|rollout| rollouts.contains(&rollout)),
        }),
        Change::Rollout(_, new) => new.as_ref().is_some_and(|rollout| rollouts.contains(&rollout.id)),
        Change::Printer(_, new) => new.as_ref().map(|row| row.id) == printer && printer.is_some(),
        Change::Census(..) => false,
    };
    let mut lines: Vec<(Micros, String)> = Vec::new();
    let changes = history.changes().filter(|(_, change)| belongs(change));
    lines.extend(changes.map(|(at, change)| (at, told(change))));
    let events = history.events.iter().filter(|event| Some(event.printer.as_str()) == name);
    lines.extend(events.map(|event| (event.at, format!("socket {}: {:?}", event.socket, event.what))));
    for answer in history.answers.iter().filter(|answer| rollouts.contains(&answer.rollout)) {
        let (wanted, rollout) = (answer.wanted, short(answer.rollout));
        lines.push((answer.sent, format!("operator: {rollout} {wanted}?")));
        lines.push((answer.answered, format!("operator: {rollout} {wanted}: {}", answer.status)));
    }
    for fault in &history.faults {
        lines.push((fault.from, format!("fault: {}", fault.what)));
        lines.push((fault.to, format!("over: {}", fault.what)));
    }
    lines.sort_by_key(|(at, _)| *at);
    // Of marks that follow one another the first and the last tell enough.
    let is_mark = |index: usize| lines.get(index).is_some_and(|(_, line)| line.contains(": Mark"));
    let dull = |index: usize| index > 0 && is_mark(index - 1) && is_mark(index) && is_mark(index + 1);
    let dull: Vec<_> = (0..lines.len()).map(dull).collect();
    let mut dull = dull.into_iter();
    lines.retain(|_| dull.next() != Some(true));
    let began = lines.first().map_or(0, |(at, _)| *at);
    let skipped = lines.len().saturating_sub(MOST);
    let mut told = vec![format!("the story of {about:?}, {name:?}; 0 s is {began}")];
    for (index, (at, line)) in lines.iter().enumerate() {
        if index < MOST / 2 || index >= MOST / 2 + skipped {
            told.push(format!("{:>12.6} s  {line}", (at - began) as f64 / 1e6));
        } else if index == MOST / 2 {
            told.push(format!("… {skipped} more …"));
        }
    }
    told.join("\n")
}

/// The stories of the first printers that have no proved attempt of a rollout in the end.
pub fn of_waiting(history: &History, rollout: Uuid) -> String {
    let mut end = State::default();
    history.changes().for_each(|(_, change)| end.apply(change));
    let proved = |update: &super::history::Update| update.status == "completed" && !update.open;
    let done: HashSet<_> =
        end.attempts(rollout).filter(|update| proved(update)).map(|update| update.printer).collect();
    let waiting = end.printers.keys().filter(|printer| !done.contains(printer));
    waiting.take(3).map(|printer| of(history, &About::Printer(*printer))).collect::<Vec<_>>().join("\n\n")
}

fn short(id: Uuid) -> String {
    id.to_string().split_off(24)
}

fn told(change: &Change) -> String {
    match change {
        Change::Update(old, new) => {
            let side = |update: &super::history::Update| {
                let state = if update.open { "open" } else { "closed" };
                let reason = update.reason.as_deref().unwrap_or_default();
                format!("{} {state} {reason} tries {} sends {}", update.status, update.tries, update.sends)
            };
            let Some(about) = new.as_ref().or(old.as_ref()) else { return String::new() };
            let (old, new) = (old.as_ref().map(side), new.as_ref().map(side));
            let whose = about.rollout.map(short);
            format!("update {} of {whose:?}, {}: {old:?} -> {new:?}", short(about.id), about.version)
        }
        Change::Rollout(old, new) => {
            let of = |row: &Option<super::history::Rollout>| row.as_ref().map(|row| row.status.clone());
            let about =
                new.as_ref().or(old.as_ref()).map(|row| (row.number, short(row.id), row.version.clone()));
            format!("rollout {about:?}: {:?} -> {:?}", of(old), of(new))
        }
        Change::Printer(old, new) => {
            let of = |row: &Option<super::history::PrinterRow>| row.as_ref().map(|row| row.version.clone());
            format!("printer: {:?} -> {:?}", of(old), of(new))
        }
        Change::Census(..) => String::new(),
    }
}
