//! The rows as they stood after each commit.

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::history::{Change, Commit, Counted, History, PrinterRow, Rollout, Update};
use super::rules::Checked;

/// The tables at one moment.
#[derive(Default)]
pub struct State {
    pub updates: HashMap<Uuid, Update>,
    pub rollouts: HashMap<Uuid, Rollout>,
    pub printers: HashMap<Uuid, PrinterRow>,
    /// Open updates of each printer.
    pub open: HashMap<Uuid, BTreeSet<Uuid>>,
    /// All updates of each rollout.
    pub of: HashMap<Uuid, BTreeSet<Uuid>>,
    /// What the census says of each rollout, by state.
    pub census: HashMap<Uuid, HashMap<String, i64>>,
    /// What it says of all printers, by version.
    pub fleet: HashMap<String, i64>,
}

impl State {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Update(old, new) => {
                if let Some(old) = old {
                    self.updates.remove(&old.id);
                    self.open.entry(old.printer).or_default().remove(&old.id);
                }
                if let Some(new) = new {
                    if new.open {
                        self.open.entry(new.printer).or_default().insert(new.id);
                    }
                    if let Some(rollout) = new.rollout {
                        self.of.entry(rollout).or_default().insert(new.id);
                    }
                    self.updates.insert(new.id, new.clone());
                } else if let Some((old, rollout)) = old.as_ref().and_then(|old| Some((old, old.rollout?))) {
                    self.of.entry(rollout).or_default().remove(&old.id);
                }
            }
            Change::Rollout(_, Some(new)) => drop(self.rollouts.insert(new.id, new.clone())),
            Change::Printer(_, Some(new)) => drop(self.printers.insert(new.id, new.clone())),
            Change::Rollout(..) | Change::Printer(..) => {}
            Change::Census(old, new) => {
                old.iter().for_each(|old| self.count(old, -old.n));
                new.iter().for_each(|new| self.count(new, new.n));
            }
        }
    }

    fn count(&mut self, kind: &Counted, n: i64) {
        let counts = match (kind.rollout, &kind.state) {
            (Some(rollout), Some(state)) => {
                self.census.entry(rollout).or_default().entry(state.clone()).or_default()
            }
            _ => self.fleet.entry(kind.version.clone()).or_default(),
        };
        *counts += n;
    }

    /// Updates of a rollout.
    pub fn attempts(&self, rollout: Uuid) -> impl Iterator<Item = &Update> {
        self.of.get(&rollout).into_iter().flatten().filter_map(|id| self.updates.get(id))
    }
}

/// Calls with every commit and the tables as they are after it.
pub fn at_every_commit(history: &History, mut holds: impl FnMut(&Commit, &State) -> Checked) -> Checked {
    let mut state = State::default();
    for commit in &history.commits {
        commit.changes.iter().for_each(|change| state.apply(change));
        holds(commit, &state)?;
    }
    Ok(())
}

/// The rollouts that a commit has to do with.
pub fn touched(commit: &Commit) -> HashSet<Uuid> {
    let of = |change: &Change| match change {
        Change::Update(old, new) => [old, new].into_iter().flatten().find_map(|update| update.rollout),
        Change::Rollout(old, new) => [old, new].into_iter().flatten().map(|rollout| rollout.id).next(),
        Change::Census(old, new) => [old, new].into_iter().flatten().find_map(|counted| counted.rollout),
        Change::Printer(..) => None,
    };
    commit.changes.iter().filter_map(of).collect()
}
