//! What a rollout may be told beforehand: steps, an abort rule, limits. Parsed, bounded, and kept as JSON beside it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::words::vocabulary;

/// A length of time as people write it: `90s`, `30m`, `24h`, `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, example = "24h")]
pub struct Span(pub Duration);

/// The longest that anything about a rollout may take: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Span {
    /// Whole seconds.
    pub fn secs(self) -> i32 {
        i32::try_from(self.0.as_secs()).unwrap_or(i32::MAX)
    }

    /// So many seconds.
    pub fn of_secs(secs: i32) -> Self {
        Self(Duration::from_secs(u64::from(secs.unsigned_abs())))
    }

    /// As a difference of times.
    pub fn delta(self) -> chrono::TimeDelta {
        chrono::TimeDelta::from_std(self.0).unwrap_or(chrono::TimeDelta::MAX)
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is no length of time; write it like 30m, 24h or 2d"))?;
        if parsed > LONGEST { Err(format!("`{text}` is above a year")) } else { Ok(Self(parsed)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One step of a rollout: how far it goes, how long it rests there, and what must hold before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Printers whose bucket is below it are in, 1 to 100.
    pub percentage: u8,
    /// How long the step lasts at least, like `24h`; nothing unless given.
    #[serde(default = "Step::no_soak")]
    pub soak: Span,
    /// Share of the step's offers that must be confirmed before the next step, in percent; unless given, what the
    /// failure threshold leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<u8>,
    /// Failed and silent printers beyond this share, in percent, pause the rollout; 5 unless given.
    #[serde(default = "Step::default_failures")]
    pub failure_threshold: u8,
    /// Outcomes that must be known before a share means anything; 20 unless given.
    #[serde(default = "Step::default_sample")]
    pub min_sample: u32,
    /// Printers that the step begins with; with each one that proves itself another two may follow. 20 unless given.
    #[serde(default = "Step::default_first")]
    pub first: u32,
}

impl Step {
    fn no_soak() -> Span {
        Span(Duration::ZERO)
    }

    fn default_failures() -> u8 {
        5
    }

    fn default_sample() -> u32 {
        20
    }

    fn default_first() -> u32 {
        20
    }

    /// Share that must be confirmed, in percent.
    pub fn success(&self) -> u8 {
        self.success_threshold.unwrap_or(100 - self.failure_threshold.min(100))
    }
}

vocabulary!(
    /// What an abort rule does.
    AbortAction {
        /// No new offers until somebody looked at it.
        #[default]
        Pause = "pause",
        /// Never again.
        Cancel = "cancel",
        /// Cancel, and bring back the printers that took it.
        Rollback = "rollback",
    }
);

/// When a rollout gives up by itself, whatever its steps say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortRule {
    /// Failed and silent printers beyond this share, in percent.
    pub failure_rate: u8,
    /// Outcomes that must be known before a share means anything; 20 unless given.
    #[serde(default = "Step::default_sample")]
    pub min_sample: u32,
    /// What to do then.
    #[serde(default)]
    pub action: AbortAction,
    /// Version to go back to; unless given, the one that each printer had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_version: Option<String>,
}

/// Offers within any minute: constant, or growing with successes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// What it begins with.
    pub base: u32,
    /// Multiplied by this…
    #[serde(default = "Rate::once")]
    pub factor: u32,
    /// …with each so many confirmed printers; 0: never.
    #[serde(default)]
    pub per_confirmed: u32,
    /// Never above this.
    #[serde(default = "Rate::unbounded")]
    pub max: u32,
}

impl Rate {
    fn once() -> u32 {
        1
    }

    fn unbounded() -> u32 {
        1_000_000
    }

    /// A rate that never changes.
    pub fn constant(base: u32) -> Self {
        Self { base, factor: 1, per_confirmed: 0, max: Self::unbounded() }
    }

    /// Offers a minute once so many printers are confirmed.
    pub fn after(self, confirmed: i64) -> u32 {
        let rises = confirmed.max(0).checked_div(i64::from(self.per_confirmed)).unwrap_or(0);
        let rises = u32::try_from(rises.min(32)).unwrap_or(32);
        let grown = u64::from(self.base).saturating_mul(u64::from(self.factor).saturating_pow(rises));
        u32::try_from(grown).unwrap_or(u32::MAX).min(self.max)
    }
}

vocabulary!(
    /// Steps that have proved themselves, by name. docs/guide.md has the numbers.
    Template {
        /// A handful first, then days.
        #[default]
        Canary = "canary",
        /// Over a working day.
        Careful = "careful",
        /// Within two hours.
        Fast = "fast",
    }
);

vocabulary!(
    /// What `ends_at` means.
    OnEnd {
        /// No new offers; what is under way goes on.
        #[default]
        Stop = "stop",
        /// Final.
        Cancel = "cancel",
    }
);

vocabulary!(
    /// Whether a second person has to agree, and what they said.
    Approval {
        /// Nobody has to.
        #[default]
        NotRequired = "not_required",
        /// Nobody has yet.
        Waiting = "waiting",
        /// Somebody did.
        Approved = "approved",
        /// Somebody would not.
        Denied = "denied",
    }
);

const HOUR: Duration = Duration::from_secs(3600);

impl Template {
    /// Its steps.
    pub fn steps(self) -> Vec<Step> {
        let (failure_threshold, min_sample, first, steps): (_, _, _, &[(u8, Duration)]) = match self {
            Self::Canary => {
                (2, 10, 10, &[(1, HOUR * 24), (10, HOUR * 24), (50, HOUR * 24), (100, Duration::ZERO)])
            }
            Self::Careful => {
                (3, 30, 50, &[(5, HOUR * 2), (20, HOUR * 4), (50, HOUR * 4), (100, Duration::ZERO)])
            }
            Self::Fast => (3, 100, 200, &[(10, HOUR / 6), (50, HOUR / 6), (100, Duration::ZERO)]),
        };
        let step = |(percentage, soak): &(u8, Duration)| Step {
            percentage: *percentage,
            soak: Span(*soak),
            success_threshold: None,
            failure_threshold,
            min_sample,
            first,
        };
        steps.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_do() {
        assert_eq!("24h".parse(), Ok(Span(HOUR * 24)));
        assert_eq!("1h 30m".parse(), Ok(Span(HOUR + HOUR / 2)));
        assert_eq!(Span(HOUR * 24).to_string(), "1day");
        assert!("soon".parse::<Span>().unwrap_err().contains("30m, 24h or 2d"));
        assert!("400d".parse::<Span>().unwrap_err().contains("above a year"));
    }

    #[test]
    fn a_rate_grows_with_successes_up_to_its_bound() {
        let rate = Rate { base: 10, factor: 2, per_confirmed: 100, max: 50 };
        assert_eq!([0, 99, 100, 200, 300, 100_000].map(|n| rate.after(n)), [10, 10, 20, 40, 50, 50]);
        assert_eq!(Rate::constant(7).after(1_000_000), 7);
    }

    #[test]
    fn every_template_rises_to_everyone() {
        for template in Template::ALL {
            let steps = template.steps();
            assert!(steps.is_sorted_by_key(|step| step.percentage), "{template}");
            assert_eq!(steps.last().map(|step| step.percentage), Some(100));
            assert!(
                steps.iter().all(|step| step.min_sample <= step.first),
                "all of a first batch must be enough to judge"
            );
        }
    }
}
