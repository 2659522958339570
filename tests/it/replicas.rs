//! Several replicas on one database: what one of them promised, all of them keep.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use paperminder_ota::app;
use paperminder_ota::clock::Clock;
use paperminder_ota::push::Hint;
use paperminder_ota::simulate::{Fleet, FleetOptions, Printer, offer_of};
use paperminder_ota::storage::Store;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{SOON, Server, config};

const PRINTERS: u64 = 12;
const ROUNDS: u64 = 40;
const FLOOD: u64 = 400;
/// Most hints of one kind in a second.
const A_SECOND: f64 = 20.0;
/// An answer that waits for no lease, on a busy machine.
const QUICK: Duration = Duration::from_secs(3);
/// Within it, anything that was on its way arrives.
const SETTLED: Duration = Duration::from_millis(150);

async fn roll_out(server: &Server) -> String {
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"});
    format!("/api/rollouts/{}", server.rollout(wanted).await["number"])
}

/// What the server had written before it read this: it answers in the order in which it reads.
async fn offered_before_now(printer: &mut Printer) -> bool {
    let mut offered = false;
    printer.send_raw("this is no JSON").await.unwrap();
    loop {
        let message = printer.next_message(SOON).await.unwrap();
        match offer_of(&message) {
            Some(_) => offered = true,
            None if message["code"] == "malformed_json" => return offered,
            None => {}
        }
    }
}

#[sqlx::test]
async fn nothing_leaves_any_replica_after_a_cancel_or_a_pause_was_answered(pool: PgPool) {
    let (here, there) = (Server::start(pool.clone()).await, Server::start(pool.clone()).await);
    here.release("1.5.0", "stable").await;
    let mut printers =
        join_all((0..PRINTERS).map(|index| Printer::online(there.printer(index)))).await.into_iter();
    let mut printers: Vec<_> = printers.by_ref().map(Result::unwrap).collect();
    let (mut before, mut slowest) = (0, Duration::ZERO);
    for round in 0..ROUNDS {
        let path = roll_out(&here).await;
        // From before the first offer to after the last.
        tokio::time::sleep(Duration::from_micros(400 * round)).await;
        let began = Instant::now();
        let status = if round % 2 == 0 { "cancelled" } else { "paused" };
        here.patch(&path, &json!({"status": status})).await.expect(200);
        slowest = slowest.max(began.elapsed());
        let offered = join_all(printers.iter_mut().map(offered_before_now)).await;
        before += offered.iter().filter(|offered| **offered).count();
        let late = join_all(printers.iter_mut().map(|printer| printer.next_offer(SETTLED))).await;
        assert!(late.iter().all(Result::is_err), "round {round}: an offer came after the answer");
        let began = Instant::now();
        here.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
        slowest = slowest.max(began.elapsed());
        let decline = json!({"kind": "firmware_declined"});
        join_all(printers.iter_mut().map(|printer| printer.send_json(&decline))).await;
        here.wait("/api/updates?open=true", |list| list["updates"] == json!([])).await;
    }
    let all = (PRINTERS * ROUNDS) as usize;
    println!("{before} of {all} offers were out before the answer; the slowest took {slowest:?}");
    assert!(slowest < Duration::from_secs(8), "no answer waits for a lease: {slowest:?}");
    assert!(before > 0 && before < all, "{before} of {all} offers: the moments are not random");
    let offers: i64 =
        sqlx::query_scalar("select count(*) from update_history").fetch_one(&pool).await.unwrap();
    assert_eq!(offers, before as i64, "a claim that was never sent is taken back");
    drop(printers);
    here.stop().await;
    there.stop().await;
}

#[sqlx::test]
async fn a_replica_that_hangs_delays_an_answer_until_its_lease_is_over(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    server.release("1.5.0", "stable").await;
    let path = roll_out(&server).await;
    let pause = async |status: &str| {
        let began = Instant::now();
        let rollout: Value = server.patch(&path, &json!({"status": status})).await.expect(200);
        assert_eq!(rollout["status"], status);
        began.elapsed()
    };
    assert!(pause("paused").await < QUICK);
    // It lives, says the database, and takes note of nothing.
    let until: DateTime<Utc> = sqlx::query_scalar(
        "insert into replicas (id, name, lease_until) values ($1, 'frozen', clock_timestamp() + interval '5 seconds') \
         returning lease_until",
    )
    .bind(uuid::Uuid::now_v7())
    .fetch_one(&pool)
    .await
    .unwrap();
    pause("active").await;
    // By the clock that the lease goes by.
    let late: f64 = sqlx::query_scalar("select extract(epoch from clock_timestamp() - $1)::float8")
        .bind(until)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!((0.0..4.0).contains(&late), "answered {late} s after the lease");
    assert!(pause("paused").await < QUICK);
    server.stop().await;
}

/// It has something to tell and nobody to tell it to, at every try at once.
#[sqlx::test]
async fn a_guard_without_a_database_ends_when_it_is_told_to(pool: PgPool) {
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let config = config(&pool, "http://127.0.0.1:9", &keys);
    let store = Store::connect(&config.storage).await;
    let (state, _queue) = app::assemble(&config, pool.clone(), store, Clock::system()).unwrap();
    pool.close().await;
    let (hints, heard) = broadcast::channel(8);
    hints.send(Hint::Everything).unwrap();
    let stop = CancellationToken::new();
    let (ended, is_over) = std::sync::mpsc::channel();
    // On a thread of its own: one that spins would let nothing else run.
    let guard = state.engine.clone().guard(heard, stop.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(guard);
        ended.send(()).unwrap();
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    stop.cancel();
    is_over.recv_timeout(SOON).expect("the guard ends");
}

/// When hints came, until the stop. On a thread of its own: the runtime of a busy test would hear them in bunches.
async fn hear_hints(pool: &PgPool, stop: CancellationToken) -> JoinHandle<Vec<Instant>> {
    let options = pool.connect_options().as_ref().clone();
    let (listens, standing) = oneshot::channel();
    let hear = async move {
        let pool = PgPool::connect_with(options).await.unwrap();
        let mut listener = PgListener::connect_with(&pool).await.unwrap();
        listener.listen("paperminder").await.unwrap();
        listens.send(()).unwrap();
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                hint = listener.recv() => drop(hint.map(|_| heard.push(Instant::now()))),
            }
        }
        drop(listener);
        pool.close().await;
        heard
    };
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(hear)
    };
    let task = tokio::task::spawn_blocking(run);
    standing.await.unwrap();
    task
}

/// Reports free places of a limited rollout, which printers on other replicas may wait for.
#[sqlx::test]
async fn a_flood_of_reports_is_hinted_at_most_twenty_times_a_second(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    server.release("1.5.0", "stable").await;
    let stop = CancellationToken::new();
    let heard = hear_hints(&pool, stop.clone()).await;
    let fleet = Fleet::start(FleetOptions::of(FLOOD, |index| server.printer(index))).unwrap();
    server.wait("/api/printers", |list| list["total"] == FLOOD).await;
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate", "max_in_flight": 30});
    server.rollout(wanted).await;
    server.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == FLOOD).await;
    stop.cancel();
    let heard = heard.await.unwrap();
    // How many more came between two moments than a second has, times the seconds in between. Those of a second that come
    // late, and together, are one second's more; what has no bound is soon far above.
    let ahead = |(from, since): (usize, &Instant)| {
        let later = heard[from..].iter().enumerate();
        let ahead = later.map(|(more, at)| more as f64 - A_SECOND * (*at - *since).as_secs_f64());
        ahead.fold(0.0, f64::max)
    };
    let most = heard.iter().enumerate().map(ahead).fold(0.0, f64::max);
    let over = heard.last().unwrap().duration_since(heard[0]);
    println!("{} hints in {over:?} for {FLOOD} printers with 3 reports each, {most:.1} ahead", heard.len());
    assert!(heard.len() > 1 && most < A_SECOND, "{} hints in {over:?}, {most:.1} ahead", heard.len());
    fleet.stop().await;
    server.stop().await;
}
