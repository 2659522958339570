//! The rows of sessions.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Person, Who};
use crate::auth::key::Fingerprint;
use crate::auth::role::Role;
use crate::auth::scope::Scope;
use crate::clock::Time;

/// A session as it is kept.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) who: Who,
    pub(super) last_used_at: Time,
    pub(super) expires_at: Time,
}

impl Row {
    pub(super) fn is_live(&self, now: Time, idle: Duration) -> bool {
        now < self.expires_at && now < self.last_used_at + idle
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    id: &Fingerprint,
    who: &Who,
    person: &str,
    now: Time,
    expires_at: Time,
) -> Result<(), sqlx::Error> {
    let (key_id, key, known) = match who {
        Who::Key(id, fingerprint) => (id.as_ref().map(|id| id.as_str()), Some(fingerprint.bytes()), None),
        Who::Person(person) => (None, None, Some(person)),
    };
    sqlx::query!(
        "insert into sessions (id_sha256, person, key_id, key_sha256, name, role, user_ids, created_at, last_used_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)",
        id.bytes(),
        person,
        key_id,
        key,
        known.map(|known| known.name.as_str()),
        known.map(|known| known.role) as Option<Role>,
        known.and_then(|known| known.scope.user_ids.as_deref()),
        now,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends all of somebody's but the newest ones.
pub(super) async fn trim(conn: &mut PgConnection, person: &str, most: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from sessions where id_sha256 in
         (select id_sha256 from sessions where person = $1 order by created_at desc, id_sha256 offset $2)",
        person,
        most
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn find(conn: &mut PgConnection, id: &Fingerprint) -> Result<Option<Row>, sqlx::Error> {
    let found = sqlx::query!(
        r#"select person, key_id, key_sha256, name, role as "role: Role", user_ids, last_used_at, expires_at
           from sessions where id_sha256 = $1"#,
        id.bytes()
    );
    let Some(found) = found.fetch_optional(conn).await? else { return Ok(None) };
    let who = match (found.role, found.key_sha256) {
        (Some(role), _) => Who::Person(Person {
            id: found.person,
            name: found.name.unwrap_or_default(),
            role,
            scope: Scope { user_ids: found.user_ids, ..Scope::default() },
        }),
        (None, key) => {
            // What the schema forbids opens nothing.
            let Some(key) = key.and_then(|key| Fingerprint::kept(&key)) else { return Ok(None) };
            let Ok(id) = found.key_id.map(|id| id.parse()).transpose() else { return Ok(None) };
            Who::Key(id, key)
        }
    };
    Ok(Some(Row { who, last_used_at: found.last_used_at, expires_at: found.expires_at }))
}

/// Writes down that somebody uses it, unless somebody did since `row` was read.
pub(super) async fn touch(
    conn: &mut PgConnection,
    id: &Fingerprint,
    row: &Row,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sessions set last_used_at = $2 where id_sha256 = $1 and last_used_at = $3",
        id.bytes(),
        now,
        row.last_used_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn end(conn: &mut PgConnection, id: &Fingerprint) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from sessions where id_sha256 = $1", id.bytes()).execute(conn).await?;
    Ok(())
}

/// Forgets sessions that are over by their age, and logins that nobody ended. Those that were silent for too long open
/// nothing, and go with their age.
pub async fn sweep(conn: &mut PgConnection, now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from sessions where expires_at <= $1", now).execute(&mut *conn).await?;
    sqlx::query!("delete from logins where expires_at <= $1", now).execute(conn).await?;
    Ok(())
}
