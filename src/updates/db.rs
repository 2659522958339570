//! Reading updates.

use std::collections::HashMap;

use sqlx::{FromRow, PgConnection, QueryBuilder, Row as _, postgres::PgRow};

use super::UpdateView;
use super::types::{Open, Past, Remembered, Status};
use crate::auth::Scope;
use crate::http::page::{Page, Sort};
use crate::ids::{FirmwareId, PrinterRef, RolloutId, UpdateId};

pub(super) static SORTS: &[Sort] = &[Sort { name: "number", sql: "u.number", cast: "bigint" }];

pub(super) const COLUMNS: &str = "u.id, u.number, u.rollout_id, r.number as rollout_number, p.printer_id, u.firmware_version, u.from_version, \
    u.attempt, u.status, u.open, u.reason, u.error_message, u.started_at, u.completed_at, u.confirmed_at, u.last_percent, \
    u.last_status_message, u.download_started_at, u.download_ended_at, u.download_bytes, u.shared_key from update_history u join printers p on p.id = u.printer left join update_rollouts r on r.id = u.rollout_id";

/// What is known about these printers' updates; one that has none is left out.
pub async fn remembered(
    conn: &mut PgConnection,
    printers: &[PrinterRef],
) -> Result<HashMap<PrinterRef, Remembered>, sqlx::Error> {
    let ids: Vec<_> = printers.iter().map(|printer| printer.0).collect();
    let mut all: HashMap<PrinterRef, Remembered> = HashMap::new();
    let rows = sqlx::query!(
        r#"select id, printer, rollout_id, status as "status: Status", open, last, tries, completed_at, firmware_version_id,
               firmware_version, from_version, sends, socket_lost_at is not null as "socket_lost!"
           from update_history where printer = any($1) and (open or last)"#,
        &ids
    );
    for row in rows.fetch_all(conn).await? {
        let remembered = all.entry(PrinterRef(row.printer)).or_default();
        let rollout = row.rollout_id.map(RolloutId);
        if let Some(rollout) = rollout.filter(|_| row.last) {
            let past =
                Past { tries: row.tries.unsigned_abs(), status: row.status, ended_at: row.completed_at };
            remembered.past.insert(rollout, past);
        }
        // Those that are open have their release: a constraint says so.
        if let Some(release) = row.firmware_version_id.filter(|_| row.open) {
            remembered.open = Some(Open {
                update: UpdateId(row.id),
                rollout,
                status: row.status,
                release: FirmwareId(release),
                version: row.firmware_version.into(),
                from: row.from_version.into(),
                sends: row.sends,
                socket_lost: row.socket_lost,
            });
        }
    }
    Ok(all)
}

/// How many forced updates are open.
pub async fn open_forced(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_history where open and rollout_id is null"#
    );
    count.fetch_one(conn).await
}

/// How many updates of a rollout are open.
pub async fn has_open(conn: &mut PgConnection, rollout: RolloutId) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_history where rollout_id = $1 and open"#,
        rollout.0
    );
    count.fetch_one(conn).await
}

impl FromRow<'_, PgRow> for UpdateView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            number: row.try_get("number")?,
            rollout_id: row.try_get("rollout_id")?,
            rollout_number: row.try_get("rollout_number")?,
            printer_id: row.try_get("printer_id")?,
            firmware_version: row.try_get("firmware_version")?,
            from_version: row.try_get("from_version")?,
            attempt: row.try_get("attempt")?,
            status: row.try_get("status")?,
            open: row.try_get("open")?,
            reason: row.try_get("reason")?,
            error_message: row.try_get("error_message")?,
            started_at: row.try_get("started_at")?,
            completed_at: row.try_get("completed_at")?,
            confirmed_at: row.try_get("confirmed_at")?,
            last_percent: row.try_get("last_percent")?,
            last_status_message: row.try_get("last_status_message")?,
            download_started_at: row.try_get("download_started_at")?,
            download_ended_at: row.try_get("download_ended_at")?,
            download_bytes: row.try_get("download_bytes")?,
            shared_key: row.try_get("shared_key")?,
        })
    }
}

/// One attempt.
pub async fn one(conn: &mut PgConnection, update: UpdateId) -> Result<UpdateView, sqlx::Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} where u.id = "));
    query.push_bind(update.0).build_query_as().fetch_one(conn).await
}

/// One page, the cursor of the next, and the count of all.
type Listed = (Vec<UpdateView>, Option<String>, i64);

/// Attempts with a printer.
pub(super) async fn of_printer(
    conn: &mut PgConnection,
    printer: PrinterRef,
    status: Option<Status>,
    page: &Page,
) -> Result<Listed, sqlx::Error> {
    let filter = |query: &mut QueryBuilder<sqlx::Postgres>| {
        query.push(" where u.printer = ").push_bind(printer.0);
        if let Some(status) = status {
            query.push(" and u.status = ").push_bind(status.as_str());
        }
    };
    list(conn, filter, page, None, None).await
}

/// The last attempt with each printer that a rollout has an update for. They are counted unless the `total` is known.
pub async fn targets(
    conn: &mut PgConnection,
    scope: &Scope,
    rollout: RolloutId,
    status: Option<Status>,
    page: &Page,
    total: Option<i64>,
) -> Result<Listed, sqlx::Error> {
    let filter = |query: &mut QueryBuilder<sqlx::Postgres>| {
        query.push(" where u.rollout_id >= ").push_bind(rollout.0);
        query.push(" and u.rollout_id <= ").push_bind(rollout.0);
        query.push(" and u.last");
        if !scope.is_all() {
            query.push(" and u.printer in (select q.id from printers q where true");
            scope.push_printers(query, "q");
            query.push(")");
        }
        if let Some(status) = status {
            // In the statement itself, because only then the partial indexes are of use.
            query.push(format!(" and u.status = '{status}'"));
            if matches!(status, Status::Pending | Status::Downloading) {
                query.push(" and u.open");
            }
        }
    };
    // The census counts them all.
    list(conn, filter, page, Some("u.rollout_id"), total.filter(|_| scope.is_all())).await
}

/// The orders that [`targets`] offers.
pub static TARGET_SORTS: &[Sort] = SORTS;

async fn list(
    conn: &mut PgConnection,
    filter: impl Fn(&mut QueryBuilder<sqlx::Postgres>),
    page: &Page,
    group: Option<&str>,
    total: Option<i64>,
) -> Result<Listed, sqlx::Error> {
    let total = match total {
        Some(total) => total,
        None => {
            let mut count = QueryBuilder::new("select count(*) from update_history u");
            filter(&mut count);
            count.build_query_scalar().fetch_one(&mut *conn).await?
        }
    };
    let mut query = QueryBuilder::new(format!("select {}, {COLUMNS}", page.sort_key()));
    filter(&mut query);
    page.push_within(&mut query, group, "u.number");
    let mut rows = query.build().fetch_all(conn).await?;
    let next = page.cut(&mut rows, |row| (row.get("sort_key"), row.get("number")));
    Ok((rows.iter().map(UpdateView::from_row).collect::<Result<_, _>>()?, next, total))
}
