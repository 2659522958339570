//! `max_in_flight` holds at every commit, however many claim at once.

use std::time::Duration;

use futures_util::future::join_all;
use paperminder_ota::db;
use paperminder_ota::simulate::{Fleet, FleetOptions, Pace, PrinterOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::rules::{self, check, check_end};
use super::world::World;
use crate::support::Server;
use crate::support::process::{database_url, server_url};

const REPLICAS: usize = 4;
/// Looks at once in each of them, besides its own.
const EACH: usize = 4;
const PRINTERS: u64 = 160;
const IN_FLIGHT: usize = 50;

/// The replicas run inside this process, because only there may sixteen tasks have their engines look at everyone, which
/// is to claim, again and again and at the same time. A process of its own does so once in a while.
#[sqlx::test]
async fn fifty_in_flight_with_sixteen_claimers_on_four_replicas(pool: PgPool) {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
        runtime.unwrap().block_on(claim(pool));
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

async fn claim(pool: PgPool) {
    let mut world = World::new(database_url(&pool), server_url(&pool).await, REPLICAS).await;
    let start = |_| Server::on_bucket(pool.clone(), world.storage(&pool), &[]);
    let servers = join_all((0..REPLICAS).map(start)).await;
    for (replica, server) in servers.iter().enumerate() {
        world.balancer.put(replica, server.app().address);
    }
    let here = servers[0].url("");
    world.release(&here, "1.5.0").await;
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| {
        let printer = world.printer(index);
        let pace = Pace { before_download: Duration::from_millis(200 + index * 7 % 400), ..printer.pace };
        PrinterOptions { pace, ..printer }
    }))
    .unwrap();
    world.connected(&fleet, PRINTERS).await;
    let mut claimers = JoinSet::new();
    for engine in servers.iter().map(|server| server.app().state.engine.clone()) {
        for _ in 0..EACH {
            let engine = engine.clone();
            claimers.spawn(async move {
                loop {
                    // So many at once may have to wait for longer than the database lets them.
                    if let Err(error) = engine.scan().await {
                        assert!(db::is_unavailable(&error), "{error}");
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    let rollout = world.rollout(&here, "1.5.0", json!({"max_in_flight": IN_FLIGHT})).await;
    let watch = world.watch(&fleet, Some((here.clone(), rollout)));
    world.rests(&here, rollout, PRINTERS).await;
    drop(watch);
    claimers.shutdown().await;
    fleet.stop().await;
    let history = world.history().await;
    check(&history);
    check_end(&history, "1.5.0", PRINTERS as usize);
    assert_eq!(rules::peak(&history, rollout.id), IN_FLIGHT, "the limit was reached");
    for server in servers {
        server.stop().await;
    }
}
