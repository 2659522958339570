//! The SQL of rollouts.

use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{Error, Offering, Plan, ReleaseBrief, Rollout, RolloutType, Status, Target};
use crate::clock::Time;
use crate::http::page::{Page, Sort};
use crate::ids::{FirmwareId, Handle, PrinterId, RolloutId, UserId};
use crate::storage::ObjectKey;
use crate::version::Version;
use crate::words::{Channel, Platform};

pub(super) static SORTS: &[Sort] = &[
    Sort { name: "number", sql: "r.number", cast: "bigint" },
    Sort { name: "created_at", sql: "r.created_at", cast: "timestamptz" },
];

const COLUMNS: &str = "r.id, r.number, r.firmware_version_id, r.firmware_version, r.channel, r.target_all, r.target_user_ids, \
    r.target_printer_ids, r.target_channels, r.min_version, r.max_version, r.rollout_type, r.rollout_percentage, r.scheduled_for, \
    r.max_attempts, r.status, r.epoch, r.revision, r.created_at, r.updated_at, r.started_at";

/// Words of a column that were parsed before they were stored.
fn words<T: std::str::FromStr>(row: &PgRow, column: &str) -> Result<Option<Vec<T>>, sqlx::Error> {
    let texts: Option<Vec<String>> = row.try_get(column)?;
    Ok(texts.map(|texts| texts.iter().filter_map(|text| text.parse().ok()).collect()))
}

impl FromRow<'_, PgRow> for Rollout {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let number = |column: &str| row.try_get::<i32, _>(column);
        let version =
            |column: &str| row.try_get::<Option<String>, _>(column).map(|text| text.map(Version::from));
        Ok(Self {
            id: row.try_get("id")?,
            number: row.try_get("number")?,
            firmware: row.try_get("firmware_version_id")?,
            version: row.try_get::<String, _>("firmware_version")?.into(),
            channel: row.try_get("channel")?,
            target: Target {
                all: row.try_get("target_all")?,
                user_ids: words::<UserId>(row, "target_user_ids")?,
                printer_ids: words::<PrinterId>(row, "target_printer_ids")?,
                channels: words::<Channel>(row, "target_channels")?,
                min_version: version("min_version")?,
                max_version: version("max_version")?,
            },
            rollout_type: row.try_get::<RolloutType, _>("rollout_type")?,
            percentage: u8::try_from(number("rollout_percentage")?).unwrap_or_default(),
            scheduled_for: row.try_get("scheduled_for")?,
            max_attempts: number("max_attempts")?.unsigned_abs(),
            status: row.try_get::<Status, _>("status")?,
            epoch: row.try_get("epoch")?,
            revision: row.try_get("revision")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            started_at: row.try_get("started_at")?,
        })
    }
}

fn texts<T: ToString>(list: Option<&Vec<T>>) -> Option<Vec<String>> {
    list.map(|list| list.iter().map(ToString::to_string).collect())
}

/// Writes a new rollout; its number and revision come from the database.
pub(super) async fn insert(conn: &mut PgConnection, rollout: Rollout) -> Result<Rollout, sqlx::Error> {
    let target = &rollout.target;
    let (users, printers) = (texts(target.user_ids.as_ref()), texts(target.printer_ids.as_ref()));
    let channels = texts(target.channels.as_ref());
    let row = sqlx::query!(
        "insert into update_rollouts (id, firmware_version_id, firmware_version, channel, target_all, target_user_ids, target_printer_ids, \
         target_channels, min_version, min_version_key, max_version, max_version_key, rollout_type, rollout_percentage, scheduled_for, \
         max_attempts, status, created_at, updated_at, started_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18, $19) \
         returning number, epoch, revision",
        rollout.id.0,
        rollout.firmware.map(|firmware| firmware.0),
        rollout.version.to_string(),
        rollout.channel.map(Channel::as_str),
        target.all,
        users.as_deref(),
        printers.as_deref(),
        channels.as_deref(),
        target.min_version.as_ref().map(ToString::to_string),
        target.min_version.as_ref().map(Version::key),
        target.max_version.as_ref().map(ToString::to_string),
        target.max_version.as_ref().map(Version::key),
        rollout.rollout_type.as_str(),
        i32::from(rollout.percentage),
        rollout.scheduled_for,
        rollout.max_attempts.cast_signed(),
        rollout.status.as_str(),
        rollout.created_at,
        rollout.started_at,
    );
    let row = row.fetch_one(conn).await?;
    Ok(Rollout { number: row.number, epoch: row.epoch, revision: row.revision, ..rollout })
}

/// The rollout that a path names, locked against change when `lock` says so.
pub(super) async fn find(conn: &mut PgConnection, handle: Handle, lock: bool) -> Result<Rollout, Error> {
    let mut query =
        QueryBuilder::new(format!("select {COLUMNS} from update_rollouts r where r.deleted_at is null and "));
    match handle {
        Handle::Id(id) => query.push("r.id = ").push_bind(id),
        Handle::Number(number) => query.push("r.number = ").push_bind(number),
    };
    if lock {
        query.push(" for update");
    }
    query.build_query_as().fetch_optional(conn).await?.ok_or_else(|| {
        Error::NotFound(match handle {
            Handle::Id(id) => id.to_string(),
            Handle::Number(number) => number.to_string(),
        })
    })
}

/// Writes what an operator changed. The row must be locked.
pub(super) async fn update(conn: &mut PgConnection, rollout: &Rollout) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_rollouts set status = $2, rollout_percentage = $3, epoch = $4, revision = $5, updated_at = $6, started_at = $7, \
         ended_at = case when $2 = 'cancelled' then coalesce(ended_at, $6) end where id = $1",
        rollout.id.0,
        rollout.status.as_str(),
        i32::from(rollout.percentage),
        rollout.epoch,
        rollout.revision,
        rollout.updated_at,
        rollout.started_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Hides a rollout; its updates stay readable. The row must be locked.
pub(super) async fn hide(conn: &mut PgConnection, rollout: RolloutId, now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_rollouts set deleted_at = $2, epoch = epoch + 1 where id = $1",
        rollout.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One page, the cursor of the next, and the count of all.
pub(super) async fn list(
    conn: &mut PgConnection,
    status: Option<Status>,
    page: &Page,
) -> Result<(Vec<Rollout>, Option<String>, i64), sqlx::Error> {
    let filter = |query: &mut QueryBuilder<Postgres>| {
        if let Some(status) = status {
            query.push(" and r.status = ").push_bind(status.as_str());
        }
    };
    let mut count = QueryBuilder::new("select count(*) from update_rollouts r where r.deleted_at is null");
    filter(&mut count);
    let total = count.build_query_scalar().fetch_one(&mut *conn).await?;
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS}, {} from update_rollouts r where r.deleted_at is null",
        page.sort_key()
    ));
    filter(&mut query);
    page.push(&mut query, "r.number");
    let mut rows = query.build().fetch_all(conn).await?;
    let next = page.cut(&mut rows, |row| (row.get("sort_key"), row.get("number")));
    Ok((rows.iter().map(Rollout::from_row).collect::<Result<_, _>>()?, next, total))
}

/// Starts what is due, once: whoever comes second finds nothing.
pub(super) async fn start_due(conn: &mut PgConnection, now: Time) -> Result<Vec<Uuid>, sqlx::Error> {
    let started = sqlx::query_scalar!(
        "update update_rollouts set status = 'active', started_at = coalesce(started_at, $1), updated_at = $1 \
         where status = 'pending' and scheduled_for <= $1 and deleted_at is null returning id",
        now
    );
    started.fetch_all(conn).await
}

/// What the engine works from.
pub(super) struct Outlook {
    /// Everything that may make offers.
    pub plan: Plan,
    /// The state of those, and of every rollout in `also`: id, epoch, whether it may make offers.
    pub states: Vec<(Uuid, i64, bool)>,
    /// When the next scheduled rollout starts.
    pub next_due: Option<Time>,
}

/// Reads the plan, and besides it the state of the rollouts `also`, in one snapshot.
pub(super) async fn outlook(conn: &mut PgConnection, also: &[Uuid]) -> Result<Outlook, sqlx::Error> {
    let mut query = QueryBuilder::new(format!(
        "select {COLUMNS}, r.deleted_at is not null as deleted from update_rollouts r \
         where (r.status in ('active', 'completed') and r.deleted_at is null) or r.id = any("
    ));
    let rows = query.push_bind(also).push(")").build().fetch_all(&mut *conn).await?;
    let (mut states, mut rollouts) = (Vec::new(), Vec::new());
    for row in rows {
        let (rollout, deleted) = (Rollout::from_row(&row)?, row.try_get::<bool, _>("deleted")?);
        let offers = rollout.status.offers() && !deleted;
        states.push((rollout.id.0, rollout.epoch, offers));
        if offers {
            rollouts.push(rollout);
        }
    }
    let versions: Vec<String> = rollouts.iter().map(|rollout| rollout.version.to_string()).collect();
    let releases = releases(conn, &versions).await?;
    let offering = |rollout: Rollout| Offering {
        releases: releases
            .iter()
            .filter(|(version, _)| *version == rollout.version.to_string())
            .map(|(_, brief)| brief.clone())
            .collect(),
        rollout: rollout.id,
        number: rollout.number,
        epoch: rollout.epoch,
        version: rollout.version,
        channel: rollout.channel,
        target: rollout.target,
        percentage: rollout.percentage,
        max_attempts: rollout.max_attempts,
    };
    let plan = Plan::new(rollouts.into_iter().map(offering).collect());
    let next_due = sqlx::query_scalar!(
        "select min(scheduled_for) from update_rollouts where status = 'pending' and deleted_at is null"
    );
    Ok(Outlook { plan, states, next_due: next_due.fetch_one(conn).await? })
}

async fn releases(
    conn: &mut PgConnection,
    versions: &[String],
) -> Result<Vec<(String, ReleaseBrief)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id, version, channel as "channel: Channel", platform as "platform: Platform", mandatory, min_upgrade_version,
               object_key, md5_checksum
           from firmware_versions where version = any($1) and deprecated_at is null
           order by case channel when 'stable' then 0 when 'beta' then 1 else 2 end, platform"#,
        versions
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| {
        let brief = ReleaseBrief {
            id: FirmwareId(row.id),
            channel: row.channel,
            platform: row.platform,
            mandatory: row.mandatory,
            min_upgrade_version: row.min_upgrade_version.map(Version::from),
            key: ObjectKey::stored(row.object_key),
            md5: row.md5_checksum,
        };
        (row.version, brief)
    });
    Ok(rows.collect())
}
