//! `POST /api/rollouts?dry_run=true`: what a rollout would do. It is written, counted and rolled back, so it says what the
//! real one will say.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

use super::create::write;
use super::{Catalog, Error, Rollout, Wanted, census, count, db};
use crate::auth::Caller;
use crate::clock::Time;
use crate::ids::PrinterId;
use crate::printers::Cohort;

/// Examples of each outcome.
const EXAMPLES: usize = 5;
/// Printers that examples are looked for among.
const LOOKED_AT: i64 = 500;
/// What an update takes where none was ever confirmed: download, reboot and reconnect of a device.
const TYPICAL: TimeDelta = TimeDelta::seconds(90);

/// What a rollout would do to the fleet as it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "total_targets": 150, "stepping_stones": 12, "excluded": {"not_older": 12}, "by_version": {"1.4.0": 138, "1.0.0": 12},
    "by_channel": {"stable": 150}, "by_platform": {"esp8266": 150},
    "examples": {"1.5.0": ["770e8400-e29b-41d4-a716-446655440000"], "not_older": ["880e8400-e29b-41d4-a716-446655440001"]},
    "in_first_step": 15, "typical_update_seconds": 90, "lasts_at_least_seconds": 3690, "peak_bytes_per_second": 582542
}))]
pub struct DryRun {
    /// Printers that it can serve.
    total_targets: i64,
    /// Of these, those that get a release in between first.
    stepping_stones: i64,
    /// Printers of the target that it cannot serve, by reason.
    excluded: BTreeMap<String, i64>,
    /// Printers that it can serve, by what they run.
    by_version: BTreeMap<String, i64>,
    /// The same by channel.
    by_channel: BTreeMap<String, i64>,
    /// The same by platform.
    by_platform: BTreeMap<String, i64>,
    /// A few printers for each version that would be offered, and for each reason of exclusion.
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    examples: BTreeMap<String, Vec<PrinterId>>,
    /// About how many are in at first: the percentage, or that of the first step.
    in_first_step: i64,
    /// Median of the last 1,000 confirmed updates; 90 when there is none, or the key is not for all printers.
    typical_update_seconds: i64,
    /// What soaks, the rate and the bound in flight leave, if every printer is connected; offline ones come on top.
    lasts_at_least_seconds: i64,
    /// About what the images need while as many as allowed are in flight.
    peak_bytes_per_second: i64,
}

/// Tells what a rollout would do. Nothing stays written.
pub async fn dry_run(
    pool: &PgPool,
    caller: &Caller,
    wanted: Wanted,
    max_attempts: u32,
    now: Time,
) -> Result<DryRun, Error> {
    let mut tx = pool.begin().await?;
    // A number that no real rollout has, and none from the sequence.
    let rollout = write(&mut tx, caller, wanted, max_attempts, Some(-now.timestamp_micros()), now).await?;
    let counters =
        count(&mut tx, std::slice::from_ref(&rollout)).await?.remove(&rollout.id).unwrap_or_default();
    let catalog = db::catalog(&mut tx).await?;
    let population = match rollout.target.is_open() {
        true => census::fleet(&mut tx).await?,
        false => census::named(&mut tx, &rollout).await?,
    };
    // How long the updates of others take is not for everybody.
    let typical = match caller.scope.is_all() {
        true => db::typical_update(&mut tx).await?.unwrap_or(TYPICAL),
        false => TYPICAL,
    };
    let examples = examples(&mut tx, &rollout, &catalog).await?;
    tx.rollback().await?;
    let mut run = DryRun {
        total_targets: counters.total,
        stepping_stones: 0,
        excluded: counters.excluded,
        by_version: BTreeMap::new(),
        by_channel: BTreeMap::new(),
        by_platform: BTreeMap::new(),
        examples,
        in_first_step: counters.total * i64::from(rollout.percentage) / 100,
        typical_update_seconds: typical.num_seconds().max(1),
        lasts_at_least_seconds: 0,
        peak_bytes_per_second: 0,
    };
    let mut size = 0;
    for (cohort, count) in population.iter().filter(|(cohort, _)| rollout.target.admits(cohort)) {
        if let Ok(pick) = catalog.pick(&rollout, cohort) {
            run.add(cohort, *count, pick.stone);
            size = size.max(pick.release.size);
        }
    }
    run.estimate(&rollout, size);
    Ok(run)
}

impl DryRun {
    fn add(&mut self, cohort: &Cohort, count: i64, stone: bool) {
        *self.by_version.entry(cohort.version.to_string()).or_default() += count;
        *self.by_channel.entry(cohort.channel.to_string()).or_default() += count;
        *self.by_platform.entry(cohort.platform.to_string()).or_default() += count;
        self.stepping_stones += if stone { count } else { 0 };
    }

    fn estimate(&mut self, rollout: &Rollout, size: i64) {
        let (total, typical) = (self.total_targets + self.stepping_stones, self.typical_update_seconds);
        let most = rollout.max_in_flight.map_or(total, i64::from).min(total);
        let in_flight = if most > 0 { (total + most - 1) / most * typical } else { 0 };
        let rate = rollout.rate.map_or(0, |rate| (total - 1).max(0) * 60 / i64::from(rate.base.max(1)));
        let soaks = rollout.steps.iter().flatten().map(|step| step.soak.delta().num_seconds());
        self.lasts_at_least_seconds = in_flight.max(rate) + soaks.sum::<i64>();
        let per_minute = rollout.rate.map_or(i64::MAX, |rate| i64::from(rate.max.max(rate.base)));
        let at_once = most.min(per_minute.saturating_mul(typical) / 60 + 1);
        self.peak_bytes_per_second = at_once * size / typical;
    }
}

/// A few printers for each outcome.
async fn examples(
    conn: &mut PgConnection,
    rollout: &Rollout,
    catalog: &Catalog,
) -> Result<BTreeMap<String, Vec<PrinterId>>, sqlx::Error> {
    let mut examples: BTreeMap<String, Vec<PrinterId>> = BTreeMap::new();
    for (printer, cohort) in db::some_named(conn, rollout.id, LOOKED_AT).await? {
        if !rollout.target.admits(&cohort) {
            continue;
        }
        let outcome = match catalog.pick(rollout, &cohort) {
            Ok(pick) => pick.release.version.to_string(),
            Err(why) => why.code().to_owned(),
        };
        let of = examples.entry(outcome).or_default();
        if of.len() < EXAMPLES {
            of.push(printer);
        }
    }
    Ok(examples)
}
