//! Rollouts, as an operator drives them.

mod abort;
mod agreement;
mod approval;
mod blast;
mod control;
mod counters;
mod downgrade;
mod dry_run;
mod ends;
mod explain;
mod force;
mod limits;
mod model;
mod refusals;
mod requests;
mod retry;
mod rollback;
mod silence;
mod steps;
mod stones;

use std::time::Duration;

use paperminder_ota::clock::Clock;
use paperminder_ota::printers::bucket;
use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions, Printer, PrinterOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::Server;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Long enough for anything that was on its way.
const QUIET: Duration = Duration::from_millis(600);

/// A server whose clock stands at noon of a Wednesday until the test moves it.
async fn clocked(pool: PgPool, settings: &[(&str, &str)]) -> (Server, Clock) {
    let clock = Clock::manual("2026-03-04T12:00:00Z".parse().unwrap());
    (Server::on_clock(pool, clock.clone(), settings).await, clock)
}

/// A fleet that is connected and subscribed.
pub async fn fleet(server: &Server, printers: u64) -> Fleet {
    let fleet = Fleet::start(FleetOptions::of(printers, |i| {
        if i % 2 == 0 { server.printer(i) } else { server.device(i) }
    }))
    .unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == printers).await;
    fleet
}

/// A fleet of these that the server knows of.
async fn known(server: &Server, printers: Vec<PrinterOptions>) -> Fleet {
    let ids: Vec<_> = printers.iter().map(|printer| printer.identity.label()).collect();
    let fleet = Fleet::start(FleetOptions::from(printers)).unwrap();
    for id in ids {
        server.wait(&format!("/api/printers/{id}"), |printer| printer["online"] == true).await;
    }
    fleet
}

/// Printers from `first` on, every second of them as built, on this version and with this fate.
fn printers(server: &Server, first: u64, count: u64, version: &str, fate: Fate) -> Vec<PrinterOptions> {
    let printer = |index| {
        let options = if index % 2 == 0 { server.printer(index) } else { server.device(index) };
        PrinterOptions { firmware_version: version.into(), behaviour: Behaviour::Always(fate), ..options }
    };
    (first..first + count).map(printer).collect()
}

fn on(options: PrinterOptions, version: &str) -> PrinterOptions {
    PrinterOptions { firmware_version: version.into(), ..options }
}

/// A printer under manual control that the server knows of.
async fn online(server: &Server, options: PrinterOptions) -> Printer {
    let path = format!("/api/printers/{}", options.identity.label());
    let printer = Printer::online(options).await.unwrap();
    server.wait(&path, |printer| printer["online"] == true).await;
    printer
}

/// A printer that was here, and is gone; returns its options and its path.
async fn was_here(server: &Server, options: PrinterOptions) -> (PrinterOptions, String) {
    let path = format!("/api/printers/{}", options.identity.label());
    let printer = online(server, options.clone()).await;
    printer.close().await.unwrap();
    server.wait(&path, |printer| printer["online"] == false).await;
    (options, path)
}

/// The request for an immediate rollout to everyone, with changes.
fn to_all(version: &str, changes: Value) -> Value {
    let mut body = json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "immediate"});
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

/// A gradual one with steps.
fn in_steps(version: &str, steps: Value) -> Value {
    json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "gradual", "steps": steps})
}

/// How many printers of a fleet have a bucket below this.
fn below(fleet: &Fleet, percentage: u8) -> usize {
    fleet.printers().iter().filter(|printer| bucket(&printer.id().parse().unwrap()) < percentage).count()
}

fn path(rollout: &Value) -> String {
    format!("/api/rollouts/{}", rollout["number"])
}

/// What the clock or the news make due is done now, rather than at the next tick.
async fn pass(server: &Server) {
    let state = &server.app().state;
    paperminder_ota::rollouts::look(
        &state.pool,
        &Default::default(),
        paperminder_ota::rollouts::Depth::All,
        state.clock.now(),
    )
    .await
    .unwrap();
    state.engine.scan().await.unwrap();
}

/// A subset of the fields, with their values.
#[track_caller]
fn says(value: &Value, expected: Value) {
    for (field, expected) in expected.as_object().unwrap() {
        assert_eq!(value.get(field), Some(expected), "{field} in {value}");
    }
}

/// The sentence of a refusal holds these words.
#[track_caller]
fn tells(problem: &Value, words: &str) {
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{words}: {problem}");
}

/// The counters add up, whatever else they say.
#[track_caller]
fn check_sum(rollout: &Value) {
    let count = |name: &str| rollout[name].as_i64().unwrap();
    let sum =
        count("completed_count") + count("failed_count") + count("declined_count") + count("pending_count");
    assert_eq!(sum, count("total_targets"), "{rollout}");
}
