//! Reading the census: how many printers are alike, in the fleet and among those that a rollout has dealt with. The
//! database's triggers keep it (`migrations/20261121000010_plans.sql`); here it is summed and folded.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Rollout;
use super::judge::Standing;
use crate::ids::{FirmwareId, RolloutId};
use crate::printers::{Cohort, Installed};
use crate::updates;
use crate::words::{Channel, Platform};

/// Rows of one rollout, or of the fleet, above which the log is folded.
const LONG: i64 = 200;

/// How a printer's last attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// Offered, outcome unknown.
    Open,
    /// Reported, not proved.
    Completed,
    /// Proved.
    Confirmed,
    /// The printer said no.
    Declined,
    /// Failed, and may be tried again.
    Failed,
    /// Failed for good.
    UsedUp,
}

/// Printers of one kind that a rollout has an attempt with.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// Whether the rollout's lists name them.
    pub named: bool,
    /// What they have in common.
    pub cohort: Cohort,
    /// The stage of their last attempt.
    pub stage: i32,
    /// How that stands.
    pub state: State,
    /// Whether they showed a key that speaks for others as well.
    pub shared: bool,
    /// How many.
    pub count: i64,
}

pub(super) fn installed(release: Option<Uuid>, rollout: Option<Uuid>) -> Option<Installed> {
    release.map(|release| Installed { release: FirmwareId(release), rollout: rollout.map(RolloutId) })
}

/// The whole fleet.
pub async fn fleet(conn: &mut PgConnection) -> Result<Vec<(Cohort, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select platform as "platform: Platform", firmware_version, auto_update, update_channel as "channel: Channel",
               installed_release, installed_rollout, sum(n)::bigint as "count!"
           from census where rollout_id is null group by 1, 2, 3, 4, 5, 6 having sum(n) <> 0"#
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| {
        let cohort = Cohort {
            platform: row.platform,
            version: row.firmware_version.into(),
            auto_update: row.auto_update,
            channel: row.channel,
            installed: installed(row.installed_release, row.installed_rollout),
        };
        (cohort, row.count)
    });
    Ok(rows.collect())
}

/// The printers that the lists of a rollout name: read one by one, so the cost is that of the lists.
pub(super) async fn named(
    conn: &mut PgConnection,
    rollout: &Rollout,
) -> Result<Vec<(Cohort, i64)>, sqlx::Error> {
    let target = &rollout.target;
    let texts = |list: Option<Vec<String>>| list.filter(|_| !target.all).unwrap_or_default();
    let users = texts(target.user_ids.as_ref().map(|list| list.iter().map(ToString::to_string).collect()));
    let printers =
        texts(target.printer_ids.as_ref().map(|list| list.iter().map(ToString::to_string).collect()));
    let owners = target.owners.as_ref().map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
    let listed = !(users.is_empty() && printers.is_empty());
    let rows = sqlx::query!(
        r#"select platform as "platform: Platform", firmware_version, auto_update, update_channel as "channel: Channel",
               installed_release, installed_rollout, count(*) as "count!"
           from printers
           where case when $5 then id in (select id from printers where user_id = any($1) union select id from printers where printer_id = any($2))
                 else installed_rollout = $3 or ($3 is null and previous_version = $4) end
             and ($3::uuid is null or installed_rollout = $3) and ($4::text is null or previous_version = $4)
             and ($6::text[] is null or user_id = any($6))
           group by 1, 2, 3, 4, 5, 6"#,
        &users,
        &printers,
        target.installed_by.map(|rollout| rollout.0),
        target.previous_version.as_ref().map(ToString::to_string),
        listed,
        owners.as_deref()
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| {
        let cohort = Cohort {
            platform: row.platform,
            version: row.firmware_version.into(),
            auto_update: row.auto_update,
            channel: row.channel,
            installed: installed(row.installed_release, row.installed_rollout),
        };
        (cohort, row.count)
    });
    Ok(rows.collect())
}

/// The printers that these rollouts have an attempt with.
pub(super) async fn attempted(
    conn: &mut PgConnection,
    rollouts: &[RolloutId],
) -> Result<HashMap<RolloutId, Vec<Attempted>>, sqlx::Error> {
    let ids: Vec<_> = rollouts.iter().map(|rollout| rollout.0).collect();
    let rows = sqlx::query!(
        r#"select rollout_id as "rollout!", named, platform as "platform: Platform", firmware_version, auto_update,
               update_channel as "channel: Channel", installed_release, installed_rollout, stage, state as "state!: State",
               shared, sum(n)::bigint as "count!"
           from census where rollout_id = any($1) group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 having sum(n) <> 0"#,
        &ids
    );
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows.fetch_all(conn).await? {
        let cohort = Cohort {
            platform: row.platform,
            version: row.firmware_version.into(),
            auto_update: row.auto_update,
            channel: row.channel,
            installed: installed(row.installed_release, row.installed_rollout),
        };
        let (named, stage, state, shared, count) = (row.named, row.stage, row.state, row.shared, row.count);
        all.entry(RolloutId(row.rollout)).or_default().push(Attempted {
            named,
            cohort,
            stage,
            state,
            shared,
            count,
        });
    }
    Ok(all)
}

/// How many printers a rollout has an attempt with, by how their last one stands; none when the census does not tell
/// that status from another.
pub(super) async fn targets(
    conn: &mut PgConnection,
    rollout: RolloutId,
    status: Option<updates::Status>,
) -> Result<Option<i64>, sqlx::Error> {
    use updates::Status::{Cancelled, Completed, Declined, Downloading, Failed, Pending};
    let counts = |state| match status {
        None => true,
        Some(Completed) => matches!(state, State::Completed | State::Confirmed),
        Some(Failed) => matches!(state, State::Failed | State::UsedUp),
        Some(Declined) => state == State::Declined,
        Some(Pending | Downloading | Cancelled) => false,
    };
    if matches!(status, Some(Pending | Downloading | Cancelled)) {
        return Ok(None);
    }
    let attempted = attempted(conn, &[rollout]).await?.remove(&rollout).unwrap_or_default();
    Ok(Some(attempted.iter().filter(|group| counts(group.state)).map(|group| group.count).sum()))
}

/// How the printers stand that were last tried in `stages`, but for those that are silent.
pub(super) fn standing(attempted: &[Attempted], stages: impl Fn(i32) -> bool) -> Standing {
    let mut standing = Standing::default();
    for group in attempted.iter().filter(|group| stages(group.stage)) {
        match group.state {
            State::Open | State::Completed => standing.unproved += group.count,
            State::Confirmed => standing.confirmed += group.count,
            State::Failed | State::UsedUp => standing.failed += group.count,
            State::Declined => {}
        }
    }
    standing
}

/// Folds what has grown long. Sums stay the same for every reader: rows are replaced in one statement, and a row is
/// deleted by one only, so any number of replicas may do it at once.
pub async fn fold(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "with long as (select rollout_id from census group by 1 \
             having count(*) > $1 + 2 * count(distinct (named, platform, firmware_version, auto_update, update_channel, \
                 installed_release, installed_rollout, stage, state, shared))), \
         gone as (delete from census c using long where c.rollout_id is not distinct from long.rollout_id returning c.*) \
         insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, \
             installed_release, installed_rollout, stage, state, shared, n) \
         select rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release, \
             installed_rollout, stage, state, shared, sum(n) \
         from gone group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 having sum(n) <> 0",
        LONG
    );
    Ok(done.execute(conn).await?.rows_affected())
}
