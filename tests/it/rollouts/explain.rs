//! Explanations: each reason, in a situation that really has it, asked for the printer and for the rollout.

use std::collections::BTreeSet;
use std::sync::Mutex;

use paperminder_ota::simulate::image::esp8266_image;
use paperminder_ota::simulate::{Fate, PrinterOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{HOUR, clocked, in_steps, known, on, online, path, printers, says, to_all, was_here};
use crate::support::{SOON, Server};

/// Asks about a printer, in both ways, which must say the same of the rollout; notes which reasons were seen.
struct Asking<'a> {
    server: &'a Server,
    seen: Mutex<BTreeSet<String>>,
}

impl Asking<'_> {
    /// What the rollout means for the printer, which must be this.
    #[track_caller]
    fn check(&self, answer: &Value, outcome: &str, reason: &str, words: &str) {
        assert_eq!(
            (answer["outcome"].as_str(), answer["reason"].as_str()),
            (Some(outcome), Some(reason)),
            "{answer}"
        );
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(words) && detail.ends_with('.'), "{words}: {detail}");
        self.seen.lock().unwrap().insert(reason.to_owned());
    }

    async fn one(&self, rollout: &str, printer: &str, outcome: &str, reason: &str, words: &str) -> Value {
        let id = printer.rsplit('/').next().unwrap();
        let answer = self.server.get(&format!("{rollout}/explain?printer_id={id}")).await.expect(200);
        self.check(&answer, outcome, reason, words);
        let whole = self.server.get(&format!("{printer}/explain")).await.expect(200);
        let same =
            whole["rollouts"].as_array().unwrap().iter().find(|one| one["rollout"] == answer["rollout"]);
        // What is busy is so as a whole; what is cancelled is no more than history.
        match (same, reason) {
            (None, reason) => assert_eq!(reason, "cancelled", "{whole}"),
            (Some(_), "busy") => self.check(&whole, outcome, reason, words),
            (Some(same), _) => assert_eq!(same, &answer),
        }
        answer
    }
}

fn asking(server: &Server) -> Asking<'_> {
    Asking { server, seen: Mutex::default() }
}

#[track_caller]
fn all_of(asking: Asking<'_>, reasons: &[&str]) {
    let expected: BTreeSet<_> = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    assert_eq!(asking.seen.into_inner().unwrap(), expected);
}

#[sqlx::test]
async fn why_a_printer_can_never_get_it(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let fields = [("version", "2.0.0"), ("min_upgrade_version", "1.8.0")];
    server.upload_bytes(esp8266_image(20 << 10, 20), &fields).await.expect(201);
    let here = async |index, change: &dyn Fn(&mut PrinterOptions)| {
        let mut options = server.printer(index);
        change(&mut options);
        was_here(&server, options).await.1
    };
    let old = here(1, &|_| {}).await;
    let same = here(2, &|options| options.firmware_version = "1.5.0".into()).await;
    let newer = here(3, &|options| options.firmware_version = "1.6.0".into()).await;
    let off = here(4, &|options| options.auto_update = false).await;
    let foreign = here(5, &|options| options.identity.platform = Some("esp32".into())).await;
    let beta = here(6, &|options| options.identity.channel = "beta".into()).await;
    let ask = asking(&server);
    let whole = server.get(&format!("{old}/explain")).await.expect(200);
    says(&whole, json!({"outcome": "nothing", "reason": "no_rollout", "rollout": null, "rollouts": []}));

    let plain = json!({"target": {"channels": ["stable"]}, "start": false});
    let rollout = path(&server.rollout(to_all("1.5.0", plain)).await);
    ask.one(&rollout, &beta, "nothing", "not_in_target", "not in the rollout's target").await;
    ask.one(&rollout, &foreign, "nothing", "no_release_for_platform", "no release for its platform").await;
    ask.one(&rollout, &same, "nothing", "runs_it", "runs this version").await;
    ask.one(&rollout, &newer, "nothing", "not_older", "does not allow_downgrade").await;
    ask.one(&rollout, &off, "nothing", "auto_update_off", "an operator may force it").await;
    ask.one(&rollout, &old, "waiting", "not_started", "was not started").await;
    let far = path(&server.rollout(to_all("2.0.0", json!({}))).await);
    ask.one(&far, &same, "nothing", "below_min_upgrade_version", "no release in between").await;
    server.patch(&far, &json!({"status": "cancelled"})).await.expect(200);
    let gone = path(&server.rollout(to_all("1.5.0", json!({}))).await);
    server.patch(&gone, &json!({"status": "cancelled"})).await.expect(200);
    ask.one(&gone, &old, "nothing", "cancelled", "was cancelled").await;
    all_of(
        ask,
        &[
            "not_in_target",
            "no_release_for_platform",
            "runs_it",
            "not_older",
            "auto_update_off",
            "not_started",
            "below_min_upgrade_version",
            "cancelled",
        ],
    );
    server.stop().await;
}

#[sqlx::test]
async fn why_a_printer_is_done_with_it(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut all = printers(&server, 0, 3, "1.0.0", Fate::Install);
    for (printer, fate) in all.iter_mut().zip([Fate::Install, Fate::Decline, Fate::FailDownload]) {
        printer.behaviour = paperminder_ota::simulate::Behaviour::Always(fate);
    }
    let fleet = known(&server, all).await;
    let rollout = path(&server.rollout(to_all("1.5.0", json!({"max_attempts": 2}))).await);
    let done = |rollout: &Value| {
        (&rollout["confirmed_count"], &rollout["declined_count"], &rollout["failed_count"])
            == (&json!(1), &json!(1), &json!(1))
    };
    server.wait(&rollout, done).await;
    fleet.stop().await;
    server.wait("/api/printers?online=true", |list| list["total"] == 0).await;
    // Somebody flashed the first one back by hand.
    let (_, flashed) = was_here(&server, server.printer(0)).await;
    let named = |index| format!("/api/printers/{}", server.printer(index).identity.label());
    let ask = asking(&server);
    ask.one(&rollout, &flashed, "nothing", "completed", "took this rollout's release before").await;
    ask.one(&rollout, &named(1), "nothing", "declined", "an operator may force it").await;
    ask.one(&rollout, &named(2), "nothing", "attempts_used_up", "failed 2 times").await;
    all_of(ask, &["completed", "declined", "attempts_used_up"]);
    server.stop().await;
}

#[sqlx::test]
async fn why_a_printer_waits_for_people(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let (_, printer) = was_here(&server, server.printer(1)).await;
    let ask = asking(&server);
    let later = json!({"rollout_type": "scheduled", "scheduled_for": "2026-03-04T13:00:00Z"});
    let scheduled = path(&server.rollout(to_all("1.5.0", later)).await);
    let answer =
        ask.one(&scheduled, &printer, "waiting", "not_started", "starts at 2026-03-04 13:00:00 UTC").await;
    assert_eq!(answer["until"], "2026-03-04T13:00:00Z");
    clock.advance(HOUR);
    server.wait(&scheduled, |rollout| rollout["status"] == "active").await;
    let offer = server.get(&format!("{printer}/explain")).await.expect(200);
    says(&offer, json!({"outcome": "offer", "reason": null, "rollout": 1}));
    server.patch(&scheduled, &json!({"status": "paused"})).await.expect(200);
    ask.one(&scheduled, &printer, "waiting", "paused", "is paused").await;
    let approval = path(&server.rollout(to_all("1.5.0", json!({"requires_approval": true}))).await);
    ask.one(&approval, &printer, "waiting", "awaits_approval", "second person").await;
    let gradual = json!({"rollout_type": "gradual", "rollout_percentage": 0});
    let gradual = path(&server.rollout(to_all("1.5.0", gradual)).await);
    ask.one(&gradual, &printer, "waiting", "outside_percentage", "not below the rollout's percentage, 0")
        .await;
    all_of(ask, &["not_started", "paused", "awaits_approval", "outside_percentage"]);
    server.stop().await;
}

#[sqlx::test]
async fn why_a_printer_waits_for_its_moment(pool: PgPool) {
    let (server, _clock) = clocked(pool, &[("RETRY_BACKOFF_SECONDS", "600")]).await;
    server.release("1.5.0", "stable").await;
    let mut first = online(&server, server.printer(1)).await;
    let ask = asking(&server);
    let (one, two) = ("/api/printers/1", "/api/printers/2");
    let fill = async |changes: Value| path(&server.rollout(changes).await);

    let in_flight = fill(to_all("1.5.0", json!({"max_in_flight": 1}))).await;
    first.next_offer(SOON).await.unwrap();
    was_here(&server, server.printer(2)).await;
    ask.one(&in_flight, one, "waiting", "busy", "update to 1.5.0 is open").await;
    ask.one(&in_flight, two, "waiting", "in_flight_limit", "max_in_flight").await;
    let failure = json!({"kind": "firmware_failed", "error": "no space left"});
    first.send_json(&failure).await.unwrap();
    server.wait(&in_flight, |rollout| rollout["in_flight_count"] == 0).await;
    let answer =
        ask.one(&in_flight, one, "waiting", "backing_off", "Its last try failed; the next is at").await;
    assert_eq!(answer["until"], "2026-03-04T12:10:00Z");
    server.patch(&in_flight, &json!({"status": "cancelled"})).await.expect(200);

    let rate = fill(to_all("1.5.0", json!({"rate_per_minute": 1}))).await;
    first.next_offer(SOON).await.unwrap();
    ask.one(&rate, two, "waiting", "rate_limit", "rate_per_minute").await;
    first.send_json(&failure).await.unwrap();
    server.wait(&rate, |rollout| rollout["in_flight_count"] == 0).await;
    server.patch(&rate, &json!({"status": "cancelled"})).await.expect(200);

    let steps = json!([{"percentage": 100, "first": 1}]);
    let few = fill(in_steps("1.5.0", steps)).await;
    first.next_offer(SOON).await.unwrap();
    ask.one(&few, two, "waiting", "first_few", "a few at a time").await;
    server.patch(&few, &json!({"status": "cancelled"})).await.expect(200);

    let windows = json!({"weekly": [{"days": ["sat"], "from": "22:00", "to": "05:00"}]});
    let closed = fill(to_all("1.5.0", json!({"windows": windows}))).await;
    let answer = ask.one(&closed, two, "waiting", "window_closed", "maintenance window is closed").await;
    assert_eq!(answer["until"], "2026-03-07T22:00:00Z");
    all_of(ask, &["busy", "in_flight_limit", "backing_off", "rate_limit", "first_few", "window_closed"]);
    server.stop().await;
}

#[sqlx::test]
async fn the_printer_is_told_what_decides(pool: PgPool) {
    let (server, _clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    server.release("1.6.0", "stable").await;
    let (options, printer) = was_here(&server, server.printer(1)).await;
    let (_, other) = was_here(&server, on(server.printer(2), "1.1.0")).await;
    let zero = json!({"rollout_type": "gradual", "rollout_percentage": 0});
    server.rollout(to_all("1.6.0", zero)).await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    // A higher version that is not meant for it yet does not hold the lower one back.
    let why = server.get(&format!("{printer}/explain")).await.expect(200);
    says(&why, json!({"outcome": "offer", "rollout": 2, "firmware_version": "1.0.0"}));
    let order: Vec<_> = why["rollouts"].as_array().unwrap().iter().map(|one| &one["rollout"]).collect();
    assert_eq!(order, [1, 2], "the highest version first");
    assert_eq!(&*online(&server, options).await.next_offer(SOON).await.unwrap().version, "1.5.0");
    // One that only waits for its moment does.
    let windows = json!({"weekly": [{"from": "02:00", "to": "05:00"}]});
    server.rollout(to_all("1.6.0", json!({"windows": windows}))).await;
    let why = server.get(&format!("{other}/explain")).await.expect(200);
    says(&why, json!({"outcome": "waiting", "reason": "window_closed", "rollout": 3}));
    server.stop().await;
}

#[sqlx::test]
async fn nobody_is_explained_who_is_not_there(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    server.rollout(to_all("1.5.0", json!({}))).await;
    server.get("/api/printers/1/explain").await.expect(404);
    server.get("/api/rollouts/1/explain?printer_id=1").await.expect(404);
    let problem = server.get("/api/rollouts/1/explain").await.expect(422);
    assert_eq!(problem["errors"][0]["field"], "printer_id");
    was_here(&server, server.printer(1)).await;
    server.get("/api/rollouts/9/explain?printer_id=1").await.expect(404);
    server.get("/api/rollouts/1/explain?printer_id=1&when=now").await.expect(422);
    server.stop().await;
}
