//! What the rows must look like at every commit.

use std::collections::HashMap;

use uuid::Uuid;

use super::{About, Checked, ensure};
use crate::chaos::history::{Change, Commit, Counted, Event, History, Rollout, Update, What};
use crate::chaos::state::{State, at_every_commit, touched};

pub fn one_open_offer(history: &History) -> Checked {
    at_every_commit(history, |commit, state| {
        for change in &commit.changes {
            let Change::Update(_, Some(new)) = change else { continue };
            let open = &state.open[&new.printer];
            ensure!(open.len() <= 1, About::Printer(new.printer), "open at {}: {open:?}", commit.at);
        }
        Ok(())
    })
}

pub fn in_flight(history: &History) -> Checked {
    at_every_commit(history, |commit, state| {
        for rollout in touched(commit).iter().filter_map(|id| state.rollouts.get(id)) {
            let Some(most) = rollout.max_in_flight else { continue };
            let open = state.attempts(rollout.id).filter(|update| update.open).count();
            ensure!(
                open as i64 <= most,
                About::Rollout(rollout.id),
                "{open} open at {}, {most} allowed",
                commit.at
            );
        }
        Ok(())
    })
}

/// The most that were ever open at once of a rollout.
pub fn peak(history: &History, rollout: Uuid) -> usize {
    let mut peak = 0;
    let _ = at_every_commit(history, |commit, state| {
        if touched(commit).contains(&rollout) {
            peak = peak.max(state.attempts(rollout).filter(|update| update.open).count());
        }
        Ok(())
    });
    peak
}

pub fn census(history: &History) -> Checked {
    at_every_commit(history, |commit, state| {
        for rollout in touched(commit).iter().filter_map(|id| state.rollouts.get(id)) {
            let mut counted: HashMap<String, i64> = HashMap::new();
            for update in state.attempts(rollout.id).filter(|update| update.last) {
                *counted.entry(standing(update, rollout).to_owned()).or_default() += 1;
            }
            let told = state.census.get(&rollout.id).cloned().unwrap_or_default();
            let (told, counted) = (without_zeros(&told), without_zeros(&counted));
            ensure!(
                told == counted,
                About::Rollout(rollout.id),
                "at {} the census says {told:?}, one by one it is {counted:?}",
                commit.at
            );
        }
        if let Some(printer) = commit.changes.iter().find_map(of_the_fleet) {
            let mut counted: HashMap<String, i64> = HashMap::new();
            for printer in state.printers.values() {
                *counted.entry(printer.version.clone()).or_default() += 1;
            }
            let (told, counted) = (without_zeros(&state.fleet), without_zeros(&counted));
            let about = About::Printer(printer.unwrap_or_default());
            ensure!(
                told == counted,
                about,
                "at {} the census says {told:?} of the fleet, it is {counted:?}",
                commit.at
            );
        }
        Ok(())
    })
}

/// Whether a change is about what all printers run, and if so, of which printer.
fn of_the_fleet(change: &Change) -> Option<Option<Uuid>> {
    match change {
        Change::Printer(_, new) => Some(new.as_ref().map(|row| row.id)),
        Change::Census(_, Some(Counted { rollout: None, .. })) => Some(None),
        _ => None,
    }
}

/// What the census calls it.
fn standing(update: &Update, rollout: &Rollout) -> &'static str {
    match (update.status.as_str(), update.open) {
        ("completed", true) => "completed",
        (_, true) => "open",
        ("completed", false) => "confirmed",
        ("declined", false) => "declined",
        _ if update.tries < rollout.max_attempts => "failed",
        _ => "used_up",
    }
}

fn without_zeros(counts: &HashMap<String, i64>) -> HashMap<&str, i64> {
    counts.iter().filter(|(_, n)| **n != 0).map(|(kind, n)| (kind.as_str(), *n)).collect()
}

pub fn adds_up(history: &History) -> Checked {
    for sample in &history.samples {
        let sum: i64 = sample.parts.iter().sum();
        ensure!(sum == sample.total, About::Rollout(sample.rollout), "REST told {sample:?}");
    }
    Ok(())
}

/// Whoever claims holds the rollout's row, so this is exact: no attempt begins, and none goes out again, of a rollout that
/// makes no offers at that commit.
pub fn claims_while_it_offers(history: &History) -> Checked {
    at_every_commit(history, |commit: &Commit, state: &State| {
        for change in &commit.changes {
            let Change::Update(old, Some(new)) = change else { continue };
            let sent = old.as_ref().is_none_or(|old| new.sends > old.sends);
            let Some(rollout) = new.rollout.and_then(|id| state.rollouts.get(&id)).filter(|_| sent) else {
                continue;
            };
            ensure!(
                rollout.offers(),
                About::Printer(new.printer),
                "claimed while {}: {new:?}",
                rollout.status
            );
        }
        Ok(())
    })
}

fn rank(update: &Update) -> u8 {
    match update.status.as_str() {
        "pending" => 0,
        "downloading" => 1,
        "completed" if update.open => 2,
        _ => 3,
    }
}

pub fn ranks(history: &History) -> Checked {
    for (at, change) in history.changes() {
        let Change::Update(Some(old), new) = change else { continue };
        let about = About::Printer(old.printer);
        let Some(new) = new else {
            ensure!(old.open && old.status == "pending", about, "gone at {at}, more than a claim: {old:?}");
            continue;
        };
        ensure!(rank(new) >= rank(old), about, "back at {at}: {old:?}, {new:?}");
        if !old.open {
            let late = old.status == "failed" && new.status == "completed" && !new.open;
            let settled = Update { last: old.last, ..new.clone() };
            ensure!(late || settled == *old, about, "closed, and changed at {at}: {old:?}, {new:?}");
        }
    }
    Ok(())
}

/// In the end every printer runs the version, by exactly one attempt, which went out once unless something was wrong.
pub fn arrived(history: &History, version: &str, printers: usize) -> Checked {
    let mut end = State::default();
    history.changes().for_each(|(_, change)| end.apply(change));
    ensure!(end.printers.len() == printers, About::Printer(Uuid::nil()), "{} printers", end.printers.len());
    for printer in end.printers.values() {
        let about = About::Printer(printer.id);
        ensure!(printer.version == version, about, "it runs {}", printer.version);
        let of = |update: &&Update| update.printer == printer.id && update.version == version;
        let (failed, others): (Vec<_>, Vec<_>) =
            end.updates.values().filter(of).partition(|update| update.status == "failed");
        // What a printer itself says did not work is tried again, however the server came to know.
        let own = |event: &&Event| event.printer == printer.name && event.what == What::Reports("failed");
        let failures = history.events.iter().filter(own).count();
        ensure!(failed.len() <= failures, about, "{failures} failures, and these attempts: {failed:?}");
        let [attempt] = others.as_slice() else {
            ensure!(false, about, "not one attempt: {others:?}");
            continue;
        };
        ensure!(attempt.status == "completed" && !attempt.open, about, "{attempt:?}");
        ensure!(attempt.sends == 1 || !history.faults.is_empty(), about, "sent more than once: {attempt:?}");
    }
    Ok(())
}
