//! Whole lives: offer, download, reboot, proof.

use axum::http::Version;
use paperminder_ota::simulate::{EventKind, Printer, Summary};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    stand::{Seen, Stand},
    *,
};

#[tokio::test]
async fn a_polite_printer_reports_on_one_socket_and_returns_with_the_new_version() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let fleet = one(printer(&stand.ws, Mode::Polite));
    let mut events = fleet.events();
    stand.until_subscribed("1.1.0").await;

    let course = ["1.0.0", "progress", "progress", "progress", "progress", "progress", "complete", "1.1.0"];
    assert_eq!(stand.kinds(), course);
    let percents: Vec<_> = stand.said().iter().filter_map(|said| said["percent"].as_i64()).collect();
    assert_eq!(percents, [0, 25, 50, 75, 100]);
    assert_eq!(stand.said()[6], json!({"kind": "firmware_complete", "version": "1.1.0"}));
    let seen = stand.seen();
    // Everything before the second subscribe came on the first connection, which was closed by the book.
    assert!(seen.contains(&Seen::Gone { connection: 1, politely: true }), "{seen:#?}");
    let first = seen.iter().filter(|seen| matches!(seen, Seen::Said { connection: 1, .. })).count();
    assert_eq!(first, 7);
    assert!(seen.iter().any(|seen| matches!(seen, Seen::Fetched { version: Version::HTTP_11, .. })));

    let summary = fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();
    assert_eq!((summary.offers, summary.downloads_ok, summary.reboots), (1, 1, 1));
    assert_eq!(summary.bytes, image().len() as u64);
    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        kinds.push(event.kind);
    }
    let ok = EventKind::Downloaded { bytes: image().len() as u64, md5_ok: true };
    let started = kinds.iter().position(|kind| *kind == EventKind::DownloadStarted).unwrap();
    assert!(kinds[started..].contains(&ok), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&EventKind::Subscribed { version: "1.1.0".into() }));
}

#[tokio::test]
async fn a_device_loses_its_socket_says_nothing_and_returns_with_the_new_version() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    let fleet = one(printer(&stand.ws, Mode::Device));
    stand.until_subscribed("1.1.0").await;
    fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();

    assert_eq!(stand.kinds(), ["1.0.0", "1.1.0"]);
    let seen = stand.seen();
    assert!(seen.contains(&Seen::Gone { connection: 1, politely: false }), "{seen:#?}");
    let fetched = seen.iter().find_map(|seen| match seen {
        Seen::Fetched { version, headers } => Some((*version, headers.clone())),
        _ => None,
    });
    let (version, headers) = fetched.unwrap();
    assert_eq!(version, Version::HTTP_10);
    assert_eq!(headers["user-agent"], "ESP8266-http-Update");
    for name in
        ["sta-mac", "free-space", "sketch-size", "sketch-md5", "chip-size", "sdk-version", "version", "mode"]
    {
        assert!(headers.contains_key(format!("x-esp8266-{name}")), "{name}");
    }
    assert_eq!(headers["x-esp8266-version"], "1.0.0");
}

#[tokio::test]
async fn the_handshake_is_the_arduino_clients() {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let printer = Printer::connect(printer(&stand.ws, Mode::Polite)).await.unwrap();
    let Seen::Opened { headers, .. } = stand.seen().remove(0) else { unreachable!() };
    assert_eq!(headers["sec-websocket-protocol"], "arduino");
    assert_eq!(headers["origin"], "file://");
    assert_eq!(headers["host"], stand.ws.trim_start_matches("ws://"));
    assert!(!headers.contains_key("sec-websocket-extensions"));
    printer.drop_hard();
    stand.until("a hard loss", |seen| seen.contains(&Seen::Gone { connection: 1, politely: false })).await;
}

#[tokio::test]
async fn a_download_survives_the_loss_of_the_socket() {
    let stand = Stand::offering("1.1.0", image(), None).await;
    stand.trickle(Duration::from_millis(20));
    let fleet = one(printer(&stand.ws, Mode::Polite));
    fleet.wait_until(SOON, |summary| summary.downloads_started == 1).await.unwrap();
    stand.kick(None);
    let summary = fleet.wait_until(SOON, |summary| summary.all_run("1.1.0")).await.unwrap();
    // One download, though the stand offered again on the second connection.
    assert_eq!((summary.downloads_started, summary.downloads_ok), (1, 1));
    assert_eq!((summary.repeated_offers, summary.double_offers), (1, 0));
    let kinds = stand.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "1.0.0").count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "complete").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn printers_reconnect_for_ever_at_a_fixed_interval_whatever_the_close_code_says() {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let mut options = printer(&stand.ws, Mode::Device);
    options.pace.reconnect = Duration::from_millis(100);
    let fleet = one(options);
    for round in 1..=4 {
        fleet.wait_until(SOON, |summary| summary.online == 1 && summary.connects == round).await.unwrap();
        let lost = Instant::now();
        stand.kick(if round % 2 == 0 { None } else { Some(1013) });
        fleet.wait_until(SOON, |summary| summary.connects == round + 1).await.unwrap();
        let pause = lost.elapsed();
        assert!((Duration::from_millis(100)..Duration::from_secs(5)).contains(&pause), "{pause:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let fleet = one(printer("ws://127.0.0.1:1", Mode::Polite));
    let summary = fleet.wait_until(SOON, |summary| summary.connect_failures >= 5).await.unwrap();
    assert!(summary.last_error.is_some_and(|error| error.contains("refused")));
    let began = Instant::now();
    fleet.stop().await;
    // Sooner than it leaves behind whoever does not end.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fleet_is_spread_over_addresses_and_time() {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let mut options =
        FleetOptions::of(6, |index| PrinterOptions { seed: index, ..printer(&stand.ws, Mode::Polite) });
    options.source_ips = vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
    options.connect_rate = Some(50.0);
    let began = Instant::now();
    let fleet = Fleet::start(options).unwrap();
    fleet.wait_until(SOON, |summary| summary.online == 6).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(95), "{:?}", began.elapsed());
    let from = |wanted: &str| {
        stand.seen().iter().filter(|seen| matches!(seen, Seen::Opened { ip, .. } if ip == wanted)).count()
    };
    assert_eq!((from("127.0.0.2"), from("127.0.0.3")), (3, 3));
    let summary = fleet.stop().await;
    assert_eq!(summary.online, 6);
    stand
        .until("all gone", |seen| seen.iter().filter(|seen| matches!(seen, Seen::Gone { .. })).count() == 6)
        .await;
}

#[tokio::test]
async fn a_handle_sends_what_it_is_told_and_drops_its_socket() {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let fleet = one(printer(&stand.ws, Mode::Polite));
    let handle = &fleet.printers()[0];
    handle.send_raw(Message::text(r#"{"kind":"firmware_complete","version":"9.9.9"}"#)).await.unwrap();
    stand.until("the raw message", |_| stand.kinds() == ["1.0.0", "complete"]).await;
    handle.drop_hard().await.unwrap();
    let hard = Seen::Gone { connection: 1, politely: false };
    stand.until("a hard loss", |seen| seen.contains(&hard)).await;
    fleet.wait_until(SOON, |summary: &Summary| summary.connects == 2 && summary.online == 1).await.unwrap();
    handle.close().await.unwrap();
    let polite = Seen::Gone { connection: 2, politely: true };
    stand.until("a polite end", |seen| seen.contains(&polite)).await;
}

#[tokio::test]
async fn a_manual_printer_hears_messages_statuses_and_close_codes() {
    let status = json!({"kind": "status", "code": 4001, "detail": "who are you"});
    let stand = Stand::offering("1.1.0", image(), None).await;
    let mut manual = Printer::online(printer(&stand.ws, Mode::Polite)).await.unwrap();
    let offer = manual.next_offer(SOON).await.unwrap();
    assert_eq!(&*offer.version, "1.1.0");
    assert_eq!(manual.download(&offer).await.unwrap().bytes, image().len() as u64);
    let silence = manual.next_message(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(silence.to_string(), "timed out while waiting for a message");
    manual.send_json(&json!({"kind": "firmware_failed", "error": "x"})).await.unwrap();
    stand.until("the report", |_| stand.kinds() == ["1.0.0", "failed"]).await;
    stand.kick(Some(4001));
    let closed = manual.next_message(SOON).await.unwrap_err();
    assert!(closed.to_string().contains("4001"), "{closed}");

    let stand = Stand::start(vec![], move |_| vec![status.clone()]).await;
    let fleet = one(printer(&stand.ws, Mode::Polite));
    let mut events = fleet.events();
    fleet.wait_until(SOON, |summary| summary.statuses == 1).await.unwrap();
    let wanted = EventKind::Status { code: "4001".to_owned(), detail: "who are you".to_owned() };
    while events.recv().await.unwrap().kind != wanted {}
    sleep(Duration::ZERO).await;
}
