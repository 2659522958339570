//! What is known of the owners of printers: their time zone, and when updates may begin. A user without a row has the
//! defaults: no time zone, no windows.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use super::Error;
use crate::auth::Caller;
use crate::clock::Time;
use crate::ids::UserId;
use crate::push::{self, Hint};
use crate::windows::{BadZone, TimeZoneName, Windows};

/// What an owner wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Of the printers that say none themselves.
    pub time_zone: Option<TimeZoneName>,
    /// When updates of the printers may begin; always when none.
    pub windows: Option<Windows>,
}

/// An owner with the row's history.
#[derive(Debug)]
pub(super) struct Known {
    pub owner: Owner,
    /// 0 without a row.
    pub revision: i64,
    pub updated_at: Option<Time>,
}

/// All owners of whom anything is known. What this version cannot read, because a newer one wrote it, is left out with a
/// line in the log: one row must not keep the whole fleet waiting.
pub async fn owners(conn: &mut PgConnection) -> Result<HashMap<UserId, Owner>, sqlx::Error> {
    let rows = sqlx::query!("select user_id, time_zone, windows from owners").fetch_all(conn).await?;
    let mut owners = HashMap::with_capacity(rows.len());
    for row in rows {
        let Ok(user) = row.user_id.parse() else { continue };
        let owner = Owner::read(&user, row.time_zone, row.windows);
        owners.insert(user, owner);
    }
    Ok(owners)
}

impl Owner {
    fn read(user: &UserId, time_zone: Option<String>, windows: Option<Value>) -> Self {
        let unreadable =
            |error: String| tracing::error!(%user, error, "what is known of an owner cannot be read");
        let zone = |text: String| text.parse().map_err(|error: BadZone| unreadable(error.to_string())).ok();
        let read = |json| serde_json::from_value(json).map_err(|error| unreadable(error.to_string())).ok();
        Self { time_zone: time_zone.and_then(zone), windows: windows.and_then(read) }
    }
}

pub(super) async fn get(conn: &mut PgConnection, user: &UserId) -> Result<Known, sqlx::Error> {
    let row = sqlx::query!(
        "select time_zone, windows, revision, updated_at from owners where user_id = $1",
        user.as_str()
    );
    Ok(row.fetch_optional(conn).await?.map_or_else(
        || Known { owner: Owner::default(), revision: 0, updated_at: None },
        |row| Known {
            owner: Owner::read(user, row.time_zone, row.windows),
            revision: row.revision,
            updated_at: Some(row.updated_at),
        },
    ))
}

/// Replaces what is known of an owner, or forgets it when there is none. `if_revision` must be the present one.
pub(super) async fn set(
    pool: &PgPool,
    caller: &Caller,
    user: &UserId,
    owner: Option<Owner>,
    if_revision: Option<i64>,
    now: Time,
) -> Result<Known, Error> {
    let mut tx = caller.begin(pool).await?;
    // A row that is not there yet cannot be locked; a name can.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('owner ' || $1, 0))", user.as_str())
        .execute(&mut *tx)
        .await?;
    let present = get(&mut tx, user).await?;
    if if_revision.is_some_and(|revision| revision != present.revision) {
        return Err(Error::Stale(present.revision));
    }
    match owner {
        Some(owner) => {
            sqlx::query!(
                "insert into owners (user_id, time_zone, windows, updated_at) values ($1, $2, $3, $4)
                 on conflict (user_id) do update set time_zone = excluded.time_zone, windows = excluded.windows,
                     revision = excluded.revision, updated_at = excluded.updated_at",
                user.as_str(),
                owner.time_zone.as_ref().map(TimeZoneName::as_str),
                owner.windows.map(Json) as _,
                now
            )
            .execute(&mut *tx)
            .await?
        }
        None => {
            sqlx::query!("delete from owners where user_id = $1", user.as_str()).execute(&mut *tx).await?
        }
    };
    let changed = get(&mut tx, user).await?;
    push::notify(&mut tx, Hint::Everything).await?;
    tx.commit().await?;
    Ok(changed)
}
