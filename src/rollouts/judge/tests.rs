//! How a rollout goes on by itself, in words of the domain.

use super::*;
use crate::rollouts::Status;
use crate::rollouts::plan::{AbortRule, Template};
use crate::rollouts::samples::{now, rollout};
use chrono::TimeDelta;

fn canary() -> Rollout {
    Rollout { steps: Some(Template::Canary.steps()), percentage: 1, ..rollout("1.5.0") }
}

fn standing(confirmed: i64, failed: i64, unproved: i64, silent: i64) -> Standing {
    Standing { confirmed, failed, unproved, silent }
}

/// Judged `hours` after the step began.
fn step(stage: Standing, hours: i64) -> Verdict {
    judge(&canary(), &stage, &stage, false, now() + TimeDelta::hours(hours))
}

fn pauses(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Stop(AbortAction::Pause, StatusReason::Failures, _))
}

fn waits(verdict: &Verdict, words: &str) -> bool {
    matches!(verdict, Verdict::Stay(Some(why)) if why.contains(words))
}

#[test]
fn a_step_advances_when_its_soak_is_over_and_its_printers_proved_themselves() {
    let good = standing(100, 0, 0, 0);
    assert!(waits(&step(good, 23), "soaks until"));
    assert_eq!(step(good, 24), Verdict::Advance);
}

#[test]
fn a_step_waits_for_enough_outcomes_unless_there_can_be_no_more() {
    let few = standing(9, 0, 0, 0);
    assert!(waits(&step(few, 24), "9 of at least 10"));
    assert_eq!(judge(&canary(), &few, &few, true, now() + TimeDelta::hours(24)), Verdict::Advance);
}

#[test]
fn a_step_never_advances_over_printers_that_have_not_proved_themselves() {
    assert!(waits(&step(standing(97, 0, 3, 0), 24), "97 of 100"));
    assert_eq!(step(standing(98, 0, 2, 0), 24), Verdict::Advance);
}

#[test]
fn silence_weighs_like_failure() {
    assert!(!pauses(&step(standing(98, 0, 2, 2), 1)), "2 % is what is allowed");
    assert!(pauses(&step(standing(97, 0, 3, 3), 1)));
    assert!(pauses(&step(standing(97, 1, 2, 2), 1)));
    assert!(pauses(&step(standing(0, 0, 10, 10), 1)), "all of the first few went silent");
    let Verdict::Stop(.., why) = step(standing(0, 1, 9, 9), 1) else { panic!("must stop") };
    assert!(why.contains("10 of 10 printers failed, 9 of them by their silence"), "{why}");
}

#[test]
fn one_failure_among_few_does_not_pause_before_the_sample_could_tell() {
    let one = Step { min_sample: 100, failure_threshold: 2, ..Template::Canary.steps()[0] };
    let rollout = Rollout { steps: Some(vec![one, one]), ..canary() };
    let verdict = |stage| judge(&rollout, &stage, &stage, false, now());
    assert!(!pauses(&verdict(standing(3, 2, 0, 0))), "98 more may go well");
    assert!(pauses(&verdict(standing(3, 3, 0, 0))), "however the others end");
}

#[test]
fn the_last_step_stays_but_is_still_judged() {
    let last = Rollout { step: 3, ..canary() };
    let verdict = |stage| judge(&last, &stage, &stage, true, now() + TimeDelta::days(9));
    assert_eq!(verdict(standing(100, 0, 0, 0)), Verdict::Stay(None));
    assert!(pauses(&verdict(standing(80, 20, 0, 0))));
}

#[test]
fn an_abort_rule_works_without_steps_and_looks_at_all_stages() {
    let abort_on = |action| AbortRule { failure_rate: 10, min_sample: 20, action, to_version: None };
    for action in AbortAction::ALL {
        let rollout = Rollout { abort_on: Some(abort_on(*action)), ..rollout("1.5.0") };
        let verdict = |all| judge(&rollout, &Standing::default(), &all, false, now());
        assert_eq!(verdict(standing(18, 2, 0, 0)), Verdict::Stay(None));
        assert!(
            matches!(verdict(standing(17, 2, 1, 1)), Verdict::Stop(found, StatusReason::Failures, _) if found == *action)
        );
    }
}

#[test]
fn the_end_comes_whatever_else_holds() {
    for (on_end, action) in [(OnEnd::Stop, AbortAction::Pause), (OnEnd::Cancel, AbortAction::Cancel)] {
        let rollout = Rollout { ends_at: Some(now()), on_end, ..canary() };
        let verdict = |at| judge(&rollout, &Standing::default(), &Standing::default(), false, at);
        assert!(matches!(verdict(now()), Verdict::Stop(found, StatusReason::Ended, _) if found == action));
        assert!(matches!(verdict(now() - TimeDelta::seconds(1)), Verdict::Stay(_)));
    }
}

#[test]
fn what_makes_no_offers_is_left_alone() {
    for status in [Status::Pending, Status::Paused, Status::Cancelled] {
        let rollout = Rollout { status, ends_at: Some(now()), ..canary() };
        assert_eq!(
            judge(&rollout, &Standing::default(), &Standing::default(), true, now()),
            Verdict::Stay(None)
        );
    }
}
