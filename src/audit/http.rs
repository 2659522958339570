//! REST of the trail.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, Postgres, QueryBuilder};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::auth::{Caller, Scope};
use crate::clock::Time;
use crate::http::export::{self, Format};
use crate::http::log::Rows;
use crate::http::page::{Page, Sort};
use crate::http::problem::{Common, Problem};
use crate::http::{Params, cache};
use crate::state::AppState;

static SORTS: &[Sort] = &[Sort { name: "number", sql: "a.number", cast: "bigint" }];
const COLUMNS: &str = "a.number, a.at, a.actor, a.address, a.operation, a.trace_id, a.action, a.subject_id, a.subject, \
    encode(a.hash, 'hex') as hash";
/// What an entry is about, to compare with a caller's scope.
const REACH: [&str; 3] = ["a.reach_users", "a.reach_channels", "a.reach_platforms"];

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export))
}

/// One entry of the trail.
#[derive(Serialize, ToSchema, FromRow)]
#[schema(as = AuditEntry, example = json!({"number": 4711, "at": "2026-01-15T10:00:00.123456Z", "actor": "key 0f3a9c41d27b", "address": "192.0.2.7",
    "operation": "updateRollout", "trace_id": "0af7651916cd43dd8448eb211c80319c", "action": "rollout.changed",
    "subject_id": "0193f7a0-1111-7c62-9c57-1f440a6eb2d9", "subject": "42", "before": {"status": "active"}, "after": {"status": "paused"},
    "hash": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"}))]
pub struct Entry {
    /// Without gaps, from 1.
    number: i64,
    at: DateTime<Utc>,
    /// As in a key's `created_by`; `server` for what it did by itself.
    actor: String,
    address: Option<String>,
    /// The operation of this document, or the command; null for what the server did by itself.
    operation: Option<String>,
    trace_id: Option<String>,
    /// noun.verb.
    action: String,
    subject_id: String,
    /// What people call it: a rollout's number, a release's version, channel and platform, a key's name.
    subject: String,
    /// Of a change only what changed; null for what was made.
    before: Option<Value>,
    /// The same afterwards; null for what was deleted.
    after: Option<Value>,
    /// SHA-256 of this entry and the hash before it, in hex.
    hash: String,
}

/// An entry as a line of a file: what was there and what is are JSON in a text.
#[derive(Serialize, ToSchema, FromRow)]
#[schema(as = AuditLine)]
pub struct Line {
    number: i64,
    at: DateTime<Utc>,
    actor: String,
    address: Option<String>,
    operation: Option<String>,
    trace_id: Option<String>,
    action: String,
    subject_id: String,
    subject: String,
    before: Option<String>,
    after: Option<String>,
    hash: String,
}

/// A page of the trail.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"entries": [], "total": 0, "next_cursor": null}))]
pub struct AuditList {
    entries: Vec<Entry>,
    /// Entries that match, on all pages.
    total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

struct Query {
    actor: Option<String>,
    action: Option<String>,
    subject_id: Option<String>,
    after: Option<Time>,
    before: Option<Time>,
}

impl Query {
    fn read(params: &mut Params) -> Self {
        Self {
            actor: params.get("actor"),
            action: params.get("action"),
            subject_id: params.get("subject_id"),
            after: params.get("after"),
            before: params.get("before"),
        }
    }

    fn push(&self, query: &mut QueryBuilder<Postgres>, scope: &Scope) {
        scope.push_within(query, REACH);
        for (column, text) in [("actor", &self.actor), ("subject_id", &self.subject_id)] {
            if let Some(text) = text {
                query.push(format!(" and a.{column} = ")).push_bind(text.clone());
            }
        }
        if let Some(action) = &self.action {
            query.push(" and (a.action = ").push_bind(action.clone());
            query.push(" or split_part(a.action, '.', 1) = ").push_bind(action.clone()).push(")");
        }
        if let Some(after) = self.after {
            query.push(" and a.at >= ").push_bind(after);
        }
        if let Some(before) = self.before {
            query.push(" and a.at < ").push_bind(before);
        }
    }
}

/// Who changed what, the newest first.
#[utoipa::path(get, path = "/api/audit", operation_id = "listAudit", tag = "audit",
    params(("actor" = Option<String>, Query, description = "as it is shown, like `key 0f3a9c41d27b`"),
        ("action" = Option<String>, Query, example = "rollout.changed", description = "noun.verb, or a noun for all of its verbs"),
        ("subject_id" = Option<String>, Query, description = "the id of what was changed"),
        ("after" = Option<DateTime<Utc>>, Query, description = "RFC 3339, included"),
        ("before" = Option<DateTime<Utc>>, Query, description = "RFC 3339, excluded"),
        ("sort" = Option<String>, Query, description = "number; -number, the newest first, unless given"),
        ("limit" = Option<u16>, Query, description = "1 to 500, 100 unless given"), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = AuditList), Common))]
async fn list(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let by = Query::read(&mut params);
    let page = Page::read(&mut params, "audit", SORTS, true);
    params.finish()?;
    let mut conn = app.pool.acquire().await?;
    let mut count = QueryBuilder::new("select count(*) from audit a where true");
    by.push(&mut count, &caller.scope);
    let total = count.build_query_scalar().fetch_one(&mut *conn).await?;
    let mut query = QueryBuilder::new(format!("select {COLUMNS}, a.before, a.after from audit a where true"));
    by.push(&mut query, &caller.scope);
    page.push(&mut query, "a.number");
    let mut entries = query.build_query_as::<Entry>().fetch_all(&mut *conn).await?;
    let next_cursor = page.cut(&mut entries, |entry| (entry.number.to_string(), entry.number));
    let (rows, link) = (Rows(entries.len()), page.link(next_cursor.as_deref()));
    let body = AuditList { entries, total, next_cursor };
    Ok((Extension(rows), link, cache::tagged(&headers, 0, &body)?).into_response())
}

/// Export the trail.
///
/// All that matches, in the order in which it happened, in one snapshot.
#[utoipa::path(get, path = "/api/audit/export", operation_id = "exportAudit", tag = "audit",
    params(("format" = Option<String>, Query, description = "csv, unless given, or ndjson"), ("actor" = Option<String>, Query),
        ("action" = Option<String>, Query), ("subject_id" = Option<String>, Query),
        ("after" = Option<DateTime<Utc>>, Query, description = "RFC 3339, included"),
        ("before" = Option<DateTime<Utc>>, Query, description = "RFC 3339, excluded")),
    responses((status = 200, description = "The file", content((String = "text/csv"), (Line = "application/x-ndjson"))), Common))]
async fn export(
    State(app): State<AppState>,
    caller: Caller,
    mut params: Params,
) -> Result<Response, Problem> {
    let (by, format) = (Query::read(&mut params), Format::read(&mut params));
    params.finish()?;
    let select =
        format!("select {COLUMNS}, a.before::text as before, a.after::text as after from audit a where true");
    let mut query = export::cursor(&select);
    by.push(&mut query, &caller.scope);
    query.push(" order by a.number");
    app.exports.stream::<Line>(&app.pool, query, "audit", format).await
}
