//! Figures of the whole fleet for Prometheus. They come from the database, so one replica says them for all: the living one
//! with the smallest id. A rollout that is over says nothing any more, which gauges of a recorder cannot do.

use std::collections::BTreeMap;
use std::fmt;

use chrono::TimeDelta;
use sqlx::{Connection as _, PgConnection};

use super::db;
use crate::auth::Scope;
use crate::clock::Time;
use crate::ids::ReplicaId;
use crate::rollouts::{self, Counters, Status};

/// Rollouts that are told one by one; each is four time series.
const ROLLOUTS: i64 = 100;
/// Versions that are told one by one, those that most printers run; the others are told together.
const VERSIONS: usize = 20;
/// How long a rollout is told after it came to rest: what went wrong at its end should be seen by somebody.
const RESTED: TimeDelta = TimeDelta::days(1);
/// Silence of an open update that somebody should look at.
const SILENT: TimeDelta = TimeDelta::minutes(30);
/// Absence of a printer that somebody should look at.
const ABSENT: TimeDelta = TimeDelta::days(1);

/// The fleet at one moment.
#[derive(Debug, Default)]
pub struct Figures {
    at: Time,
    printers: i64,
    /// How many run which version, the most common first, at most [`VERSIONS`] and `other`.
    versions: Vec<(String, i64)>,
    offline: i64,
    silent: i64,
    rollouts: BTreeMap<String, i64>,
    held: i64,
    each: Vec<(i64, Status, Counters)>,
}

/// Looks at the fleet, if `replica` is the one that does.
pub async fn figures(
    conn: &mut PgConnection,
    replica: ReplicaId,
    now: Time,
) -> Result<Option<Figures>, sqlx::Error> {
    let chosen = sqlx::query_scalar!("select id from replicas where lease_until > now() order by id limit 1");
    if chosen.fetch_optional(&mut *conn).await? != Some(replica.0) {
        return Ok(None);
    }
    let mut tx = conn.begin().await?;
    rollouts::snapshot(&mut tx).await?;
    let current = rollouts::current(&mut tx, now - RESTED, ROLLOUTS).await?;
    let mut counters = rollouts::count(&mut tx, &current).await?;
    let mut statuses = db::rollouts(&mut tx, &Scope::default()).await?;
    for status in Status::ALL {
        statuses.entry(status.as_str().to_owned()).or_default();
    }
    let printers = db::printers(&mut tx, &Scope::default()).await?;
    Ok(Some(Figures {
        at: now,
        printers: printers.total,
        versions: most_common(printers.by_version),
        offline: db::offline(&mut tx, now - ABSENT).await?,
        silent: db::silent(&mut tx, now - SILENT).await?,
        rollouts: statuses,
        held: db::held(&mut tx).await?,
        each: current
            .into_iter()
            .filter_map(|rollout| Some((rollout.number, rollout.status, counters.remove(&rollout.id)?)))
            .collect(),
    }))
}

fn most_common(by_version: BTreeMap<String, i64>) -> Vec<(String, i64)> {
    let mut versions: Vec<_> = by_version.into_iter().collect();
    versions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others = versions.split_off(versions.len().min(VERSIONS));
    if !others.is_empty() {
        versions.push(("other".into(), others.iter().map(|(_, count)| count).sum()));
    }
    versions
}

/// As Prometheus reads it.
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = |f: &mut fmt::Formatter<'_>, name: &str, meaning: &str| {
            write!(f, "# HELP {name} {meaning}\n# TYPE {name} gauge\n")
        };
        let single = [
            ("paperminder_printers_known", "Printers that ever connected", self.printers),
            (
                "paperminder_printers_offline",
                "Printers that were last seen more than a day ago",
                self.offline,
            ),
            (
                "paperminder_updates_silent",
                "Open updates without a word for more than 30 minutes",
                self.silent,
            ),
            (
                "paperminder_rollouts_paused_by_rule",
                "Rollouts that stand still because a threshold was crossed",
                self.held,
            ),
            (
                "paperminder_fleet_measured_timestamp_seconds",
                "When the figures of the fleet were read",
                self.at.timestamp(),
            ),
        ];
        for (name, meaning, value) in single {
            head(f, name, meaning)?;
            writeln!(f, "{name} {value}")?;
        }
        let name = "paperminder_printers";
        head(f, name, "Printers that ever connected, by the version they run; the rarer ones are `other`")?;
        for (version, count) in &self.versions {
            writeln!(f, "{name}{{version=\"{version}\"}} {count}")?;
        }
        let name = "paperminder_rollouts";
        head(f, name, "Rollouts, by status")?;
        for (status, count) in &self.rollouts {
            writeln!(f, "{name}{{status=\"{status}\"}} {count}")?;
        }
        let name = "paperminder_rollout_printers";
        head(
            f,
            name,
            "Printers of each current rollout, by how it ended with them; confirmed by a reconnect",
        )?;
        for (rollout, standing, Counters { pending, confirmed, failed, declined, .. }) in &self.each {
            for (status, count) in
                [("pending", pending), ("confirmed", confirmed), ("failed", failed), ("declined", declined)]
            {
                writeln!(
                    f,
                    "{name}{{rollout=\"{rollout}\",rollout_status=\"{standing}\",status=\"{status}\"}} {count}"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_versions_are_told_together() {
        let by_version = (1..=25).map(|minor| (format!("1.{minor}.0"), minor)).collect();
        let versions = most_common(by_version);
        assert_eq!(versions.len(), VERSIONS + 1);
        assert_eq!(versions.first(), Some(&("1.25.0".to_owned(), 25)));
        assert_eq!(versions.last(), Some(&("other".to_owned(), 1 + 2 + 3 + 4 + 5)));
        assert_eq!(versions.iter().map(|(_, count)| count).sum::<i64>(), (1..=25).sum::<i64>());
        assert!(most_common(BTreeMap::new()).is_empty());
    }
}
