//! From what was generated to a request that the server takes.

use chrono::TimeDelta;
use paperminder_ota::clock::Time;
use paperminder_ota::rollouts::plan::{AbortRule, OnEnd, Rate, Span, Step};
use paperminder_ota::rollouts::{RolloutType, Target, Wanted};

use super::operations::{RolloutSpec, Spread, TargetSpec};
use super::rows::version;

/// Silence that weighs against a rollout of the model, in seconds.
const CONFIRM_WITHIN: i32 = 600;

impl TargetSpec {
    fn target(&self) -> Target {
        let list = |list: &Option<Vec<u8>>, of: &str| -> Option<Vec<String>> {
            list.as_ref().map(|list| list.iter().map(|index| format!("{of}-{index}")).collect())
        };
        let users = list(&self.users, "user");
        let printers = list(&self.printers, "printer");
        let target = Target {
            all: self.all,
            user_ids: users.map(|users| users.iter().map(|user| user.parse().unwrap()).collect()),
            printer_ids: printers.map(|printers| printers.iter().map(|id| id.parse().unwrap()).collect()),
            channels: self.channels.clone(),
            min_version: self.min.map(version),
            max_version: self.max.map(version),
            ..Target::default()
        };
        if target.names_something() { target } else { Target { all: true, ..target } }
    }
}

impl RolloutSpec {
    /// The request.
    pub fn wanted(&self, now: Time) -> Wanted {
        let seconds = |seconds: u64| now + TimeDelta::seconds(i64::try_from(seconds).unwrap());
        let step = |percentage, first, failure_threshold| Step {
            percentage,
            soak: Span::of_secs(if percentage < 50 { 60 } else { 0 }),
            success_threshold: Some(50),
            failure_threshold,
            min_sample: 2,
            first,
        };
        let steps = match self.spread {
            Spread::Steps(first, fails) => {
                Some([40, 70, 100].map(|percent| step(percent, first, fails)).to_vec())
            }
            _ => None,
        };
        let ends_at = self.ends_in.map(seconds);
        let scheduled_for = match self.spread {
            Spread::Scheduled(after) => Some(seconds(after)),
            _ => None,
        };
        Wanted {
            own_keys_only: false,
            version: version(self.version),
            channel: self.channel,
            target: self.target.target(),
            installed_by: None,
            rollout_type: match self.spread {
                Spread::Immediate => RolloutType::Immediate,
                Spread::Gradual(_) | Spread::Steps(..) => RolloutType::Gradual,
                Spread::Scheduled(_) => RolloutType::Scheduled,
            },
            percentage: match self.spread {
                Spread::Gradual(percentage) => Some(percentage),
                _ => None,
            },
            scheduled_for,
            start: true,
            allow_downgrade: self.allow_downgrade,
            template: None,
            steps,
            abort_on: self.abort_on.map(|action| AbortRule {
                failure_rate: 50,
                min_sample: 2,
                action,
                to_version: None,
            }),
            confirm_within: Some(Span::of_secs(CONFIRM_WITHIN)),
            stuck_after: None,
            max_attempts: Some(self.max_attempts),
            max_in_flight: self.max_in_flight,
            rate: self.rate.map(|base| Rate { base, factor: 2, per_confirmed: 3, max: 6 }),
            ends_at,
            on_end: if ends_at.is_some() && self.allow_downgrade { OnEnd::Cancel } else { OnEnd::Stop },
            requires_approval: false,
            windows: None,
        }
    }
}
