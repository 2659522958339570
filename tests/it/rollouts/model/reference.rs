//! The slow count: every printer by itself, from its attempts, in plain words and without the census.

use std::collections::{BTreeMap, HashSet};

use paperminder_ota::rollouts::{Counters, Rollout};
use uuid::Uuid;

use super::rows::{PrinterRow, ReleaseRow, Rows, UpdateRow, version};

/// What only whoever acted can know.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Attempts that an operator forgave.
    pub forgiven: HashSet<Uuid>,
    /// Attempts whose offer reached its printer.
    pub written: HashSet<Uuid>,
}

impl Rows {
    /// The printer's attempts of a rollout that count, the newest first: not what was cancelled, and nothing from before
    /// a stepping stone that was taken or failures that were forgiven.
    pub fn streak<'a>(
        &'a self,
        memory: &'a Memory,
        rollout: Uuid,
        printer: Uuid,
    ) -> impl Iterator<Item = &'a UpdateRow> {
        let of = self
            .updates
            .iter()
            .rev()
            .filter(move |update| update.rollout_id == Some(rollout) && update.printer == printer);
        of.filter(|update| update.status != "cancelled").take_while(|update| {
            let taken = update.status == "completed" && !update.open;
            let forgiven = memory.forgiven.contains(&update.id) && update.status == "failed";
            !(forgiven || (taken && update.stone))
        })
    }

    /// How the rollout stands with the printer.
    pub fn last<'a>(&'a self, memory: &'a Memory, rollout: Uuid, printer: Uuid) -> Option<&'a UpdateRow> {
        self.streak(memory, rollout, printer).next()
    }
}

/// Whether the printer is in the target.
pub fn in_target(rollout: &Rollout, printer: &PrinterRow) -> bool {
    let target = &rollout.target;
    let runs = version(&printer.firmware_version);
    let named = match (&target.user_ids, &target.printer_ids) {
        _ if target.all => true,
        (None, None) => true,
        (users, printers) => {
            users.iter().flatten().any(|user| user.as_str() == printer.user_id)
                || printers.iter().flatten().any(|id| id.as_str() == printer.printer_id)
        }
    };
    named
        && target
            .channels
            .as_ref()
            .is_none_or(|channels| channels.iter().any(|channel| channel.as_str() == printer.update_channel))
        && target.min_version.as_ref().is_none_or(|least| *least <= runs)
        && target.max_version.as_ref().is_none_or(|most| runs <= *most)
        && target.installed_by.is_none_or(|by| printer.installed_rollout == Some(by.0))
        && target
            .previous_version
            .as_ref()
            .is_none_or(|before| printer.previous_version.as_deref().map(version) == Some(before.clone()))
}

fn stability(channel: &str) -> usize {
    ["stable", "beta", "canary"].iter().position(|name| *name == channel).unwrap()
}

/// Whether what the printer runs was withdrawn.
fn withdrawn(rows: &Rows, printer: &PrinterRow) -> bool {
    let cancelled =
        |rollout: Uuid| rows.states.get(&rollout).is_some_and(|(status, _)| status == "cancelled");
    if printer.installed_rollout.is_some_and(cancelled) {
        return true;
    }
    if let Some(release) = rows.releases.iter().find(|release| Some(release.id) == printer.installed_release)
    {
        return release.deprecated;
    }
    let mut same = rows.releases.iter().filter(|release| {
        release.version == printer.firmware_version && release.platform == printer.platform
    });
    let some = same.clone().next().is_some();
    some && same.all(|release| release.deprecated)
}

/// What the printer would get of the rollout, and whether that is a stepping stone; or why it gets nothing.
pub fn serves<'a>(
    rows: &'a Rows,
    rollout: &Rollout,
    printer: &PrinterRow,
) -> Result<(&'a ReleaseRow, bool), &'static str> {
    let runs = version(&printer.firmware_version);
    let stands = |release: &&ReleaseRow| release.platform == printer.platform && !release.deprecated;
    let goal = rows
        .releases
        .iter()
        .filter(stands)
        .filter(|release| version(&release.version) == rollout.version)
        .filter(|release| rollout.channel.is_none_or(|channel| channel.as_str() == release.channel))
        .min_by_key(|release| (release.channel != printer.update_channel, stability(&release.channel)))
        .ok_or("no_release_for_platform")?;
    if runs == rollout.version {
        return Err("runs_it");
    }
    if runs > rollout.version && !rollout.allow_downgrade && !withdrawn(rows, printer) {
        return Err("not_older");
    }
    if !printer.auto_update && !goal.mandatory {
        return Err("auto_update_off");
    }
    let takes = |release: &ReleaseRow| {
        release.min_upgrade_version.as_deref().is_none_or(|least| version(least) <= runs)
    };
    if takes(goal) {
        return Ok((goal, false));
    }
    let between = |release: &&ReleaseRow| {
        let it = version(&release.version);
        let calm = stability(&release.channel) <= stability(&printer.update_channel);
        it > runs
            && it < rollout.version
            && (calm || release.channel == goal.channel)
            && (printer.auto_update || release.mandatory || goal.mandatory)
    };
    rows.releases
        .iter()
        .filter(stands)
        .filter(between)
        .filter(|release| takes(release))
        .max_by_key(|release| (version(&release.version), std::cmp::Reverse(stability(&release.channel))))
        .map(|stone| (stone, true))
        .ok_or("below_min_upgrade_version")
}

/// Counts one by one.
pub fn counters(rows: &Rows, memory: &Memory, rollout: &Rollout) -> Counters {
    let mut counters = Counters { excluded: BTreeMap::new(), ..Counters::default() };
    for printer in &rows.printers {
        let can = || in_target(rollout, printer) && serves(rows, rollout, printer).is_ok();
        let Some(last) = rows.last(memory, rollout.id.0, printer.id) else {
            if in_target(rollout, printer) {
                match serves(rows, rollout, printer) {
                    Ok(_) => {
                        counters.pending += 1;
                        counters.total += 1;
                    }
                    Err(why) => *counters.excluded.entry(why.to_owned()).or_default() += 1,
                }
            }
            continue;
        };
        counters.total += 1;
        match last.status.as_str() {
            "pending" | "downloading" => {
                counters.pending += 1;
                counters.in_flight += 1;
            }
            "completed" => {
                counters.completed += 1;
                counters.confirmed += i64::from(!last.open);
            }
            "declined" => counters.declined += 1,
            "failed" if last.tries.unsigned_abs() < rollout.max_attempts && can() => counters.pending += 1,
            "failed" => counters.failed += 1,
            status => panic!("a last attempt is {status}"),
        }
    }
    counters
}
