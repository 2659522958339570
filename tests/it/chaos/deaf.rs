//! A replica that does not hear what the others do: its connection for LISTEN is silent, cut, or ended by PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use paperminder_ota::simulate::{Printer, PrinterOptions, offer_of};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use super::rules::check;
use super::world::{MARK, World};
use crate::support::SOON;
use crate::support::process::{database_url, server_url};
use crate::support::proxy::{Proxy, Target};

/// Three scans, on a busy machine.
const SECONDS: Duration = Duration::from_secs(18);
const PRINTERS: u64 = 6;
/// Batches of one kind that a replica writes at once.
const WRITERS: usize = 4;

/// Three replicas, the last of which reaches the database over a wire; its printers.
async fn one_behind_a_wire(pool: &PgPool) -> (World, Proxy, Vec<Printer>) {
    let wire = Proxy::start(Target::database(pool)).await;
    let mut world = World::new(database_url(pool), server_url(pool).await, 3).await;
    world.start(0, &[]).await;
    world.start(1, &[]).await;
    world.start(2, &[("DATABASE_URL", &wire.database_url(pool))]).await;
    let line = format!("ws://{}", world.replica(2).address);
    let options = |index| PrinterOptions { server: line.as_str().into(), ..world.printer(index) };
    let printers = join_all((0..PRINTERS).map(|index| Printer::online(options(index)))).await;
    (world, wire, printers.into_iter().map(Result::unwrap).collect())
}

/// What the printer was offered before the server answered this.
async fn marked(printer: &mut Printer) -> usize {
    printer.send_raw(MARK).await.unwrap();
    let mut offers = 0;
    loop {
        let message = printer.next_message(SOON).await.unwrap();
        match offer_of(&message) {
            Some(_) => offers += 1,
            None if message["code"] == "malformed_json" => return offers,
            None => {}
        }
    }
}

#[sqlx::test]
async fn what_happens_on_another_replica_arrives_in_seconds(pool: PgPool) {
    let (mut world, wire, mut printers) = one_behind_a_wire(&pool).await;
    let (here, from) = (world.base(0), world.now());
    for (round, how) in ["silent", "cut", "ended by PostgreSQL"].into_iter().enumerate() {
        let version = format!("1.{}.0", round + 1);
        world.release(&here, &version).await;
        join_all(printers.iter_mut().map(marked)).await;
        match how {
            "silent" => wire.freeze_listeners(),
            "cut" => wire.cut_listeners(),
            _ => {
                wire.mend();
                // By its heartbeat it may have said something else last.
                let ended: i64 = sqlx::query_scalar(
                    "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity \
                     where datname = current_database() and state = 'idle' and (query like 'LISTEN%' or query = 'select 1')",
                )
                .fetch_one(&pool)
                .await
                .unwrap();
                assert!(ended > 0);
            }
        }
        let began = Instant::now();
        let rollout = world.rollout(&here, &version, json!({})).await;
        let offers = join_all(printers.iter_mut().map(|printer| printer.next_offer(SECONDS))).await;
        println!("{how}: offered after {:?}", began.elapsed());
        assert!(offers.into_iter().all(|offer| *offer.unwrap().version == *version), "{how}");
        let paused = world.ask(&here, rollout, "paused").await;
        println!("{how}: a pause was answered after {paused:?}");
        assert!(paused < Duration::from_secs(15), "{how}: a pause took {paused:?}");
        join_all(printers.iter_mut().map(async |printer| {
            printer.send_json(&json!({"kind": "firmware_failed", "error": "no"})).await.unwrap();
            assert_eq!(marked(printer).await, 0, "it was paused");
        }))
        .await;
        // The second try waits for the resume, which it has to hear of as well.
        world.ask(&here, rollout, "active").await;
        let began = Instant::now();
        let offers = join_all(printers.iter_mut().map(|printer| printer.next_offer(SECONDS))).await;
        println!("{how}: offered again after {:?}", began.elapsed());
        assert!(offers.into_iter().all(|offer| *offer.unwrap().version == *version), "{how}");
        join_all(printers.iter_mut().map(async |printer| {
            printer.send_json(&json!({"kind": "firmware_declined"})).await.unwrap();
            marked(printer).await
        }))
        .await;
    }
    wire.mend();
    world.fault("a replica did not hear", from);
    check(&world.history().await);
    drop(printers);
    world.end().await;
}

/// An offer that was claimed, and whose socket is busy with something else when the cancel is answered.
#[sqlx::test]
async fn a_cancel_is_not_answered_before_a_replica_that_does_not_hear_took_note(pool: PgPool) {
    let (mut world, wire, mut printers) = one_behind_a_wire(&pool).await;
    let here = world.base(0);
    world.release(&here, "1.5.0").await;
    join_all(printers.iter_mut().map(marked)).await;
    let from = world.now();
    wire.freeze_listeners();
    // They keep all those busy who write down what printers on this replica say, so one more has to wait.
    let (slow, others) = printers.split_at_mut(WRITERS);
    let printer = &mut others[0];
    let held: Vec<_> = slow.iter().map(|printer| printer.id().to_string()).collect();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("select 1 from printers where printer_id = any($1) for update")
        .bind(&held[..])
        .execute(&mut *tx)
        .await
        .unwrap();
    for printer in slow.iter_mut().chain([&mut *printer]) {
        printer.subscribe().await.unwrap();
        sleep(Duration::from_millis(300)).await;
    }
    let id = printer.id();
    let rollout = world.rollout(&here, "1.5.0", json!({"target": {"printer_ids": [&*id]}})).await;
    let deadline = Instant::now() + SECONDS;
    let claims = async || -> i64 {
        sqlx::query_scalar("select count(*) from update_history").fetch_one(&pool).await.unwrap()
    };
    while claims().await == 0 {
        assert!(Instant::now() < deadline, "nothing is claimed");
        sleep(Duration::from_millis(20)).await;
    }
    let took = world.ask(&here, rollout, "cancelled").await;
    println!("the cancel was answered after {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    tx.rollback().await.unwrap();
    let deadline = Instant::now() + SECONDS;
    while claims().await > 0 {
        assert!(Instant::now() < deadline, "the claim is not taken back");
        sleep(Duration::from_millis(20)).await;
    }
    let late = marked(&mut printers[WRITERS]).await;
    wire.mend();
    world.fault("a replica did not hear", from);
    check(&world.history().await);
    assert_eq!(late, 0, "nothing comes after the answer");
    drop(printers);
    world.end().await;
}
