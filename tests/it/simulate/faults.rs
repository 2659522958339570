//! Printers that fail, refuse, break and misbehave; and servers that do.

use std::sync::Mutex;

use clap::Parser;
use paperminder_ota::simulate::{Args, Error, Odds, Phase, run};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    stand::{Seen, Stand},
    *,
};

#[tokio::test]
async fn a_wrong_md5_is_reported_politely() {
    let stand = Stand::offering("1.1.0", image(), Some("00000000000000000000000000000000")).await;
    let fleet = one(printer(&stand.ws, Mode::Polite));
    stand.until("a failure", |_| stand.kinds().last().is_some_and(|kind| kind == "failed")).await;
    let said = stand.said();
    let error = said.last().unwrap()["error"].as_str().unwrap();
    assert!(error.starts_with("Update failed: MD5 mismatch"), "{error}");
    assert_eq!(said[said.len() - 2]["percent"], -1);
    let summary = fleet.snapshot();
    assert_eq!((summary.md5_mismatches, summary.downloads_ok, summary.downloads_failed), (1, 0, 0));
    // It stays where it is, with its old version.
    assert_eq!((summary.running("1.0.0"), summary.online, summary.reboots), (1, 1, 0));
}

#[tokio::test]
async fn a_device_with_a_wrong_md5_comes_back_old_and_silent() {
    let stand = Stand::offering("1.1.0", image(), Some("00000000000000000000000000000000")).await;
    let fleet = one(printer(&stand.ws, Mode::Device));
    let summary = fleet.wait_until(SOON, |summary| summary.md5_mismatches >= 2).await.unwrap();
    assert_eq!(summary.reboots, 0);
    assert!(stand.kinds().iter().all(|kind| kind == "1.0.0"), "{:?}", stand.kinds());
}

#[tokio::test]
async fn a_changed_sketch_reports_its_failure_after_the_reconnect() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let mut options = printer(&stand.ws, Mode::Device);
    options.behaviour = Behaviour::Script(vec![Fate::FailDownload]);
    options.reports_failure = true;
    let fleet = one(options);
    fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();
    stand.until_subscribed("1.1.0").await;
    assert_eq!(stand.kinds(), ["1.0.0", "1.0.0", "failed", "1.1.0"]);
    assert_eq!(fleet.snapshot().downloads_failed, 1);
}

#[tokio::test]
async fn a_second_different_offer_is_counted_as_a_violation_in_both_modes() {
    for mode in [Mode::Polite, Mode::Device] {
        let url = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&url);
        let stand = Stand::start(image(), move |subscribe| {
            let url = known.lock().unwrap().clone();
            let offer = |version: &str| json!({"kind": "firmware_update", "version": version, "url": url});
            let first = subscribe["firmware_version"] == "1.0.0";
            if first { vec![offer("1.1.0"), offer("1.1.0"), offer("1.2.0")] } else { vec![] }
        })
        .await;
        *url.lock().unwrap() = format!("{}/image", stand.http);
        let mut options = printer(&stand.ws, mode);
        options.pace.before_download = Duration::from_millis(100);
        let fleet = one(options);
        let summary = fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();
        assert_eq!((summary.offers, summary.repeated_offers, summary.double_offers), (3, 1, 1), "{mode:?}");
        assert_eq!(summary.downloads_started, 1, "{mode:?}");
    }
}

#[tokio::test]
async fn a_printer_declines_by_fate_or_because_it_was_switched_off() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let mut off = printer(&stand.ws, Mode::Polite);
    off.auto_update = false;
    for options in [
        off,
        PrinterOptions { behaviour: Behaviour::Always(Fate::Decline), ..printer(&stand.ws, Mode::Device) },
    ] {
        let fleet = one(options);
        fleet.wait_until(SOON, |summary| summary.declined == 1).await.unwrap();
        stand.until("a refusal", |_| stand.kinds().last().is_some_and(|kind| kind == "declined")).await;
        let declined = json!({"kind": "firmware_declined", "version": "1.1.0", "auto_update": false});
        assert_eq!(stand.said().last(), Some(&declined));
        assert_eq!(fleet.snapshot().downloads_started, 0);
    }
    assert_eq!(stand.said()[0]["auto_update"], false);
}

#[tokio::test]
async fn a_bricked_printer_is_never_heard_of_again() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let fleet = fated(&stand.ws, Mode::Device, &[Fate::Brick]);
    let summary = fleet.wait_until(SOON, |summary| summary.bricked == 1).await.unwrap();
    assert_eq!((summary.downloads_ok, summary.versions.len()), (1, 0));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stand.kinds(), ["1.0.0"]);
    assert_eq!(fleet.printers()[0].state().phase, Phase::Bricked);
    assert!(matches!(fleet.printers()[0].drop_hard().await, Err(Error::Gone)));
}

#[tokio::test]
async fn a_rolled_back_printer_says_complete_and_comes_back_old() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let mut options = printer(&stand.ws, Mode::Polite);
    options.behaviour = Behaviour::Script(vec![Fate::RollBack]);
    options.progress = Arc::from([]);
    let fleet = one(options);
    fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();
    stand.until_subscribed("1.1.0").await;
    assert_eq!(stand.kinds(), ["1.0.0", "complete", "1.0.0", "complete", "1.1.0"]);
}

#[tokio::test]
async fn a_stumbling_printer_opens_sockets_that_say_nothing() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let fleet = fated(&stand.ws, Mode::Device, &[Fate::Stumble]);
    fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();
    stand.until_subscribed("1.1.0").await;
    assert_eq!(stand.kinds(), ["1.0.0", "1.1.0"]);
    assert_eq!(stand.seen().iter().filter(|seen| matches!(seen, Seen::Opened { .. })).count(), 4);
}

#[tokio::test]
async fn chaos_repeats_and_disorders_reports_but_never_lies_first() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let mut options = printer(&stand.ws, Mode::Polite);
    options.chaos = true;
    options.progress = Arc::from([]);
    let _fleet = one(options);
    let course =
        ["1.0.0", "complete", "progress", "complete", "failed", "1.1.0", "complete", "progress", "complete"];
    stand.until("all the noise", |_| stand.kinds().len() == course.len()).await;
    assert_eq!(stand.kinds(), course);
}

#[tokio::test]
async fn what_does_not_fit_the_printer_is_ignored_or_ends_the_connection() {
    let long = json!({"kind": "firmware_update", "version": "1.1.0", "url": format!("http://a/{}", "x".repeat(300))});
    let stand = Stand::start(vec![], move |_| vec![long.clone(), json!("{nonsense")]).await;
    let mut options = printer(&stand.ws, Mode::Device);
    options.limits.json = Some(256);
    let fleet = one(options);
    let summary =
        fleet.wait_until(SOON, |summary| summary.unparsable == 1 && summary.malformed == 1).await.unwrap();
    assert_eq!((summary.offers, summary.online, summary.disconnects), (0, 1, 0));

    let huge = Value::from("y".repeat(15 * 1024 + 1));
    let stand = Stand::start(vec![], move |_| vec![huge.clone()]).await;
    let fleet = one(printer(&stand.ws, Mode::Device));
    fleet.wait_until(SOON, |summary| summary.protocol_errors >= 2 && summary.connects >= 2).await.unwrap();
}

#[tokio::test]
async fn the_odds_of_a_seeded_fleet_can_be_foretold() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let behaviour = Behaviour::Odds(Odds { decline: 0.2, corrupt: 0.2, brick: 0.2, ..Odds::default() });
    let fate = |seed| behaviour.fate(seed, 0);
    let count = |wanted| (0..60).filter(|seed| fate(*seed) == wanted).count() as u64;
    let options = FleetOptions::of(60, |seed| {
        let mut options =
            PrinterOptions { seed, behaviour: behaviour.clone(), ..printer(&stand.ws, Mode::Polite) };
        options.identity = PrinterOptions::new("", seed).identity;
        options
    });
    let fleet = Fleet::start(options).unwrap();
    let settled = |summary: &paperminder_ota::simulate::Summary| {
        summary.declined + summary.md5_mismatches + summary.bricked + summary.running("1.1.0") as u64 == 60
    };
    let summary = fleet.wait_until(SOON, settled).await.unwrap();
    assert_eq!(summary.declined, count(Fate::Decline));
    assert_eq!(summary.md5_mismatches, count(Fate::Corrupt));
    assert_eq!(summary.bricked, count(Fate::Brick));
    assert!(summary.declined > 3 && summary.bricked > 3, "{summary:?}");
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

#[tokio::test]
async fn a_run_ends_with_its_version_and_fails_honestly_without() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let line = |rest: &str| {
        let line = format!("simulate --server {} -n 5 --mode device --reboot-ms 20 {rest}", stand.ws);
        Cli::try_parse_from(line.split_whitespace()).unwrap().args
    };
    let summary = run(line("--until-version 1.1.0 --duration 30"), CancellationToken::new()).await.unwrap();
    assert!(summary.all_run("1.1.0"));
    let mut secret = line("--api-key tell-no-one");
    assert!(!format!("{secret:?}").contains("tell-no-one"));
    secret.until_version = Some("2.0.0".to_owned());
    secret.duration = Some(Duration::from_secs(1));
    let unreached = run(secret, CancellationToken::new()).await;
    assert!(matches!(unreached, Err(Error::Unreached { printers: 5, running: 0, .. })), "{unreached:?}");
    // All are bricked: it does not wait for its time to be up.
    assert!(stand.said().iter().any(|said| said["api_key"] == "tell-no-one"));
    let bricked =
        run(line("--until-version 1.1.0 --duration 1h --brick-rate 1"), CancellationToken::new()).await;
    assert!(matches!(bricked, Err(Error::Unreached { running: 0, .. })), "{bricked:?}");
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    run(line(""), shutdown).await.unwrap();
}
