//! Sums of outcomes, and what follows from them. No I/O.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::updates::Status;

/// Each class of durations ends a tenth after it begins; see `duration_class` in the migrations.
const GROWTH: f64 = 1.1;

/// How attempts ended, and how long those took that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(example = json!({"completed": 970, "failed": 30, "declined": 12, "cancelled": 3, "success_rate": 0.97,
    "duration_p50_seconds": 74.2, "duration_p95_seconds": 201.7}))]
pub struct Outcomes {
    /// Proved by the printer's return on the new version.
    pub completed: i64,
    pub failed: i64,
    pub declined: i64,
    pub cancelled: i64,
    /// completed / (completed + failed); null when there are none.
    pub success_rate: Option<f64>,
    /// From offer to proof, half of the completed were faster; within 5 %.
    pub duration_p50_seconds: Option<f64>,
    /// 95 % of them were faster; within 5 %.
    pub duration_p95_seconds: Option<f64>,
}

/// Gathers [`Outcomes`].
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<&'static str, i64>,
    classes: BTreeMap<i16, i64>,
}

impl Tally {
    pub fn add(&mut self, outcome: Status, class: Option<i16>, count: i64) {
        *self.counts.entry(outcome.as_str()).or_default() += count;
        if let Some(class) = class.filter(|class| *class >= 0) {
            *self.classes.entry(class).or_default() += count;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(outcome, count)| *self.counts.entry(outcome).or_default() += count);
        other.classes.iter().for_each(|(class, count)| *self.classes.entry(*class).or_default() += count);
    }

    pub fn outcomes(&self) -> Outcomes {
        // A failure whose release is gone and that was proved wrong later is taken back under `unknown`.
        let count = |status: Status| self.counts.get(status.as_str()).copied().unwrap_or_default().max(0);
        let (completed, failed) = (count(Status::Completed), count(Status::Failed));
        let ended = completed + failed;
        Outcomes {
            completed,
            failed,
            declined: count(Status::Declined),
            cancelled: count(Status::Cancelled),
            success_rate: (ended > 0).then(|| round(completed as f64 / ended as f64, 4)),
            duration_p50_seconds: self.percentile(0.50),
            duration_p95_seconds: self.percentile(0.95),
        }
    }

    /// The geometric middle of the class in which that part of all durations ends.
    fn percentile(&self, part: f64) -> Option<f64> {
        let all: i64 = self.classes.values().filter(|count| **count > 0).sum();
        let wanted = (all as f64 * part).ceil().max(1.0) as i64;
        let mut below = 0;
        for (class, count) in self.classes.iter().filter(|(_, count)| **count > 0) {
            below += count;
            if below >= wanted {
                return Some(round(GROWTH.powf(f64::from(*class) + 0.5) / 1000.0, 3));
            }
        }
        None
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(seconds: f64) -> i16 {
        ((seconds * 1000.0).max(1.0).ln() / GROWTH.ln()).floor() as i16
    }

    #[test]
    fn percentiles_are_within_five_percent() {
        let mut tally = Tally::default();
        let durations: Vec<f64> = (1..=2000).map(|n| f64::from(n) * 0.37).collect();
        for seconds in &durations {
            tally.add(Status::Completed, Some(class(*seconds)), 1);
        }
        let outcomes = tally.outcomes();
        for (said, exact) in [
            (outcomes.duration_p50_seconds, durations[999]),
            (outcomes.duration_p95_seconds, durations[1899]),
        ] {
            let error = (said.unwrap() / exact - 1.0).abs();
            assert!(error < 0.05, "{said:?} instead of {exact}");
        }
    }

    #[test]
    fn rates_leave_out_what_never_ran() {
        let mut tally = Tally::default();
        assert_eq!(tally.outcomes(), Outcomes::default());
        tally.add(Status::Completed, Some(100), 3);
        tally.add(Status::Failed, Some(-1), 2);
        tally.add(Status::Failed, Some(-1), -1);
        tally.add(Status::Declined, Some(-1), 7);
        let outcomes = tally.outcomes();
        assert_eq!((outcomes.failed, outcomes.declined, outcomes.success_rate), (1, 7, Some(0.75)));
    }
}
