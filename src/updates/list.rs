//! All attempts: filtered, paged, counted as far as that is quick.

use std::sync::Arc;

use sqlx::{Connection as _, FromRow as _, PgConnection, Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use super::UpdateView;
use super::db::COLUMNS;
use super::types::{Reason, Status};
use crate::auth::Scope;
use crate::clock::Time;
use crate::db::is_cancelled;
use crate::http::page::{Page, Sort};
use crate::ids::{Handle, PrinterRef};

const NUMBER: Sort = Sort { name: "number", sql: "u.number", cast: "bigint" };
const STARTED_AT: Sort = Sort { name: "started_at", sql: "u.started_at", cast: "timestamptz" };
/// The orders of the list.
static BY_NUMBER: &[Sort] = &[NUMBER, STARTED_AT];
/// The same for a time, whose index has them in its order.
static BY_TIME: &[Sort] = &[STARTED_AT, NUMBER];

/// Rows that a total counts; beyond it, it says that there are more.
const COUNTED: i64 = 100_000;
/// Longest count. What no index helps to count is not worth the wait either.
const COUNT_WITHIN: &str = "set local statement_timeout = '100ms'";

/// Which attempts are wanted.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub scope: Arc<Scope>,
    pub printer: Option<PrinterRef>,
    pub user_id: Option<String>,
    pub rollout: Option<Handle>,
    pub firmware_version: Option<String>,
    pub status: Option<Status>,
    pub open: Option<bool>,
    pub reason: Option<Reason>,
    /// A part of the error message, in whatever case.
    pub error: Option<String>,
    pub started_after: Option<Time>,
    pub started_before: Option<Time>,
    /// The printers of `user_id` and of the scope.
    pub owned: Owned,
}

/// The printers of one owner or of a scope, as far as knowing them helps to find their attempts.
#[derive(Debug, Default)]
pub(super) enum Owned {
    /// It does not: they are all, or so many printers that any way meets them soon.
    #[default]
    Unread,
    /// The attempts of each are read.
    Few(Vec<Uuid>),
    /// Attempts are read in their order until enough are theirs, which is soon.
    Many(Vec<Uuid>),
}

impl Owned {
    /// Most whose attempts are read one printer after the other.
    const FEW: usize = 1000;
    /// Most that are read.
    const MANY: usize = 20_000;

    async fn read(conn: &mut PgConnection, by: &Query) -> Result<Self, sqlx::Error> {
        if by.names_all() {
            return Ok(Self::Unread);
        }
        let mut query = QueryBuilder::new("");
        by.push_owned(&mut query);
        query.push(format!(" limit {}", Self::MANY + 1));
        let ids: Vec<Uuid> = query.build_query_scalar().fetch_all(conn).await?;
        Ok(match ids.len() {
            few if few <= Self::FEW => Self::Few(ids),
            many if many <= Self::MANY => Self::Many(ids),
            _ => Self::Unread,
        })
    }
}

impl Query {
    /// The orders that suit it, the default one first.
    pub fn sorts(&self) -> &'static [Sort] {
        if self.started_after.is_some() || self.started_before.is_some() { BY_TIME } else { BY_NUMBER }
    }

    /// Whether it leaves no printer out for whose or what it is.
    fn names_all(&self) -> bool {
        self.user_id.is_none() && self.scope.is_all()
    }

    /// Selects the printers of `user_id` and of the scope.
    fn push_owned(&self, query: &mut QueryBuilder<Postgres>) {
        query.push("select p.id from printers p where true");
        if let Some(user) = &self.user_id {
            query.push(" and p.user_id = ").push_bind(user.clone());
        }
        self.scope.push_printers(query, "p");
    }

    /// What is the same in all rows, and begins an index; see [`Page::push_within`].
    fn group(&self) -> Option<&'static str> {
        match self {
            Self { rollout: Some(_), .. } => Some("u.rollout_id"),
            Self { firmware_version: Some(_), .. } => Some("u.firmware_version"),
            _ => None,
        }
    }

    /// Appends the conditions. Words of closed vocabularies stand in the statement itself, because only then a partial
    /// index is of use.
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        query.push(" where true");
        if let Some(printer) = self.printer {
            query.push(" and u.printer = ").push_bind(printer.0);
        }
        match &self.owned {
            Owned::Few(printers) => {
                query.push(" and u.printer = any(").push_bind(printers.clone()).push(")");
            }
            // `is true` keeps PostgreSQL from looking each of them up.
            Owned::Many(printers) => {
                query.push(" and (u.printer = any(").push_bind(printers.clone()).push(")) is true");
            }
            Owned::Unread if self.names_all() => {}
            Owned::Unread => {
                query.push(" and u.printer in (");
                self.push_owned(query);
                query.push(")");
            }
        }
        match self.rollout {
            Some(Handle::Id(id)) => {
                query.push(" and u.rollout_id >= ").push_bind(id);
                query.push(" and u.rollout_id <= ").push_bind(id);
            }
            Some(Handle::Number(number)) => {
                for compare in [">=", "<="] {
                    query
                        .push(format!(
                            " and u.rollout_id {compare} (select id from update_rollouts where number = "
                        ))
                        .push_bind(number)
                        .push(")");
                }
            }
            None => {}
        }
        if let Some(version) = &self.firmware_version {
            query.push(" and u.firmware_version >= ").push_bind(version.clone());
            query.push(" and u.firmware_version <= ").push_bind(version.clone());
        }
        if let Some(status) = self.status {
            query.push(format!(" and u.status = '{status}'"));
            // Says the same, and there is an index for it.
            if matches!(status, Status::Pending | Status::Downloading) {
                query.push(" and u.open");
            }
        }
        if let Some(open) = self.open {
            query.push(if open { " and u.open" } else { " and not u.open" });
        }
        if let Some(reason) = self.reason {
            query.push(format!(" and u.reason = '{reason}'"));
        }
        if let Some(part) = &self.error {
            let part = part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            query.push(" and u.error_message ilike ").push_bind(format!("%{part}%"));
        }
        if let Some(after) = self.started_after {
            query.push(" and u.started_at >= ").push_bind(after);
        }
        if let Some(before) = self.started_before {
            query.push(" and u.started_at < ").push_bind(before);
        }
    }

    /// The query of an export.
    pub fn export(&self) -> QueryBuilder<Postgres> {
        let mut query = crate::http::export::cursor(&format!("select {COLUMNS}"));
        self.push(&mut query);
        query.push(if std::ptr::eq(self.sorts(), BY_TIME) {
            " order by u.started_at, u.number"
        } else {
            " order by u.number"
        });
        query
    }
}

/// How many rows match: this many, or at least this many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub rows: i64,
    pub is_lower_bound: bool,
}

/// One page, the cursor of the next, and how many there are.
pub(super) async fn list(
    conn: &mut PgConnection,
    mut by: Query,
    page: &Page,
) -> Result<(Vec<UpdateView>, Option<String>, Total), sqlx::Error> {
    by.owned = Owned::read(conn, &by).await?;
    let mut query = QueryBuilder::new(format!("select {}, {COLUMNS}", page.sort_key()));
    by.push(&mut query);
    page.push_within(&mut query, by.group(), "u.number");
    let mut rows = query.build().persistent(false).fetch_all(&mut *conn).await?;
    let next = page.cut(&mut rows, |row| (row.get("sort_key"), row.get("number")));
    let rows: Vec<_> = rows.iter().map(UpdateView::from_row).collect::<Result<_, _>>()?;
    let seen = rows.len() as i64;
    // A list that fits on a page is counted already.
    let total = match page.is_first() && next.is_none() {
        true => Total { rows: seen, is_lower_bound: false },
        false => count(conn, &by).await?.unwrap_or(Total { rows: seen, is_lower_bound: true }),
    };
    Ok((rows, next, total))
}

/// Counts up to [`COUNTED`]; none when that takes too long.
async fn count(conn: &mut PgConnection, by: &Query) -> Result<Option<Total>, sqlx::Error> {
    let mut query = QueryBuilder::new("select count(*) from (select 1 from update_history u");
    by.push(&mut query);
    query.push(format!(" limit {}) counted", COUNTED + 1));
    let mut tx = conn.begin().await?;
    sqlx::query(COUNT_WITHIN).execute(&mut *tx).await?;
    match query.build_query_scalar::<i64>().persistent(false).fetch_one(&mut *tx).await {
        Ok(rows) => Ok(Some(Total { rows: rows.min(COUNTED), is_lower_bound: rows > COUNTED })),
        Err(error) if is_cancelled(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
