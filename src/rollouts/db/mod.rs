//! The SQL of rollouts: rows, and (in [`look`]) what is asked across them.

mod look;

use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};

pub use self::look::{catalog, current};
pub(super) use self::look::{
    gates, moving, next_due, offered_since, offering, rest, silent, some_named, standing, start_due,
    typical_update, undone_by, untried, versions_before,
};
use super::judge::StatusReason;
use super::plan::{Approval, OnEnd, Span, Template};
use super::{Error, Rollout, RolloutType, Status, Target};
use crate::auth::Scope;
use crate::clock::Time;
use crate::http::page::{Page, Sort};
use crate::ids::{Handle, PrinterId, RolloutId, UserId};
use crate::version::Version;
use crate::words::{Channel, Platform};

pub(super) static SORTS: &[Sort] = &[
    Sort { name: "number", sql: "r.number", cast: "bigint" },
    Sort { name: "created_at", sql: "r.created_at", cast: "timestamptz" },
];

const COLUMNS: &str = "r.id, r.number, r.firmware_version_id, r.firmware_version, r.channel, r.target_all, r.target_user_ids, \
    r.target_printer_ids, r.target_channels, r.min_version, r.max_version, r.rollout_type, r.rollout_percentage, r.scheduled_for, \
    r.max_attempts, r.status, r.epoch, r.revision, r.created_at, r.updated_at, r.started_at, r.allow_downgrade, \
    r.target_installed_by, r.target_previous_version, r.template, r.steps, r.step, r.stage, r.stage_started_at, r.judged_from, r.abort_on, \
    r.confirm_within, r.stuck_after, r.max_in_flight, r.rate_per_minute, r.ends_at, r.on_end, r.status_reason, r.status_detail, \
    r.approval, r.approval_comment, r.approval_at, r.rolls_back, r.windows, r.target_platforms, r.target_owners, r.reach_users, \
    r.reach_channels, r.reach_platforms, r.created_by, r.creator, r.own_keys_only";
/// What a rollout can reach, to compare with a caller's scope.
const REACH: [&str; 3] = ["r.reach_users", "r.reach_channels", "r.reach_platforms"];

/// What was parsed before it was stored.
fn json<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, sqlx::Error> {
    Ok(row.try_get::<Option<sqlx::types::Json<T>>, _>(column)?.map(|json| json.0))
}

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
                platforms: words::<Platform>(row, "target_platforms")?,
                owners: words::<UserId>(row, "target_owners")?,
                min_version: version("min_version")?,
                max_version: version("max_version")?,
                installed_by: row.try_get("target_installed_by")?,
                previous_version: version("target_previous_version")?,
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
            allow_downgrade: row.try_get("allow_downgrade")?,
            template: row.try_get::<Option<Template>, _>("template")?,
            steps: json(row, "steps")?,
            step: usize::try_from(number("step")?).unwrap_or_default(),
            stage: number("stage")?,
            stage_started_at: row.try_get("stage_started_at")?,
            judged_from: number("judged_from")?,
            abort_on: json(row, "abort_on")?,
            confirm_within: Span::of_secs(number("confirm_within")?),
            stuck_after: row.try_get::<Option<i32>, _>("stuck_after")?.map(Span::of_secs),
            max_in_flight: row.try_get::<Option<i32>, _>("max_in_flight")?.map(i32::unsigned_abs),
            rate: json(row, "rate_per_minute")?,
            ends_at: row.try_get("ends_at")?,
            on_end: row.try_get::<OnEnd, _>("on_end")?,
            reason: row.try_get("status_reason")?,
            detail: row.try_get("status_detail")?,
            approval: row.try_get::<Approval, _>("approval")?,
            approval_comment: row.try_get("approval_comment")?,
            approval_at: row.try_get("approval_at")?,
            rolls_back: row.try_get("rolls_back")?,
            windows: json(row, "windows")?,
            reach: Scope {
                user_ids: row.try_get("reach_users")?,
                channels: row.try_get("reach_channels")?,
                platforms: row.try_get("reach_platforms")?,
            },
            created_by: row.try_get("created_by")?,
            creator: row.try_get("creator")?,
            own_keys_only: row.try_get("own_keys_only")?,
        })
    }
}

fn texts<T: ToString>(list: Option<&Vec<T>>) -> Option<Vec<String>> {
    list.map(|list| list.iter().map(ToString::to_string).collect())
}

/// A value for a jsonb column.
fn to_json<T: serde::Serialize>(value: Option<&T>) -> Option<serde_json::Value> {
    value.and_then(|value| serde_json::to_value(value).ok())
}

/// Writes a new rollout; its number, epoch and revision come from the database. With a `number` it is one that will be
/// rolled back: it takes none from the sequence.
pub(super) async fn insert(
    conn: &mut PgConnection,
    rollout: Rollout,
    number: Option<i64>,
) -> Result<Rollout, sqlx::Error> {
    let target = &rollout.target;
    let (users, printers) = (texts(target.user_ids.as_ref()), texts(target.printer_ids.as_ref()));
    let (channels, platforms, owners) =
        (texts(target.channels.as_ref()), texts(target.platforms.as_ref()), texts(target.owners.as_ref()));
    let row = sqlx::query!(
        "insert into update_rollouts (id, firmware_version_id, firmware_version, channel, target_all, target_user_ids, target_printer_ids, \
         target_channels, min_version, min_version_key, max_version, max_version_key, rollout_type, rollout_percentage, scheduled_for, \
         max_attempts, status, created_at, updated_at, started_at, number, target_installed_by, target_previous_version, \
         stage_started_at) \
         overriding system value \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18, $19, \
             coalesce($20, nextval(pg_get_serial_sequence('update_rollouts', 'number'))), $21, $22, $23) \
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
        number,
        target.installed_by.map(|rollout| rollout.0),
        target.previous_version.as_ref().map(ToString::to_string),
        rollout.stage_started_at,
    );
    let row = row.fetch_one(&mut *conn).await?;
    sqlx::query!(
        "update update_rollouts set allow_downgrade = $2, template = $3, steps = $4, abort_on = $5, confirm_within = $6, stuck_after = $7, \
         max_in_flight = $8, rate_per_minute = $9, ends_at = $10, on_end = $11, approval = $12, rolls_back = $13, status_detail = $14, windows = $15, \
         target_platforms = $16, target_owners = $17, reach_users = $18, reach_channels = $19, reach_platforms = $20, created_by = $21, own_keys_only = $22, creator = $23 \
         where id = $1",
        rollout.id.0,
        rollout.allow_downgrade,
        rollout.template.map(Template::as_str),
        to_json(rollout.steps.as_ref()),
        to_json(rollout.abort_on.as_ref()),
        rollout.confirm_within.secs(),
        rollout.stuck_after.map(Span::secs),
        rollout.max_in_flight.map(u32::cast_signed),
        to_json(rollout.rate.as_ref()),
        rollout.ends_at,
        rollout.on_end.as_str(),
        rollout.approval.as_str(),
        rollout.rolls_back.map(|rollout| rollout.0),
        rollout.detail,
        to_json(rollout.windows.as_ref()),
        platforms.as_deref(),
        owners.as_deref(),
        rollout.reach.user_ids.as_deref(),
        rollout.reach.channels.as_deref(),
        rollout.reach.platforms.as_deref(),
        rollout.created_by.as_deref(),
        rollout.own_keys_only,
        rollout.creator.as_deref(),
    )
    .execute(conn)
    .await?;
    Ok(Rollout { number: row.number, epoch: row.epoch, revision: row.revision, ..rollout })
}

/// The rollout that a path names, if it reaches no further than this scope; locked against change when `lock` says so.
pub async fn find(
    conn: &mut PgConnection,
    scope: &Scope,
    handle: Handle,
    lock: bool,
) -> Result<Rollout, Error> {
    let mut query =
        QueryBuilder::new(format!("select {COLUMNS} from update_rollouts r where r.deleted_at is null and "));
    match handle {
        Handle::Id(id) => query.push("r.id = ").push_bind(id),
        Handle::Number(number) => query.push("r.number = ").push_bind(number),
    };
    scope.push_within(&mut query, REACH);
    if lock {
        // Not the strongest lock: settling an update refers to the row while it holds the printer's.
        query.push(" for no key update");
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
         ended_at = case when $2 = 'cancelled' then coalesce(ended_at, $6) end, step = $8, stage = $9, stage_started_at = $10, \
         judged_from = $11, status_reason = $12, status_detail = $13, approval = $14, approval_comment = $15, approval_at = $16, \
         ends_at = $17 where id = $1",
        rollout.id.0,
        rollout.status.as_str(),
        i32::from(rollout.percentage),
        rollout.epoch,
        rollout.revision,
        rollout.updated_at,
        rollout.started_at,
        i32::try_from(rollout.step).unwrap_or(i32::MAX),
        rollout.stage,
        rollout.stage_started_at,
        rollout.judged_from,
        rollout.reason.map(StatusReason::as_str),
        rollout.detail,
        rollout.approval.as_str(),
        rollout.approval_comment,
        rollout.approval_at,
        rollout.ends_at,
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
    scope: &Scope,
    (status, version): (Option<Status>, Option<&Version>),
    page: &Page,
) -> Result<(Vec<Rollout>, Option<String>, i64), sqlx::Error> {
    let filter = |query: &mut QueryBuilder<Postgres>| {
        scope.push_within(query, REACH);
        if let Some(status) = status {
            query.push(" and r.status = ").push_bind(status.as_str());
        }
        if let Some(version) = version {
            query.push(" and r.firmware_version = ").push_bind(version.to_string());
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

/// These rollouts as they stand once nobody else is changing them, locked until the transaction ends.
pub(super) async fn lock(conn: &mut PgConnection, ids: &[uuid::Uuid]) -> Result<Vec<Rollout>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from update_rollouts r where r.id = any("));
    query.push_bind(ids).push(") order by r.id for no key update").build_query_as().fetch_all(conn).await
}
