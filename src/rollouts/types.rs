//! What a rollout is, and which way its state may go. No I/O.

use super::Target;
use super::judge::StatusReason;
use super::plan::{AbortRule, Approval, OnEnd, Rate, Span, Step, Template};
use crate::auth::Scope;
use crate::clock::Time;
use crate::ids::{FirmwareId, RolloutId};
use crate::version::Version;
use crate::windows::Windows;
use crate::words::{Channel, vocabulary};

vocabulary!(
    /// How a rollout starts and spreads.
    RolloutType {
        /// Everyone in the target, at once.
        #[default]
        Immediate = "immediate",
        /// A percentage of the target, raised by hand.
        Gradual = "gradual",
        /// Everyone in the target, from a moment on.
        Scheduled = "scheduled",
    }
);

vocabulary!(
    /// Where a rollout stands.
    #[schema(as = RolloutStatus)]
    Status {
        /// Not started.
        #[default]
        Pending = "pending",
        /// Making offers.
        Active = "active",
        /// Held.
        Paused = "paused",
        /// Nobody is pending. A resting state: a printer that matches later is still served.
        Completed = "completed",
        /// Final.
        Cancelled = "cancelled",
    }
);

impl Status {
    /// Whether offers may be made in this state.
    pub fn offers(self) -> bool {
        matches!(self, Self::Active | Self::Completed)
    }

    /// The state after an operator asked for `wanted`, or why that cannot be. `due` says whether a scheduled moment
    /// has come or there is none.
    pub fn on_request(self, wanted: Self, due: bool) -> Result<Self, String> {
        match (self, wanted) {
            (Self::Cancelled, Self::Cancelled) => Ok(Self::Cancelled),
            (Self::Cancelled, _) => {
                Err("it was cancelled, and that is final; create a new rollout instead".into())
            }
            (_, Self::Pending | Self::Completed) => {
                Err(format!("`{wanted}` cannot be asked for; use active, paused or cancelled"))
            }
            (Self::Completed, Self::Active) => Ok(Self::Completed),
            // Whoever resumes a schedule that was held before its time wants the schedule, not a start in the night.
            (Self::Paused, Self::Active) if !due => Ok(Self::Pending),
            (_, wanted) => Ok(wanted),
        }
    }
}

/// A rollout as it stands.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Row.
    pub id: RolloutId,
    /// The number that people type.
    pub number: i64,
    /// The release it names; none once that was deleted.
    pub firmware: Option<FirmwareId>,
    /// The version that printers are to run.
    pub version: Version,
    /// Only releases of this channel, else the printer's own.
    pub channel: Option<Channel>,
    /// Whom.
    pub target: Target,
    /// How it starts and spreads.
    pub rollout_type: RolloutType,
    /// Buckets below it are in, 0 to 100.
    pub percentage: u8,
    /// When it starts by itself.
    pub scheduled_for: Option<Time>,
    /// Tries a printer.
    pub max_attempts: u32,
    /// Where it stands.
    pub status: Status,
    /// Raised by every narrowing.
    pub epoch: i64,
    /// Raised by every change of an operator.
    pub revision: i64,
    /// When it was created.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// When it first became active.
    pub started_at: Option<Time>,
    /// Whether printers that run a newer version are taken down to this one.
    pub allow_downgrade: bool,
    /// Where the steps came from.
    pub template: Option<Template>,
    /// The steps; none: the percentage is moved by hand.
    pub steps: Option<Vec<Step>>,
    /// Index of the current step.
    pub step: usize,
    /// Raised with every step and every resume: what is judged together.
    pub stage: i32,
    /// When the stage began.
    pub stage_started_at: Option<Time>,
    /// The first stage that the abort rule looks at.
    pub judged_from: i32,
    /// When it gives up by itself.
    pub abort_on: Option<AbortRule>,
    /// Silence after which an open update weighs against the release.
    pub confirm_within: Span,
    /// Silence after which an open update fails; none: as the server is configured.
    pub stuck_after: Option<Span>,
    /// Most updates that may be open at once.
    pub max_in_flight: Option<u32>,
    /// Most offers within any minute.
    pub rate: Option<Rate>,
    /// When it ends by itself.
    pub ends_at: Option<Time>,
    /// What that means.
    pub on_end: OnEnd,
    /// Why it is paused or cancelled.
    pub reason: Option<StatusReason>,
    /// The same as a sentence.
    pub detail: Option<String>,
    /// Whether a second person has to agree, and what they said.
    pub approval: Approval,
    /// Their words.
    pub approval_comment: Option<String>,
    /// When they said so.
    pub approval_at: Option<Time>,
    /// The rollout that this one undoes.
    pub rolls_back: Option<RolloutId>,
    /// Maintenance windows.
    pub windows: Option<Windows>,
    /// What it can reach at most: a caller sees a rollout that reaches no further than their scope.
    pub reach: Scope,
    /// Whether its thresholds count only printers with a key of their own.
    pub own_keys_only: bool,
    /// Who made it, where that is known.
    pub created_by: Option<String>,
    /// The same for ever.
    pub creator: Option<String>,
}

impl Rollout {
    /// The step it is in.
    pub fn current_step(&self) -> Option<&Step> {
        self.steps.as_ref()?.get(self.step)
    }

    /// Whether no step follows.
    pub fn is_last_step(&self) -> bool {
        self.steps.as_ref().is_none_or(|steps| self.step + 1 >= steps.len())
    }

    /// Whether something about it bounds how many offers may be made now.
    pub fn is_limited(&self) -> bool {
        self.max_in_flight.is_some() || self.rate.is_some() || self.steps.is_some()
    }

    /// Begins a new stage: what was offered before is judged no more.
    pub fn begin_stage(&mut self, now: Time) {
        self.stage += 1;
        self.stage_started_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_is_final() {
        for wanted in [Status::Active, Status::Paused] {
            assert!(Status::Cancelled.on_request(wanted, true).unwrap_err().contains("final"));
        }
        assert_eq!(Status::Cancelled.on_request(Status::Cancelled, true), Ok(Status::Cancelled));
    }

    #[test]
    fn everything_else_can_be_paused_resumed_and_cancelled() {
        for status in [Status::Pending, Status::Active, Status::Paused, Status::Completed] {
            assert_eq!(status.on_request(Status::Cancelled, true), Ok(Status::Cancelled));
            assert_eq!(status.on_request(Status::Paused, true), Ok(Status::Paused));
        }
        assert_eq!(Status::Pending.on_request(Status::Active, false), Ok(Status::Active));
        assert_eq!(Status::Completed.on_request(Status::Active, true), Ok(Status::Completed));
    }

    #[test]
    fn resuming_before_the_scheduled_moment_waits_for_it() {
        assert_eq!(Status::Paused.on_request(Status::Active, false), Ok(Status::Pending));
        assert_eq!(Status::Paused.on_request(Status::Active, true), Ok(Status::Active));
    }

    #[test]
    fn nobody_asks_for_pending_or_completed() {
        for wanted in [Status::Pending, Status::Completed] {
            assert!(Status::Active.on_request(wanted, true).is_err());
        }
    }
}
