//! One printer with two sockets, on two replicas, taking turns.

use std::time::Duration;

use paperminder_ota::simulate::{Mode, Noise, Printer, PrinterOptions, offer_of};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use super::rules::{About, check};
use super::story;
use super::world::{MARK, World};
use crate::support::SOON;

const SEED: u64 = 7;
const ROUNDS: u64 = 36;

/// What is heard until the server answers that it has read everything; none when the socket is gone.
async fn marked(printer: &mut Printer) -> Option<Option<String>> {
    let mut offered = None;
    printer.send_raw(MARK).await.ok()?;
    loop {
        let message = printer.next_message(SOON).await.ok()?;
        match offer_of(&message) {
            Some(offer) => offered = Some(offer.version.to_string()),
            None if message["code"] == "malformed_json" => return Some(offered),
            None => {}
        }
    }
}

#[sqlx::test]
async fn a_printer_that_is_connected_twice_has_one_offer_and_stays_online(pool: PgPool) {
    println!("seed {SEED}");
    let mut chance = Noise::new(SEED);
    let mut world = World::of(&pool, 3, &[]).await;
    let options = |replica: usize, version: &str| PrinterOptions {
        server: format!("ws://{}", world.replica(replica).address).into(),
        firmware_version: version.into(),
        mode: Mode::Polite,
        ..world.printer(2)
    };
    let mut runs = "1.0.0".to_owned();
    let mut newest = Printer::online(options(0, &runs)).await.unwrap();
    marked(&mut newest).await.unwrap();
    let path = format!("/api/printers/{}", newest.id());
    let (mut installed, mut offers) = (0, 0);
    for round in 1..=ROUNDS {
        let version = format!("1.{round}.0");
        world.release(&world.base(0), &version).await;
        let rollout = world.rollout(&world.base(chance.next() as usize % 3), &version, json!({})).await;
        // From before the offer to after it.
        sleep(Duration::from_micros(chance.next() % 30_000)).await;
        let mut newer = Printer::online(options(round as usize % 3, &runs)).await.unwrap();
        // The old socket still talks, until it is told that it is old.
        let old = marked(&mut newest).await;
        // Whoever is told there that the printer took it need not offer it here as well.
        let taken = round % 4 == 0 && old == Some(Some(version.clone()));
        if taken {
            let progress = json!({"kind": "firmware_progress", "percent": 10, "status": "old"});
            let _ = newest.send_json(&progress).await;
        }
        let offered = marked(&mut newer).await.unwrap();
        let mut offered = offered.or(taken.then(|| version.clone()));
        if offered.is_none() {
            let offer = newer.next_offer(SOON).await;
            let Ok(offer) = offer else {
                let history = world.history().await;
                check(&history);
                panic!("nothing was offered in round {round}\n{}", story::of_waiting(&history, rollout.id));
            };
            offered = Some(offer.version.to_string());
        }
        assert_eq!(offered.as_deref(), Some(version.as_str()), "round {round}");
        offers += 1;
        if round % 2 == 0 {
            newest.drop_hard();
        } else {
            let _ = newest.close().await;
        }
        newest = newer;
        sleep(Duration::from_millis(30)).await;
        let row = world.get(chance.next() as usize % 3, &path).await;
        if row["online"] != true {
            let about = About::Printer(row["id"].as_str().unwrap().parse().unwrap());
            panic!("it is offline, in round {round}\n{}", story::of(&world.history().await, &about));
        }
        match round % 3 {
            0 => {
                newest.send_json(&json!({"kind": "firmware_declined", "version": version})).await.unwrap();
                marked(&mut newest).await.unwrap();
            }
            1 => {
                newest.send_json(&json!({"kind": "firmware_complete", "version": version})).await.unwrap();
                installed += 1;
                newest.close().await.unwrap();
                runs = version;
                newest = Printer::online(options(chance.next() as usize % 3, &runs)).await.unwrap();
                marked(&mut newest).await.unwrap();
            }
            _ => {
                newest.send_json(&json!({"kind": "firmware_failed", "error": "no"})).await.unwrap();
                marked(&mut newest).await.unwrap();
            }
        }
        world.ask(&world.base(chance.next() as usize % 3), rollout, "cancelled").await;
        marked(&mut newest).await.unwrap();
    }
    println!("{offers} offers, {installed} installed");
    drop(newest);
    check(&world.history().await);
    world.end().await;
}
