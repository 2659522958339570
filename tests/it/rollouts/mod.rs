//! Rollouts, as an operator drives them.

mod agreement;
mod blast;
mod control;
mod counters;
mod dry_run;
mod requests;

use paperminder_ota::printers::bucket;
use paperminder_ota::simulate::{Fleet, FleetOptions};
use serde_json::Value;

use crate::support::{SOON, Server};

/// A fleet that is connected and subscribed.
async fn fleet(server: &Server, printers: u64) -> Fleet {
    let fleet = Fleet::start(FleetOptions::of(printers, |i| {
        if i % 2 == 0 { server.printer(i) } else { server.device(i) }
    }))
    .unwrap();
    fleet.wait_until(SOON, |fleet| fleet.subscribes >= printers).await.unwrap();
    fleet
}

/// How many printers of a fleet have a bucket below this.
fn below(fleet: &Fleet, percentage: u8) -> usize {
    fleet.printers().iter().filter(|printer| bucket(&printer.id().parse().unwrap()) < percentage).count()
}

fn path(rollout: &Value) -> String {
    format!("/api/rollouts/{}", rollout["number"])
}

/// The counters add up, whatever else they say.
#[track_caller]
fn check_sum(rollout: &Value) {
    let count = |name: &str| rollout[name].as_i64().unwrap();
    let sum =
        count("completed_count") + count("failed_count") + count("declined_count") + count("pending_count");
    assert_eq!(sum, count("total_targets"), "{rollout}");
}
