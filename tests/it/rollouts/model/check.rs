//! What must hold after every step.

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use paperminder_ota::clock::Time;
use paperminder_ota::rollouts::{Rollout, Status};

use super::reference::{Memory, counters, in_target, serves};
use super::rows::{Rows, UpdateRow};

pub type Checked = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(super) use ensure;

/// Everything that one look at the tables can tell.
pub fn state(rows: &Rows, memory: &Memory, now: Time) -> Checked {
    ensure!(rows.census.is_empty(), "the census is wrong: {:#?}", rows.census);
    let mut open = HashSet::new();
    for update in rows.updates.iter().filter(|update| update.open) {
        ensure!(open.insert(update.printer), "two open updates of one printer: {update:?}");
    }
    for rollout in &rows.rollouts {
        counted(rows, memory, rollout)?;
        limited(rows, memory, rollout, now)?;
    }
    for update in rows.updates.iter().filter(|update| update.rollout_id.is_some()) {
        attempt(rows, memory, update)?;
    }
    Ok(())
}

fn counted(rows: &Rows, memory: &Memory, rollout: &Rollout) -> Checked {
    let told = &rows.counters[&rollout.id];
    let sum = told.completed + told.failed + told.declined + told.pending;
    ensure!(sum == told.total, "rollout {}: the counters do not add up: {told:?}", rollout.number);
    let slow = counters(rows, memory, rollout);
    ensure!(*told == slow, "rollout {} counts\n{told:?}, one by one\n{slow:?}", rollout.number);
    Ok(())
}

fn limited(rows: &Rows, memory: &Memory, rollout: &Rollout, now: Time) -> Checked {
    let number = rollout.number;
    let of = || rows.updates.iter().filter(|update| update.rollout_id == Some(rollout.id.0));
    let open = of().filter(|update| update.open).count();
    ensure!(
        rollout.max_in_flight.is_none_or(|most| open <= most as usize),
        "rollout {number}: {open} updates are open, max_in_flight {:?}",
        rollout.max_in_flight
    );
    let lasts: Vec<_> =
        rows.printers.iter().filter_map(|printer| rows.last(memory, rollout.id.0, printer.id)).collect();
    let is_confirmed = |update: &&&UpdateRow| update.status == "completed" && !update.open;
    if let Some(rate) = rollout.rate {
        let offered = of().filter(|update| update.started_at > now - TimeDelta::minutes(1)).count();
        let most = rate.after(i64::try_from(lasts.iter().filter(is_confirmed).count()).unwrap());
        ensure!(offered <= most as usize, "rollout {number}: {offered} offers within a minute, rate {most}");
    }
    if let Some(step) = rollout.current_step() {
        let here = || lasts.iter().filter(|update| update.stage == rollout.stage);
        let used = here().filter(|update| update.open || update.status == "failed").count();
        let proved = here().filter(is_confirmed).count();
        ensure!(
            used <= step.first as usize + proved,
            "rollout {number}: {used} unproved, {proved} proved, first {}",
            step.first
        );
    }
    Ok(())
}

/// The bookkeeping of one attempt.
fn attempt(rows: &Rows, memory: &Memory, update: &UpdateRow) -> Checked {
    let Some(rollout) = update.rollout_id else { return Ok(()) };
    let last = rows.last(memory, rollout, update.printer).map(|update| update.id) == Some(update.id);
    ensure!(update.last == last, "last should be {last}: {update:?}");
    let mut streak = rows.streak(memory, rollout, update.printer).skip_while(|other| other.id != update.id);
    if streak.next().is_some() {
        let tries = 1 + i32::try_from(streak.count()).unwrap();
        ensure!(update.tries == tries, "tries should be {tries}: {update:?}");
    }
    Ok(())
}

/// What may have become of the tables in one step; `fresh` says that no hint is on its way.
pub fn transition(before: &Rows, after: &Rows, memory: &Memory, fresh: bool) -> Checked {
    let old: HashMap<_, _> = before.updates.iter().map(|update| (update.id, update)).collect();
    let new: HashMap<_, _> = after.updates.iter().map(|update| (update.id, update)).collect();
    for update in &before.updates {
        match new.get(&update.id) {
            Some(now) => moved(update, now)?,
            None => ensure!(
                update.open && update.status == "pending" && !memory.written.contains(&update.id),
                "an attempt is gone that was more than a claim: {update:?}"
            ),
        }
    }
    for update in after.updates.iter().filter(|update| !old.contains_key(&update.id)) {
        offered(before, after, memory, update)?;
        if fresh {
            highest(before, after, memory, update)?;
        }
    }
    for (id, (was, epoch)) in &before.states {
        let Some((is, newer)) = after.states.get(id) else { return Err("a rollout is gone".into()) };
        ensure!(newer >= epoch, "an epoch went back");
        let may: &[&str] = match was.as_str() {
            "cancelled" => &["cancelled"],
            "pending" | "paused" => &["pending", "active", "completed", "paused", "cancelled"],
            "active" | "completed" => &["active", "completed", "paused", "cancelled"],
            other => panic!("a rollout is {other}"),
        };
        ensure!(may.contains(&is.as_str()), "a rollout went from {was} to {is}");
        let offers = |status: &str| matches!(status, "active" | "completed");
        ensure!(!offers(was) || offers(is) || newer > epoch, "{was} to {is} without a new epoch");
    }
    Ok(())
}

fn moved(old: &UpdateRow, new: &UpdateRow) -> Checked {
    let kept = |update: &UpdateRow| {
        let UpdateRow { printer, rollout_id, firmware_version_id, attempt, tries, stage, started_at, .. } =
            update;
        let (stone, from) = (update.stone, update.from_version.clone());
        (*printer, *rollout_id, *firmware_version_id, *attempt, *tries, *stage, *started_at, stone, from)
    };
    ensure!(kept(old) == kept(new), "an attempt became another one: {old:?}\n{new:?}");
    if !old.open {
        let settled = UpdateRow { last: old.last, ..new.clone() };
        let late =
            old.status == "failed" && new.status == "completed" && new.confirmed_at.is_some() && !new.open;
        ensure!(settled == *old || late, "a closed attempt changed: {old:?}\n{new:?}");
    }
    let rank = |update: &UpdateRow| match update.status.as_str() {
        "pending" => 0,
        "downloading" => 1,
        "completed" if update.open => 2,
        _ => 3,
    };
    ensure!(rank(new) >= rank(old), "an attempt went back: {old:?}\n{new:?}");
    ensure!(!new.open || old.open, "a closed attempt is open again: {old:?}\n{new:?}");
    Ok(())
}

/// A new attempt is one that the contract allows. Printers move in steps of their own, so what they ran before or after
/// this one is what was offered to.
fn offered(before: &Rows, after: &Rows, memory: &Memory, update: &UpdateRow) -> Checked {
    let printer = after.printer(update.printer);
    let release = after.releases.iter().find(|release| Some(release.id) == update.firmware_version_id);
    let Some(release) = release else { return Err(format!("an offer of nothing: {update:?}")) };
    ensure!(release.platform == printer.platform, "a foreign platform: {update:?}");
    ensure!(!release.deprecated, "a withdrawn release was offered: {update:?}");
    let Some(rollout) = update.rollout_id else { return Ok(()) };
    let Some(rollout) = after.rollouts.iter().find(|known| known.id.0 == rollout) else {
        return Err(format!("an offer of a deleted rollout: {update:?}"));
    };
    let number = rollout.number;
    let was = before.rollouts.iter().find(|known| known.id == rollout.id);
    let offers = |rollout: &Rollout| rollout.status.offers();
    ensure!(
        offers(rollout) || was.is_some_and(offers),
        "rollout {number} is {} and made an offer: {update:?}",
        rollout.status
    );
    ensure!(update.from_version == printer.firmware_version, "it runs another version: {update:?}");
    ensure!(in_target(rollout, printer), "not in the target of {number}: {printer:?}");
    match serves(after, rollout, printer) {
        Ok((wanted, stone)) => ensure!(
            (wanted.id, stone) == (release.id, update.stone),
            "rollout {number} should offer {wanted:?}, stone {stone}: {update:?}"
        ),
        Err(why) => return Err(format!("rollout {number} cannot serve it, {why}: {printer:?}")),
    }
    ensure!(printer.bucket < i16::from(rollout.percentage), "outside of the percentage: {update:?}");
    ensure!(update.tries.unsigned_abs() <= rollout.max_attempts, "its tries are used up: {update:?}");
    let past = before.last(memory, rollout.id.0, update.printer);
    ensure!(
        past.is_none_or(|past| past.status == "failed" || past.open),
        "it was served already: {past:?}, {update:?}"
    );
    if let Some(past) = past.filter(|past| !past.open) {
        ensure!(
            past.tries.unsigned_abs() < rollout.max_attempts,
            "its tries were used up: {past:?}, {update:?}"
        );
    }
    Ok(())
}

/// Of several rollouts that want a printer, the highest version wins.
fn highest(before: &Rows, after: &Rows, memory: &Memory, update: &UpdateRow) -> Checked {
    let printer = after.printer(update.printer);
    let Some(rollout) = after.rollouts.iter().find(|known| Some(known.id.0) == update.rollout_id) else {
        return Ok(());
    };
    let number = rollout.number;
    for other in
        after.rollouts.iter().filter(|other| other.version > rollout.version && other.id != rollout.id)
    {
        let known = before.rollouts.iter().any(|known| known.id == other.id && known.status.offers());
        let unlimited = !other.is_limited() && printer.bucket < i16::from(other.percentage);
        let fresh = after.last(memory, other.id.0, printer.id).is_none();
        let wants = in_target(other, printer) && serves(after, other, printer).is_ok() && fresh;
        ensure!(
            !(known && other.status.offers() && unlimited && wants),
            "{} wants it too, and is newer than {number}: {printer:?}",
            other.number
        );
    }
    Ok(())
}

/// Once the steward has looked at everything often enough, a rollout rests if nobody is pending.
pub fn rested(rows: &Rows) -> Checked {
    for rollout in &rows.rollouts {
        let counters = &rows.counters[&rollout.id];
        let rests = match rollout.status {
            Status::Active => counters.pending > 0 || counters.total == 0,
            Status::Completed => counters.pending == 0,
            Status::Pending | Status::Paused | Status::Cancelled => true,
        };
        ensure!(rests, "rollout {} is {}: {counters:?}", rollout.number, rollout.status);
    }
    Ok(())
}

/// Which frame may not leave: what narrowed its rollout was answered.
pub fn may_leave(closed: &HashSet<uuid::Uuid>, rows: &Rows, update: uuid::Uuid) -> Checked {
    let Some(update) = rows.updates.iter().find(|row| row.id == update) else {
        return Err(format!("an offer left that nobody claimed: {update}"));
    };
    let rollout = update.rollout_id;
    ensure!(
        rollout.is_none_or(|rollout| !closed.contains(&rollout)),
        "an offer left after the answer: {update:?}"
    );
    Ok(())
}
