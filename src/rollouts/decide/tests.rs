//! The decision in words of the domain, and properties that hold for every printer.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::ids::FirmwareId;
use crate::printers::Installed;
use crate::rollouts::Target;
use crate::rollouts::samples::{now, plan, printer, printer_with, release, rollout, version};
use crate::updates::Status as Ended;
use crate::words::{Channel, Platform};

const BACKOFF: Duration = Duration::from_secs(30);

/// Why a printer gets nothing of it, with no more releases than it needs; none when it is offered.
fn why(rollout: Rollout, printer: &Facts) -> Option<Why> {
    why_of(&plan(vec![rollout], Vec::new()), printer)
}

fn why_of(plan: &Plan, printer: &Facts) -> Option<Why> {
    match decide(plan, printer, &HashMap::new(), BACKOFF, now()) {
        Decision::Offer { .. } => None,
        Decision::Waiting { why, .. } => Some(why),
        Decision::Nothing(why) => why,
    }
}

fn offered(plan: &Plan, printer: &Facts) -> Option<(String, Channel, bool)> {
    match decide(plan, printer, &HashMap::new(), BACKOFF, now()) {
        Decision::Offer { pick, .. } => {
            Some((pick.release.version.to_string(), pick.release.channel, pick.stone))
        }
        _ => None,
    }
}

fn after(status: Ended, tries: u32, ago: i64) -> Option<Why> {
    let rollout = rollout("1.5.0");
    let past = Past { tries, status, ended_at: Some(now() - TimeDelta::seconds(ago)) };
    let past = HashMap::from([(rollout.id, past)]);
    match decide(&plan(vec![rollout], Vec::new()), &printer(), &past, BACKOFF, now()) {
        Decision::Offer { tries: next, .. } => {
            assert_eq!(next, tries + 1);
            None
        }
        Decision::Waiting { why, .. } => Some(why),
        Decision::Nothing(why) => why,
    }
}

fn running(text: &str) -> Facts {
    printer_with(|cohort| cohort.version = version(text))
}

#[test]
fn an_older_printer_of_the_target_gets_the_release() {
    assert_eq!(why(rollout("1.5.0"), &printer()), None);
}

#[test]
fn a_printer_that_runs_it_or_a_newer_one_gets_nothing() {
    assert_eq!(why(rollout("1.5.0"), &running("1.5.0")), Some(Why::RunsIt));
    for runs in ["1.5.1", "2.0.0-rc.1"] {
        assert_eq!(why(rollout("1.5.0"), &running(runs)), Some(Why::NotOlder));
    }
    assert_eq!(why(rollout("1.5.0"), &running("1.5.0-rc.1")), None);
}

#[test]
fn it_goes_down_when_the_rollout_allows_that() {
    let down = || Rollout { allow_downgrade: true, ..rollout("1.5.0") };
    assert_eq!(why(down(), &running("2.0.0")), None);
    assert_eq!(why(down(), &running("1.5.0")), Some(Why::RunsIt));
}

#[test]
fn it_goes_down_when_what_it_runs_was_withdrawn() {
    let bad = rollout("1.6.0");
    let good = rollout("1.5.0");
    let (taken, other) = (release("1.6.0", Channel::Stable), release("1.6.0", Channel::Beta));
    let catalog = |deprecated: [bool; 2], cancelled: &[RolloutId]| {
        let releases = [&taken, &other].into_iter().zip(deprecated);
        let mut releases: Vec<_> =
            releases.map(|(release, deprecated)| ReleaseBrief { deprecated, ..release.clone() }).collect();
        releases.push(release("1.5.0", Channel::Stable));
        let offering = Offering { rollout: good.clone(), slots: None };
        Plan::new(
            vec![offering],
            Catalog::new(releases, cancelled.iter().copied().collect()),
            Default::default(),
        )
    };
    let by_us = Some(Installed { release: taken.id, rollout: Some(bad.id) });
    let by_us = printer_with(|cohort| (cohort.version, cohort.installed) = (version("1.6.0"), by_us));
    let by_hand = running("1.6.0");
    let goes_down = |plan: Plan, printer: &Facts| why_of(&plan, printer).is_none();
    assert!(!goes_down(catalog([false, false], &[]), &by_us), "nothing was withdrawn");
    assert!(
        goes_down(catalog([false, false], &[bad.id]), &by_us),
        "the rollout that installed it was cancelled"
    );
    assert!(!goes_down(catalog([false, false], &[bad.id]), &by_hand), "another installed it");
    assert!(goes_down(catalog([true, false], &[]), &by_us), "its release was withdrawn");
    assert!(!goes_down(catalog([false, true], &[]), &by_us), "the same version on another channel was");
    assert!(!goes_down(catalog([true, false], &[]), &by_hand), "it may be running the other one");
    assert!(goes_down(catalog([true, true], &[]), &by_hand), "whichever it runs was withdrawn");
}

#[test]
fn a_release_for_another_platform_is_never_offered() {
    let foreign = printer_with(|cohort| cohort.platform = Platform::Esp32);
    assert_eq!(why(rollout("1.5.0"), &foreign), Some(Why::NoReleaseForPlatform));
}

#[test]
fn automatic_updates_off_means_mandatory_releases_only() {
    let off = printer_with(|cohort| cohort.auto_update = false);
    assert_eq!(why(rollout("1.5.0"), &off), Some(Why::AutoUpdateOff));
    let mandatory = ReleaseBrief { mandatory: true, ..release("1.5.0", Channel::Stable) };
    assert_eq!(why_of(&plan(vec![rollout("1.5.0")], vec![mandatory]), &off), None);
}

#[test]
fn a_printer_below_min_upgrade_version_takes_the_highest_stepping_stone_that_it_can() {
    let least = |text: &str, least: &str| ReleaseBrief {
        min_upgrade_version: Some(version(least)),
        ..release(text, Channel::Stable)
    };
    let goal = || least("2.0.0", "1.8.0");
    let with = |releases: Vec<ReleaseBrief>| plan(vec![rollout("2.0.0")], releases);
    assert_eq!(why_of(&with(vec![goal()]), &printer()), Some(Why::BelowMinUpgradeVersion));
    let ladder = || {
        vec![
            goal(),
            least("1.9.0", "1.5.0"),
            release("1.6.0", Channel::Stable),
            release("1.5.0", Channel::Stable),
            release("1.7.0", Channel::Canary),
            ReleaseBrief { deprecated: true, ..release("1.6.5", Channel::Stable) },
            ReleaseBrief { platform: Platform::Esp32, ..release("1.6.6", Channel::Stable) },
        ]
    };
    let expected = |text: &str, stone| Some((text.to_owned(), Channel::Stable, stone));
    assert_eq!(offered(&with(ladder()), &printer()), expected("1.6.0", true));
    assert_eq!(offered(&with(ladder()), &running("1.6.0")), expected("1.9.0", true));
    assert_eq!(offered(&with(ladder()), &running("1.9.0")), expected("2.0.0", false));
    let canary = printer_with(|cohort| cohort.channel = Channel::Canary);
    assert_eq!(offered(&with(ladder()), &canary), Some(("1.7.0".into(), Channel::Canary, true)));
}

#[test]
fn the_bucket_must_be_below_the_percentage() {
    let at = |percentage| Rollout { percentage, ..rollout("1.5.0") };
    assert_eq!(why(at(42), &printer()), Some(Why::OutsidePercentage { bucket: 42, percentage: 42 }));
    assert_eq!(why(at(43), &printer()), None);
}

#[test]
fn the_printers_own_channel_is_preferred_then_the_most_stable_and_the_rollouts_is_binding() {
    let both = |channel| {
        let releases = vec![release("1.5.0", Channel::Beta), release("1.5.0", Channel::Stable)];
        plan(vec![Rollout { channel, ..rollout("1.5.0") }], releases)
    };
    let channel = |only, own| {
        offered(&both(only), &printer_with(|cohort| cohort.channel = own)).map(|(_, channel, _)| channel)
    };
    assert_eq!(channel(None, Channel::Stable), Some(Channel::Stable));
    assert_eq!(channel(None, Channel::Beta), Some(Channel::Beta));
    assert_eq!(channel(None, Channel::Canary), Some(Channel::Stable));
    assert_eq!(channel(Some(Channel::Beta), Channel::Stable), Some(Channel::Beta));
    assert_eq!(channel(Some(Channel::Canary), Channel::Stable), None);
}

#[test]
fn the_highest_version_wins_whatever_the_order() {
    for order in [["1.9.0", "1.10.0"], ["1.10.0", "1.9.0"]] {
        let plan = plan(order.map(rollout).to_vec(), Vec::new());
        assert_eq!(offered(&plan, &printer()).map(|(version, ..)| version).as_deref(), Some("1.10.0"));
    }
}

#[test]
fn a_higher_version_that_is_not_for_it_does_not_stand_in_the_way() {
    let narrow = Rollout { percentage: 0, ..rollout("2.0.0") };
    let plan = plan(vec![narrow, rollout("1.5.0")], Vec::new());
    assert_eq!(offered(&plan, &printer()).map(|(version, ..)| version).as_deref(), Some("1.5.0"));
}

#[test]
fn a_higher_version_that_only_waits_for_a_place_is_not_overtaken() {
    let mut plan = plan(vec![rollout("2.0.0"), rollout("1.5.0")], Vec::new());
    plan.offerings[0].slots = Some((0, Limit::InFlight));
    assert_eq!(why_of(&plan, &printer()), Some(Why::LimitReached(Limit::InFlight)));
}

#[test]
fn a_failed_try_is_repeated_after_a_wait_that_doubles_until_the_tries_are_used_up() {
    assert_eq!(after(Ended::Failed, 1, 29), Some(Why::BackingOff(now() + TimeDelta::seconds(1))));
    assert_eq!(after(Ended::Failed, 1, 30), None);
    assert_eq!(after(Ended::Failed, 2, 59), Some(Why::BackingOff(now() + TimeDelta::seconds(1))));
    assert_eq!(after(Ended::Failed, 2, 60), None);
    assert_eq!(after(Ended::Failed, 3, 100_000), Some(Why::AttemptsUsedUp(3)));
}

#[test]
fn who_declined_is_not_asked_again_and_who_took_it_is_left_alone() {
    assert_eq!(after(Ended::Declined, 1, 100_000), Some(Why::Declined));
    assert_eq!(after(Ended::Completed, 1, 100_000), Some(Why::Completed));
}

#[test]
fn a_rollout_that_makes_no_offers_says_why() {
    let in_state = |status| Rollout { status, ..rollout("1.5.0") };
    let paused = Rollout { detail: Some("3 of 4 printers failed.".into()), ..in_state(Status::Paused) };
    assert_eq!(why(paused, &printer()), Some(Why::Paused(Some("3 of 4 printers failed.".into()))));
    let waiting = Rollout { approval: Approval::Waiting, ..in_state(Status::Pending) };
    assert_eq!(why(waiting, &printer()), Some(Why::AwaitsApproval));
    let scheduled = Rollout { scheduled_for: Some(now()), ..in_state(Status::Pending) };
    assert_eq!(why(scheduled, &printer()), Some(Why::NotStarted(Some(now()))));
    assert_eq!(why(in_state(Status::Cancelled), &printer()), Some(Why::Cancelled));
    assert_eq!(why(in_state(Status::Completed), &printer()), None, "it only rests");
}

#[test]
fn a_closed_window_of_the_rollout_or_of_the_owner_waits_unless_the_release_is_mandatory() {
    let windows = |from: &str, to: &str| -> Windows {
        let windows = serde_json::json!({"weekly": [{"from": from, "to": to}], "mandatory_ignores": true});
        serde_json::from_value(windows).unwrap()
    };
    // It is midnight in UTC.
    let (open, closed) = (windows("23:00", "01:00"), windows("02:00", "05:00"));
    let with = |rollouts: &Windows, owners: &Windows, mandatory| {
        let rollout = Rollout { windows: Some(rollouts.clone()), ..rollout("1.5.0") };
        let release = ReleaseBrief { mandatory, ..release("1.5.0", Channel::Stable) };
        let mut plan = plan(vec![rollout], vec![release]);
        let owner = Owner { time_zone: None, windows: Some(owners.clone()) };
        plan.owners = Arc::new(HashMap::from([(printer().user_id, owner)]));
        plan
    };
    assert_eq!(why_of(&with(&open, &open, false), &printer()), None);
    for plan in [with(&open, &closed, false), with(&closed, &open, false)] {
        let Some(Why::WindowClosed(words)) = why_of(&plan, &printer()) else { panic!("must wait") };
        assert!(words.starts_with("opens") && words.ends_with("02:00 UTC"), "{words}");
    }
    let mut rome = printer();
    rome.time_zone = Some("Europe/Rome".parse().unwrap());
    assert_eq!(
        why_of(&with(&windows("01:30", "02:30"), &windows("02:00", "03:00"), false), &rome),
        None,
        "there it is two o'clock"
    );
    assert_eq!(why_of(&with(&closed, &closed, true), &printer()), None);
}

#[test]
fn the_target_narrows() {
    let target = |change: fn(&mut Target)| {
        let mut target = Target::default();
        change(&mut target);
        Rollout { target, ..rollout("1.5.0") }
    };
    type Case = (fn(&mut Target), bool);
    let cases: [Case; 13] = [
        (|t| t.user_ids = Some(vec!["user-123".parse().unwrap()]), true),
        (|t| t.user_ids = Some(vec!["user-456".parse().unwrap()]), false),
        (|t| t.printer_ids = Some(vec!["printer-abc".parse().unwrap()]), true),
        (
            |t| {
                t.user_ids = Some(vec!["user-456".parse().unwrap()]);
                t.printer_ids = Some(vec!["printer-abc".parse().unwrap()]);
            },
            true,
        ),
        (|t| t.channels = Some(vec![Channel::Beta]), false),
        (|t| t.channels = Some(vec![Channel::Beta, Channel::Stable]), true),
        (|t| t.min_version = Some(version("1.4.0")), true),
        (|t| t.min_version = Some(version("1.4.1")), false),
        (|t| t.max_version = Some(version("1.4.0")), true),
        (|t| t.max_version = Some(version("1.4.0-rc.1")), false),
        (|t| t.installed_by = Some(RolloutId(uuid::Uuid::from_u128(7))), true),
        (|t| t.installed_by = Some(RolloutId(uuid::Uuid::from_u128(8))), false),
        (|t| t.previous_version = Some(version("1.2.0")), false),
    ];
    let mut printer = printer_with(|cohort| {
        cohort.installed = Some(Installed {
            release: FirmwareId::generate(),
            rollout: Some(RolloutId(uuid::Uuid::from_u128(7))),
        });
    });
    printer.previous = Some(version("1.3.0"));
    for (index, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(why(target(change), &printer).is_none(), expected, "case {index}");
    }
}

proptest! {
    #[test]
    fn raising_the_percentage_never_takes_an_offer_away(bucket in 0u8..100, low in 0u8..=100, high in 0u8..=100) {
        prop_assume!(low <= high);
        let printer = Facts { bucket, ..printer() };
        let offered = |percentage| why(Rollout { percentage, ..rollout("1.5.0") }, &printer).is_none();
        prop_assert!(!offered(low) || offered(high));
        prop_assert_eq!(offered(low), bucket < low);
    }

    #[test]
    fn nothing_that_is_not_newer_is_ever_offered(runs in "[0-2]\\.[0-9]\\.[0-9](-rc\\.[0-9])?", to in "[0-2]\\.[0-9]\\.[0-9](-rc\\.[0-9])?") {
        prop_assert_eq!(why(rollout(&to), &running(&runs)).is_none(), version(&to) > version(&runs));
    }

    #[test]
    fn whatever_is_offered_is_for_its_platform_stands_and_can_be_taken(
        releases in proptest::collection::vec((0u64..6, 0usize..3, 0usize..2, proptest::option::of(0u64..6), any::<bool>(), any::<bool>()), 0..12),
        runs in 0u64..6, to in 0u64..6, channel in 0usize..3, allow_downgrade: bool, auto_update: bool,
    ) {
        let platforms = [Platform::Esp8266, Platform::Esp32];
        let releases: Vec<_> = releases.into_iter().map(|(minor, channel, platform, least, deprecated, mandatory)| ReleaseBrief {
            platform: platforms[platform],
            min_upgrade_version: least.map(|least| version(&format!("1.{least}.0"))),
            deprecated,
            mandatory,
            ..release(&format!("1.{minor}.0"), Channel::ALL[channel])
        }).collect();
        let printer = printer_with(|cohort| {
            cohort.version = version(&format!("1.{runs}.0"));
            cohort.channel = Channel::ALL[channel];
            cohort.auto_update = auto_update;
        });
        let rollout = Rollout { allow_downgrade, ..rollout(&format!("1.{to}.0")) };
        let withdrawn = {
            let mut of = releases.iter().filter(|r| r.version == printer.cohort.version && r.platform == Platform::Esp8266).peekable();
            of.peek().is_some() && of.all(|r| r.deprecated)
        };
        let offering = Offering { rollout: rollout.clone(), slots: None };
        let plan = Plan::new(vec![offering], Catalog::new(releases, HashSet::new()), Default::default());
        if let Decision::Offer { pick, .. } = decide(&plan, &printer, &HashMap::new(), BACKOFF, now()) {
            let r = pick.release;
            prop_assert_eq!(r.platform, printer.cohort.platform);
            prop_assert!(!r.deprecated);
            prop_assert!(r.version != printer.cohort.version);
            prop_assert!(r.version > printer.cohort.version || allow_downgrade || withdrawn);
            prop_assert!(r.min_upgrade_version.as_ref().is_none_or(|least| printer.cohort.version >= *least));
            prop_assert_eq!(pick.stone, r.version != rollout.version);
            prop_assert!(!pick.stone || r.version < rollout.version);
            prop_assert!(auto_update || r.mandatory || pick.stone);
        }
    }
}
