//! How a rollout goes on by itself: a pure function of the rollout, how its offers stand, and now.
//!
//! A bricked printer reports nothing, so silence counts: an offer that nothing was heard of for `confirm_within` weighs
//! as a failure at once, long before it is given up. Only a printer that came back on the new version is a success.

use super::Rollout;
use super::plan::{AbortAction, OnEnd, Step};
use crate::clock::Time;
use crate::words::vocabulary;

vocabulary!(
    /// Why a rollout is paused or cancelled.
    StatusReason {
        /// An operator said so.
        #[default]
        Operator = "operator",
        /// Too many printers failed or went silent.
        Failures = "failures",
        /// Its time was over.
        Ended = "ended",
        /// It was undone.
        RolledBack = "rolled_back",
        /// A second person did not agree.
        Denied = "denied",
    }
);

/// How the printers of some stages stand, each by its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Offered, and neither proved nor failed; what a printer only reports is not proved.
    pub unproved: i64,
    /// Of these, those that were not heard of for too long.
    pub silent: i64,
    /// Came back on the new version.
    pub confirmed: i64,
    /// Failed, whether they are tried again or not.
    pub failed: i64,
}

impl Standing {
    /// Whether failures are beyond so many percent, even if all that is missing of the sample went well.
    fn fails(&self, percent: u8, min_sample: u32) -> bool {
        let bad = self.failed + self.silent;
        let known = (self.confirmed + bad).max(i64::from(min_sample)).max(1);
        bad > 0 && bad * 100 > i64::from(percent) * known
    }

    /// "12 of 40 failed, 3 of them by their silence".
    fn words(&self) -> String {
        let bad = self.failed + self.silent;
        let silent = match self.silent {
            0 => String::new(),
            silent => format!(", {silent} of them by their silence"),
        };
        format!("{bad} of {} printers failed{silent}", self.confirmed + bad)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing now. Says what a step is waiting for.
    Stay(Option<String>),
    /// The next step.
    Advance,
    /// Pause, cancel, or cancel and bring the printers back.
    Stop(AbortAction, StatusReason, String),
}

/// Judges an active rollout. `stage` is how the current stage stands, `all` everything since somebody last looked;
/// `exhausted` says that the step has offered the release to every printer that it can reach.
pub fn judge(rollout: &Rollout, stage: &Standing, all: &Standing, exhausted: bool, now: Time) -> Verdict {
    if !rollout.status.offers() {
        return Verdict::Stay(None);
    }
    if rollout.ends_at.is_some_and(|at| at <= now) {
        let action = match rollout.on_end {
            OnEnd::Stop => AbortAction::Pause,
            OnEnd::Cancel => AbortAction::Cancel,
        };
        return Verdict::Stop(action, StatusReason::Ended, "Its time is over (ends_at).".into());
    }
    if let Some(rule) = &rollout.abort_on
        && all.fails(rule.failure_rate, rule.min_sample)
    {
        let why = format!("{}, above the {} % of abort_on.", all.words(), rule.failure_rate);
        return Verdict::Stop(rule.action, StatusReason::Failures, why);
    }
    let Some(step) = rollout.current_step() else { return Verdict::Stay(None) };
    if stage.fails(step.failure_threshold, step.min_sample) {
        let why = format!(
            "{} in step {} ({} %), above its failure_threshold of {} %.",
            stage.words(),
            rollout.step + 1,
            step.percentage,
            step.failure_threshold
        );
        return Verdict::Stop(AbortAction::Pause, StatusReason::Failures, why);
    }
    if rollout.is_last_step() {
        return Verdict::Stay(None);
    }
    waits(rollout, step, stage, exhausted, now).map_or(Verdict::Advance, |why| Verdict::Stay(Some(why)))
}

/// What the step is waiting for; nothing when the next one may begin.
fn waits(rollout: &Rollout, step: &Step, stage: &Standing, exhausted: bool, now: Time) -> Option<String> {
    let began = rollout.stage_started_at.unwrap_or(now);
    let over = began + step.soak.delta();
    if now < over {
        return Some(format!("It soaks until {}.", over.format("%Y-%m-%d %H:%M UTC")));
    }
    let known = stage.confirmed + stage.failed + stage.silent;
    if known < i64::from(step.min_sample) && !exhausted {
        return Some(format!("{known} of at least {} outcomes are known.", step.min_sample));
    }
    let offered = stage.confirmed + stage.failed + stage.unproved;
    if stage.confirmed * 100 < i64::from(step.success()) * offered {
        return Some(format!(
            "{} of {offered} offered printers have proved themselves; {} % must have.",
            stage.confirmed,
            step.success()
        ));
    }
    None
}

#[cfg(test)]
mod tests;
