//! Counters, counted from the rows when they are asked for, and the resting state that follows from them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ids::RolloutId;

/// How long news are gathered before they are counted.
const GATHER: Duration = Duration::from_millis(50);
/// How often every rollout that makes offers is counted, whatever was heard.
const SAFETY_NET: Duration = Duration::from_secs(10);

/// Longest count. One that hangs is given up and repeated.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far a rollout is. completed + failed + declined + pending = total.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Printers that it can serve, and all that it has an update for.
    pub total: i64,
    /// Of these, those that reported or proved success.
    pub completed: i64,
    /// Of the completed, those that came back on the new version.
    pub confirmed: i64,
    /// Those whose tries are used up.
    pub failed: i64,
    /// Those that said no.
    pub declined: i64,
    /// All others.
    pub pending: i64,
    /// Printers of the target that it cannot serve, by reason.
    pub excluded: BTreeMap<String, i64>,
}

impl Counters {
    fn add(&mut self, class: &str, count: i64) {
        let field = match class {
            "completed" => &mut self.completed,
            "failed" => &mut self.failed,
            "declined" => &mut self.declined,
            "pending" => &mut self.pending,
            reason => {
                *self.excluded.entry(reason.to_owned()).or_default() += count;
                return;
            }
        };
        *field += count;
        self.total += count;
    }
}

/// Counts these rollouts in one snapshot. A printer counts once, by its last attempt; as failed only when its tries
/// are used up or it cannot be tried again. The conditions are those of [`super::decide`], in the same order.
pub async fn count(
    conn: &mut PgConnection,
    rollouts: &[RolloutId],
) -> Result<HashMap<RolloutId, Counters>, sqlx::Error> {
    let ids: Vec<_> = rollouts.iter().map(|rollout| rollout.0).collect();
    let rows = sqlx::query!(
        r#"with r as (select * from update_rollouts where id = any($1)),
           last as (
               select distinct on (u.rollout_id, u.printer) u.rollout_id, u.printer, u.status, u.open, u.attempt, u.confirmed_at
               from update_history u where u.rollout_id = any($1) and u.status <> 'cancelled'
               order by u.rollout_id, u.printer, u.attempt desc
           ),
           target as (
               select r.id as rollout_id, p.id as printer,
                   case when f.id is null then 'no_release_for_platform'
                        when p.version_key >= f.version_key then 'not_older'
                        when not p.auto_update and not f.mandatory then 'auto_update_off'
                        when p.version_key < f.min_upgrade_version_key then 'below_min_upgrade_version'
                   end as excluded
               from r join printers p on
                   (r.target_all or (r.target_user_ids is null and r.target_printer_ids is null)
                       or p.user_id = any(r.target_user_ids) or p.printer_id = any(r.target_printer_ids))
                   and (r.target_channels is null or p.update_channel = any(r.target_channels))
                   and (r.min_version_key is null or p.version_key >= r.min_version_key)
                   and (r.max_version_key is null or p.version_key <= r.max_version_key)
               left join lateral (
                   select f.id, f.version_key, f.mandatory, f.min_upgrade_version_key from firmware_versions f
                   where f.version = r.firmware_version and f.platform = p.platform and f.deprecated_at is null
                       and (r.channel is null or f.channel = r.channel)
                   order by (f.channel = p.update_channel) desc, case f.channel when 'stable' then 0 when 'beta' then 1 else 2 end
                   limit 1
               ) f on true
           )
           select r.id as "rollout!",
               case when l.status in ('completed', 'declined') then l.status
                    when l.open then 'pending'
                    when l.status = 'failed' and (l.attempt >= r.max_attempts or t.printer is null or t.excluded is not null) then 'failed'
                    when t.excluded is not null then t.excluded
                    else 'pending'
               end as "class!",
               count(*) as "count!", count(l.confirmed_at) as "confirmed!"
           from target t full join last l on l.rollout_id = t.rollout_id and l.printer = t.printer
           join r on r.id = coalesce(t.rollout_id, l.rollout_id)
           group by 1, 2"#,
        &ids
    );
    let mut counters: HashMap<RolloutId, Counters> =
        rollouts.iter().map(|rollout| (*rollout, Counters::default())).collect();
    for row in rows.fetch_all(conn).await? {
        let of = counters.entry(RolloutId(row.rollout)).or_default();
        of.add(&row.class, row.count);
        of.confirmed += row.confirmed;
    }
    Ok(counters)
}

/// Gathers which rollouts had news, and lets them rest or wakes them.
#[derive(Debug, Default)]
pub struct Tally {
    news: Mutex<HashSet<RolloutId>>,
    wake: Notify,
}

impl Tally {
    /// Something of this rollout moved.
    pub fn moved(&self, rollout: RolloutId) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(rollout);
        self.wake.notify_one();
    }

    /// Works until `stop`, then once more.
    pub async fn run(&self, pool: PgPool, stop: CancellationToken) {
        let mut safety_net = tokio::time::interval(SAFETY_NET);
        loop {
            let mut everything = false;
            tokio::select! {
                () = stop.cancelled() => {}
                _ = safety_net.tick() => everything = true,
                () = self.wake.notified() => tokio::time::sleep(GATHER).await,
            }
            let news: Vec<_> = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
                .into_iter()
                .collect();
            if (everything || !news.is_empty())
                && let Err(error) = timeout(PATIENCE, settle(&pool, &news, everything))
                    .await
                    .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            {
                tracing::warn!(%error, "the counters could not be settled and will be later");
                self.news.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }
}

/// Brings the resting state of these rollouts, or of all that make offers, in line with their counters.
async fn settle(pool: &PgPool, news: &[RolloutId], everything: bool) -> Result<(), sqlx::Error> {
    let mut conn = pool.acquire().await?;
    let ids: Vec<_> = news.iter().map(|rollout| rollout.0).collect();
    let rollouts = sqlx::query!(
        "select id, status from update_rollouts where status in ('active', 'completed') and deleted_at is null and (id = any($1) or $2)",
        &ids,
        everything
    );
    let rollouts = rollouts.fetch_all(&mut *conn).await?;
    let counters =
        count(&mut conn, &rollouts.iter().map(|row| RolloutId(row.id)).collect::<Vec<_>>()).await?;
    for row in rollouts {
        let Some(counters) = counters.get(&RolloutId(row.id)) else { continue };
        let rests = counters.pending == 0 && counters.total > 0;
        let (from, to) = if rests { ("active", "completed") } else { ("completed", "active") };
        // Nobody was a target: neither completed nor woken.
        if row.status == from && (rests || counters.pending > 0) {
            sqlx::query!(
                "update update_rollouts set status = $3, updated_at = now() where id = $1 and status = $2",
                row.id,
                from,
                to
            )
            .execute(&mut *conn)
            .await?;
        }
    }
    Ok(())
}
