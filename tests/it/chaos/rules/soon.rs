//! Nobody waits for ever.

use std::collections::HashMap;

use uuid::Uuid;

use super::wire::Attempts;
use super::{About, Checked, ensure};
use crate::chaos::history::{Change, History, Micros, Rollout, SECOND, What, is_newer};

/// The scan of a replica, twice, and a busy machine.
pub const SOON: Micros = 12 * SECOND;

/// From the subscribe message on one socket to the end of that.
struct Span<'a> {
    printer: &'a str,
    version: &'a str,
    from: Micros,
    to: Micros,
}

fn spans(history: &History) -> Vec<Span<'_>> {
    let (mut here, mut all) = (HashMap::new(), Vec::new());
    for event in &history.events {
        match &event.what {
            What::Subscribes(version) => {
                let (printer, from, to) = (event.printer.as_str(), event.at, Micros::MAX);
                here.insert(event.socket, Span { printer, version, from, to });
            }
            What::Gone => all.extend(here.remove(&event.socket).map(|span| Span { to: event.at, ..span })),
            _ => {}
        }
    }
    let end = history.events.last().map_or(0, |event| event.at);
    all.extend(here.into_values().map(|span| Span { to: end, ..span }));
    all
}

/// While a rollout was for everybody.
fn offering(history: &History) -> Vec<(&Rollout, Micros, Micros)> {
    let (mut open, mut all) = (HashMap::<Uuid, (&Rollout, Micros)>::new(), Vec::new());
    let is_open = |rollout: &Rollout| rollout.everyone && rollout.offers();
    for (at, change) in history.changes() {
        let Change::Rollout(_, Some(new)) = change else { continue };
        match (open.get(&new.id).copied(), is_open(new)) {
            (None, true) => drop(open.insert(new.id, (new, at))),
            (Some((rollout, from)), false) => {
                open.remove(&new.id);
                all.push((rollout, from, at));
            }
            _ => {}
        }
    }
    all.extend(open.into_values().map(|(rollout, from)| (rollout, from, Micros::MAX)));
    all
}

/// The same moment, or when what is wrong then is over.
fn in_peace(history: &History, mut from: Micros) -> Micros {
    while let Some(fault) = history.faults.iter().find(|fault| fault.to > from && fault.from <= from + SOON) {
        from = fault.to;
    }
    from
}

/// Whoever is connected and older than a rollout for everybody is claimed for and told, soon.
pub fn offered_soon(history: &History) -> Checked {
    let attempts = Attempts::of(history);
    let offering = offering(history);
    let names: HashMap<&str, Uuid> = history
        .changes()
        .filter_map(|(_, change)| match change {
            Change::Printer(_, Some(row)) => Some((row.name.as_str(), row.id)),
            _ => None,
        })
        .collect();
    for span in spans(history) {
        let about = || About::Printer(names.get(span.printer).copied().unwrap_or_default());
        for (rollout, from, to) in &offering {
            let due = in_peace(history, span.from.max(*from)) + SOON;
            if due > span.to.min(*to) || !is_newer(&rollout.version, span.version) {
                continue;
            }
            let claim = attempts.newest(span.printer, due);
            ensure!(
                claim.is_some(),
                about(),
                "nothing was claimed until {due}, rollout {} is open",
                rollout.number
            );
        }
        let Some(changes) = attempts.newest(span.printer, span.to) else { continue };
        let Some(claim) = changes[0].1 else { continue };
        let taken = changes.iter().find(|(_, new)| new.is_none_or(|new| new.status != "pending"));
        let due = in_peace(history, span.from.max(changes[0].0)) + SOON;
        let offered = |event: &crate::chaos::history::Event| {
            event.printer == span.printer
                && event.what == What::Offered(claim.version.clone())
                && (changes[0].0..=due).contains(&event.at)
        };
        let waits = due < span.to && taken.is_none_or(|(at, _)| *at > due);
        ensure!(!waits || history.events.iter().any(offered), about(), "{claim:?} was not sent until {due}");
    }
    Ok(())
}
