//! REST of statistics.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DurationRound as _, TimeDelta};
use sqlx::Connection as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::db::{self, Gathered};
use super::tally::{Outcomes, Tally};
use super::view::{Bucket, Rollouts, Stats, Updates, Window};
use crate::auth::Caller;
use crate::clock::Time;
use crate::http::problem::{Common, Problem};
use crate::http::{Params, cache};
use crate::state::AppState;

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stats))
}

/// Statistics for dashboards.
///
/// Counted at this moment, in one snapshot. Percentiles of durations are within 5 % of the exact value.
#[utoipa::path(get, path = "/api/stats", operation_id = "getStats", tag = "stats",
    responses((status = 200, description = "The statistics", body = Stats), Common))]
async fn stats(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let (now, scope) = (app.clock.now(), &*caller.scope);
    let (hours, days) = (frame(now, TimeDelta::hours(1), 24), frame(now, TimeDelta::days(1), 30));
    let mut conn = app.pool.acquire().await?;
    let mut tx = conn.begin_with("begin isolation level repeatable read read only").await?;
    let gathered = db::outcomes(&mut tx, scope, days[0], hours[0]).await?;
    let stats = Stats {
        at: now,
        printers: db::printers(&mut tx, scope).await?,
        rollouts: Rollouts {
            by_status: db::rollouts(&mut tx, scope).await?,
            active: db::active(&mut tx, scope).await?,
        },
        updates: Updates {
            open: db::open(&mut tx, scope).await?,
            last_24_hours: window(&gathered.recent, &gathered, &hours),
            last_30_days: window(&gathered.all, &gathered, &days),
            by_version: outcomes(&gathered.versions),
            by_platform: outcomes(&gathered.platforms),
            by_channel: outcomes(&gathered.channels),
            errors: db::errors(&mut tx, scope).await?,
        },
    };
    tx.commit().await?;
    cache::tagged(&headers, 0, &stats)
}

/// The begins of the last `count` stretches of this length, the current one included, in UTC.
fn frame(now: Time, length: TimeDelta, count: i32) -> Vec<Time> {
    let current = now.duration_trunc(length).unwrap_or(now);
    (0..count).rev().map(|back| current - length * back).collect()
}

fn window(sum: &Tally, gathered: &Gathered, begins: &[Time]) -> Window {
    let bucket = |(index, at): (usize, &Time)| {
        let end = begins.get(index + 1);
        let inside =
            gathered.times.iter().filter(|(time, _)| *time >= at && end.is_none_or(|end| *time < end));
        let mut tally = Tally::default();
        inside.for_each(|(_, part)| tally.merge(part));
        let outcomes = tally.outcomes();
        let Outcomes { completed, failed, declined, cancelled, success_rate, .. } = outcomes;
        Bucket { at: *at, completed, failed, declined, cancelled, success_rate }
    };
    Window { outcomes: sum.outcomes(), buckets: begins.iter().enumerate().map(bucket).collect() }
}

fn outcomes(tallies: &BTreeMap<String, Tally>) -> BTreeMap<String, Outcomes> {
    tallies.iter().map(|(name, tally)| (name.clone(), tally.outcomes())).collect()
}
