//! Who changed what: a trail that is only ever added to.
//!
//! Invariants:
//! - The database writes it, in the transaction of the change (`migrations/`), so that no way of changing a row can
//!   forget it. What a person or a pipeline does is done in a transaction of [`begin`], which tells the database who it
//!   is; what nobody said that of is the server's own doing.
//! - Every entry holds the SHA-256 of itself and the entry before it. Nobody may change or remove one.

pub mod http;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

pub use verify::{Broken, Head, verify};

/// Whoever does something, and on which occasion.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// `key <id>`, `bootstrap`, `person <name>`, `cli`, or `anonymous` while authentication is off.
    pub name: Arc<str>,
    /// The same for ever: names of people change.
    pub identity: Arc<str>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The operation of the OpenAPI document, or the command.
    pub operation: Option<Arc<str>>,
    /// The request's trace.
    pub trace_id: Option<Arc<str>>,
}

impl Actor {
    /// Somebody, on no occasion yet.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), identity: name.into(), ..Self::default() }
    }
}

/// Begins a transaction whose changes are this actor's.
pub async fn begin(pool: &PgPool, actor: &Actor) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "select set_config('paperminder.actor', $1, true) as actor, set_config('paperminder.address', $2, true) as address, \
         set_config('paperminder.operation', $3, true) as operation, set_config('paperminder.trace_id', $4, true) as trace",
        &*actor.name,
        actor.address.map(|address| address.to_string()).unwrap_or_default(),
        actor.operation.as_deref().unwrap_or_default(),
        actor.trace_id.as_deref().unwrap_or_default()
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(tx)
}

/// Adds an entry for what no row shows. Call it last in a transaction of [`begin`]: whoever else adds one waits for its end.
pub async fn note(
    conn: &mut PgConnection,
    action: &str,
    (id, name): (&str, &str),
    after: serde_json::Value,
    [users, channels, platforms]: [Option<&[String]>; 3],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select audit_append($1, $2, $3, null, $4, $5, $6, $7)",
        action,
        id,
        name,
        after,
        users,
        channels,
        platforms
    )
    .execute(conn)
    .await?;
    Ok(())
}
