//! Limits hold across replicas: `max_in_flight` and `rate_per_minute`.

use paperminder_ota::simulate::{Fate, Fleet, FleetOptions, Pace, PrinterOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{MINUTE, QUIET, check_sum, clocked, pass, path, printers, says, to_all};
use crate::support::Server;

/// As many printers on each of two replicas.
async fn halves(one: &Server, two: &Server, each: u64) -> [Fleet; 2] {
    let slow = |printer: PrinterOptions| {
        let pace = Pace { before_download: QUIET / 12, ..printer.pace };
        PrinterOptions { pace, ..printer }
    };
    let start = |server: &Server, first| {
        let printers = printers(server, first, each, "1.0.0", Fate::Install).into_iter().map(slow);
        Fleet::start(FleetOptions::from(printers.collect::<Vec<_>>())).unwrap()
    };
    let fleets = [start(one, 0), start(two, 1000)];
    one.wait("/api/printers?online=true", |list| list["total"] == 2 * each).await;
    fleets
}

fn offers(fleets: &[Fleet; 2]) -> u64 {
    fleets.iter().map(|fleet| fleet.snapshot().offers).sum()
}

/// The database itself notes how many updates are open whenever one is opened.
async fn watch_open(pool: &PgPool) {
    sqlx::raw_sql(
        "create table peaks (open bigint); \
         create function note_peak() returns trigger language plpgsql security definer as \
             $$ begin insert into peaks select count(*) from update_history where open; return null; end $$; \
         create trigger note_peak after insert on update_history for each statement execute function note_peak()",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test]
async fn no_more_updates_are_open_than_max_in_flight_on_two_replicas(pool: PgPool) {
    let one = Server::start(pool).await;
    let two = one.twin().await;
    one.release("1.5.0", "stable").await;
    watch_open(&one.pool).await;
    let fleets = halves(&one, &two, 20).await;
    let rollout = two.rollout(to_all("1.5.0", json!({"max_in_flight": 5}))).await;
    says(&rollout, json!({"max_in_flight": 5, "total_targets": 40}));
    let done = |rollout: &Value| {
        check_sum(rollout);
        assert!(rollout["in_flight_count"].as_i64() <= Some(5), "{rollout}");
        rollout["confirmed_count"] == 40
    };
    one.wait(&path(&rollout), done).await;
    let peak: i64 = sqlx::query_scalar("select max(open) from peaks").fetch_one(&one.pool).await.unwrap();
    assert_eq!(peak, 5, "as many as allowed, and never more");
    let [first, second] = fleets;
    let (first, second) = (first.stop().await, second.stop().await);
    assert_eq!((first.offers, second.offers, first.double_offers + second.double_offers), (20, 20, 0));
    two.stop().await;
    one.stop().await;
}

#[sqlx::test]
async fn no_more_offers_are_made_in_a_minute_than_the_rate_on_two_replicas(pool: PgPool) {
    let (one, clock) = clocked(pool, &[]).await;
    let two = one.twin().await;
    one.release("1.5.0", "stable").await;
    let fleets = halves(&one, &two, 12).await;
    let path = path(&one.rollout(to_all("1.5.0", json!({"rate_per_minute": 10}))).await);
    for expected in [10, 20, 24] {
        one.wait(&path, |rollout| rollout["confirmed_count"] == expected).await;
        for moment in [MINUTE / 2, MINUTE / 2 - QUIET] {
            clock.advance(moment);
            pass(&one).await;
            pass(&two).await;
            assert_eq!(offers(&fleets), expected, "the minute is not over");
        }
        clock.advance(QUIET);
    }
    for fleet in fleets {
        fleet.stop().await;
    }
    two.stop().await;
    one.stop().await;
}

#[sqlx::test]
async fn a_rate_grows_as_printers_prove_themselves(pool: PgPool) {
    let (server, clock) = clocked(pool, &[]).await;
    server.release("1.5.0", "stable").await;
    let fleet = super::known(&server, printers(&server, 0, 25, "1.0.0", Fate::Install)).await;
    let rate = json!({"base": 5, "factor": 2, "per_confirmed": 5, "max": 20});
    let rollout = server.rollout(to_all("1.5.0", json!({"rate_per_minute": rate}))).await;
    assert_eq!(rollout["rate_per_minute"], rate);
    // 5, then 10 and 20 within the same minute, but never above 20.
    server.wait(&path(&rollout), |rollout| rollout["confirmed_count"] == 20).await;
    pass(&server).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(fleet.snapshot().offers, 20);
    clock.advance(MINUTE);
    server.wait(&path(&rollout), |rollout| rollout["confirmed_count"] == 25).await;
    fleet.stop().await;
    server.stop().await;
}
