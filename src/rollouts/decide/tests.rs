//! The decision in words of the domain, and properties that hold for every printer.

use proptest::prelude::*;

use super::*;
use crate::ids::PrinterRef;
use crate::updates::Status;

const BACKOFF: Duration = Duration::from_secs(30);

fn version(text: &str) -> Version {
    text.to_owned().into()
}

fn printer() -> Facts {
    Facts {
        printer: PrinterRef::generate(),
        printer_id: "printer-abc".parse().unwrap(),
        user_id: "user-123".parse().unwrap(),
        bucket: 42,
        platform: Platform::Esp8266,
        version: version("1.4.0"),
        auto_update: true,
        channel: Channel::Stable,
        downloads: crate::printers::Downloads::default(),
        time_zone: None,
    }
}

fn release(channel: Channel, platform: Platform) -> ReleaseBrief {
    ReleaseBrief {
        id: FirmwareId::generate(),
        channel,
        platform,
        mandatory: false,
        min_upgrade_version: None,
        key: ObjectKey::stored("k".into()),
        md5: String::new(),
    }
}

fn offering(text: &str) -> Offering {
    Offering {
        rollout: RolloutId::generate(),
        number: 1,
        epoch: 1,
        version: version(text),
        channel: None,
        target: Target { all: true, ..Target::default() },
        percentage: 100,
        max_attempts: 3,
        releases: vec![release(Channel::Stable, Platform::Esp8266)],
    }
}

fn now() -> Time {
    chrono::DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn why(offering: Offering, printer: &Facts) -> Option<Why> {
    match decide(&Plan::new(vec![offering]), printer, &HashMap::new(), BACKOFF, now()) {
        Decision::Offer { .. } => None,
        Decision::Waiting { why, .. } => Some(why),
        Decision::Nothing(why) => why,
    }
}

fn after(status: Status, attempts: u32, ago: i64) -> Option<Why> {
    let offering = offering("1.5.0");
    let past = HashMap::from([(
        offering.rollout,
        Past { attempts, status, ended_at: Some(now() - TimeDelta::seconds(ago)) },
    )]);
    match decide(&Plan::new(vec![offering]), &printer(), &past, BACKOFF, now()) {
        Decision::Offer { attempt, .. } => {
            assert_eq!(attempt, attempts + 1);
            None
        }
        Decision::Waiting { why, .. } => Some(why),
        Decision::Nothing(why) => why,
    }
}

#[test]
fn an_older_printer_of_the_target_gets_the_release() {
    assert_eq!(why(offering("1.5.0"), &printer()), None);
}

#[test]
fn a_printer_that_runs_it_or_a_newer_one_gets_nothing() {
    for runs in ["1.5.0", "1.5.1", "2.0.0-rc.1"] {
        assert_eq!(
            why(offering("1.5.0"), &Facts { version: version(runs), ..printer() }),
            Some(Why::NotOlder)
        );
    }
    assert_eq!(why(offering("1.5.0"), &Facts { version: version("1.5.0-rc.1"), ..printer() }), None);
}

#[test]
fn a_release_for_another_platform_is_never_offered() {
    assert_eq!(
        why(offering("1.5.0"), &Facts { platform: Platform::Esp32, ..printer() }),
        Some(Why::NoReleaseForPlatform)
    );
}

#[test]
fn automatic_updates_off_means_mandatory_releases_only() {
    let off = Facts { auto_update: false, ..printer() };
    assert_eq!(why(offering("1.5.0"), &off), Some(Why::AutoUpdateOff));
    let mut mandatory = offering("1.5.0");
    mandatory.releases[0].mandatory = true;
    assert_eq!(why(mandatory, &off), None);
}

#[test]
fn a_printer_below_min_upgrade_version_is_not_offered_the_release() {
    let mut picky = offering("1.5.0");
    picky.releases[0].min_upgrade_version = Some(version("1.4.1"));
    assert_eq!(why(picky, &printer()), Some(Why::BelowMinUpgradeVersion));
}

#[test]
fn the_bucket_must_be_below_the_percentage() {
    assert_eq!(
        why(Offering { percentage: 42, ..offering("1.5.0") }, &printer()),
        Some(Why::OutsidePercentage)
    );
    assert_eq!(why(Offering { percentage: 43, ..offering("1.5.0") }, &printer()), None);
}

#[test]
fn the_printers_own_channel_is_preferred_then_the_most_stable_and_the_rollouts_is_binding() {
    let both = Offering {
        releases: vec![
            release(Channel::Stable, Platform::Esp8266),
            release(Channel::Beta, Platform::Esp8266),
        ],
        ..offering("1.5.0")
    };
    let channel = |offering: &Offering, printer: &Facts| {
        offering.release_for(printer).map(|index| offering.releases[index].channel)
    };
    assert_eq!(channel(&both, &printer()), Some(Channel::Stable));
    assert_eq!(channel(&both, &Facts { channel: Channel::Beta, ..printer() }), Some(Channel::Beta));
    assert_eq!(channel(&both, &Facts { channel: Channel::Canary, ..printer() }), Some(Channel::Stable));
    let bound = Offering { channel: Some(Channel::Beta), ..both.clone() };
    assert_eq!(channel(&bound, &printer()), Some(Channel::Beta));
    assert_eq!(channel(&Offering { channel: Some(Channel::Canary), ..both }, &printer()), None);
}

#[test]
fn the_highest_version_wins_whatever_the_order() {
    for order in [["1.9.0", "1.10.0"], ["1.10.0", "1.9.0"]] {
        let plan = Plan::new(order.map(offering).to_vec());
        match decide(&plan, &printer(), &HashMap::new(), BACKOFF, now()) {
            Decision::Offer { offering, .. } => assert_eq!(offering.version, version("1.10.0")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_higher_version_that_is_not_for_it_does_not_stand_in_the_way() {
    let narrow = Offering { percentage: 0, ..offering("2.0.0") };
    match decide(&Plan::new(vec![narrow, offering("1.5.0")]), &printer(), &HashMap::new(), BACKOFF, now()) {
        Decision::Offer { offering, .. } => assert_eq!(offering.version, version("1.5.0")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_try_is_repeated_after_a_wait_that_doubles_until_the_tries_are_used_up() {
    assert_eq!(after(Status::Failed, 1, 29), Some(Why::BackingOff));
    assert_eq!(after(Status::Failed, 1, 30), None);
    assert_eq!(after(Status::Failed, 2, 59), Some(Why::BackingOff));
    assert_eq!(after(Status::Failed, 2, 60), None);
    assert_eq!(after(Status::Failed, 3, 100_000), Some(Why::AttemptsUsedUp));
}

#[test]
fn who_declined_is_not_asked_again() {
    assert_eq!(after(Status::Declined, 1, 100_000), Some(Why::Declined));
}

#[test]
fn the_target_narrows() {
    let target = |change: fn(&mut Target)| {
        let mut target = Target::default();
        change(&mut target);
        Offering { target, ..offering("1.5.0") }
    };
    type Case = (fn(&mut Target), bool);
    let cases: [Case; 10] = [
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
    ];
    for (index, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(why(target(change), &printer()).is_none(), expected, "case {index}");
    }
}

proptest! {
    #[test]
    fn raising_the_percentage_never_takes_an_offer_away(bucket in 0u8..100, low in 0u8..=100, high in 0u8..=100) {
        prop_assume!(low <= high);
        let printer = Facts { bucket, ..printer() };
        let offered = |percentage| why(Offering { percentage, ..offering("1.5.0") }, &printer).is_none();
        prop_assert!(!offered(low) || offered(high));
        prop_assert_eq!(offered(low), bucket < low);
    }

    #[test]
    fn nothing_that_is_not_newer_is_ever_offered(runs in "[0-2]\\.[0-9]\\.[0-9](-rc\\.[0-9])?", to in "[0-2]\\.[0-9]\\.[0-9](-rc\\.[0-9])?") {
        let printer = Facts { version: version(&runs), ..printer() };
        prop_assert_eq!(why(offering(&to), &printer).is_none(), version(&to) > version(&runs));
    }
}
