//! A thousand cancels and pauses, at random moments, on any replica.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use paperminder_ota::simulate::{Mode, Noise, Printer, PrinterOptions, offer_of};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use super::rules::check;
use super::world::{MARK, World};
use crate::support::SOON;

const SEED: u64 = 20_261_122;
/// Owners, each with printers and rollouts of its own, all at the same time.
const OWNERS: u64 = 20;
const PRINTERS: u64 = 3;
/// Rollouts of each owner: each is paused, resumed and cancelled.
const ROUNDS: u64 = 25;
/// A release is used again when nothing of its last rollout can be on its way.
const RELEASES: u64 = 8;

/// What is heard until the server answers that it has read everything.
async fn marked(printer: &mut Printer) -> Option<String> {
    let mut offered = None;
    printer.send_raw(MARK).await.unwrap();
    loop {
        let message = printer.next_message(SOON).await.unwrap();
        match offer_of(&message) {
            Some(offer) => offered = Some(offer.version.to_string()),
            None if message["code"] == "malformed_json" => return offered,
            None => {}
        }
    }
}

fn anywhere(world: &World, chance: &mut Noise) -> String {
    world.base(chance.next() as usize % 3)
}

/// One owner's printers and rollouts. Returns how many offers were out before the pauses, how many more before the
/// cancels, and the slowest answer.
async fn owner(world: &World, owner: u64) -> ([u64; 2], Duration) {
    let mut chance = Noise::new(SEED + owner);
    let mut printers = Vec::new();
    for index in 0..PRINTERS {
        let mut options = PrinterOptions { mode: Mode::Polite, ..world.printer(1000 * (owner + 1) + index) };
        options.identity.user_id = format!("owner-{owner}").into();
        printers.push(Printer::online(options).await.unwrap());
    }
    join_all(printers.iter_mut().map(marked)).await;
    let (mut before, mut slowest) = ([0; 2], Duration::ZERO);
    for round in 0..ROUNDS {
        let version = format!("1.{}.0", 1 + round % RELEASES);
        let target = json!({"target": {"user_ids": [format!("owner-{owner}")]}});
        let rollout = world.rollout(&anywhere(world, &mut chance), &version, target).await;
        // From before the first offer to after the last, and again.
        for wanted in ["paused", "cancelled"] {
            sleep(Duration::from_micros(chance.next() % 40_000)).await;
            slowest = slowest.max(world.ask(&anywhere(world, &mut chance), rollout, wanted).await);
            let offered = join_all(printers.iter_mut().map(marked)).await;
            for (printer, version) in printers.iter_mut().zip(offered) {
                let Some(version) = version else { continue };
                before[usize::from(wanted == "cancelled")] += 1;
                let decline = json!({"kind": "firmware_declined", "version": version});
                printer.send_json(&decline).await.unwrap();
            }
            if wanted == "paused" {
                slowest = slowest.max(world.ask(&anywhere(world, &mut chance), rollout, "active").await);
            }
        }
        // Nobody has an open offer when the next round begins.
        join_all(printers.iter_mut().map(marked)).await;
    }
    (before, slowest)
}

#[sqlx::test]
async fn nothing_leaves_after_any_of_a_thousand_cancels_and_pauses(pool: PgPool) {
    println!("seed {SEED}");
    let mut world = World::of(&pool, 3, &[]).await;
    for release in 1..=RELEASES {
        world.release(&world.base(0), &format!("1.{release}.0")).await;
    }
    let began = Instant::now();
    let done = join_all((0..OWNERS).map(|index| owner(&world, index))).await;
    let before = [0, 1].map(|what| done.iter().map(|(before, _)| before[what]).sum::<u64>());
    let slowest = done.iter().map(|(_, slowest)| *slowest).max().unwrap();
    let all = OWNERS * ROUNDS * PRINTERS;
    println!(
        "of {all} offers {} were out before the pause, {} before the cancel; {:?}, the slowest answer took {slowest:?}",
        before[0],
        before[1],
        began.elapsed()
    );
    let history = world.history().await;
    check(&history);
    let narrowed = history.answers.iter().filter(|answer| answer.wanted != "active").count();
    assert_eq!(narrowed as u64, 2 * OWNERS * ROUNDS);
    let both = before[0] + before[1];
    assert!(before.iter().all(|n| *n > 0) && both < all, "{before:?} of {all}: the moments are not random");
    assert!(slowest < Duration::from_secs(8), "no answer waits for a lease: {slowest:?}");
    world.end().await;
}
