//! Requests that may be sent again: `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! Invariants:
//! - A key is claimed in the transaction of the change. Whatever dies in between, both stand or neither, and of all
//!   requests with one key at most one changes anything, on whatever replica they are.
//! - What changed nothing claims nothing: after a refusal the key may come again with a request that was mended.
//! - A key belongs to whoever sent it, and to what they saw of the fleet then.
//! - An answer that holds a secret is not kept.

pub mod http;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Time;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Rows that are forgotten in one statement.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

type Hash = [u8; 32];

fn hash(parts: impl IntoIterator<Item: AsRef<[u8]>>) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        let part = part.as_ref();
        // The length keeps apart what would run together.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A request that is to change something once, however often it is sent.
#[derive(Debug)]
pub struct Once {
    caller: Arc<str>,
    /// How much of the fleet the caller sees: the same words mean other printers to somebody who sees others.
    sees: String,
    key: Hash,
    request: Uuid,
    operation: Arc<str>,
    fingerprint: OnceLock<Hash>,
}

impl Once {
    fn new(caller: Arc<str>, sees: String, key: &str, operation: Arc<str>) -> Self {
        let key = hash([key]);
        Self { caller, sees, key, request: Uuid::new_v4(), operation, fingerprint: OnceLock::new() }
    }

    /// Says what is asked for. The first word counts: a form is described by whoever reads it.
    pub fn describe(&self, parts: impl IntoIterator<Item: AsRef<[u8]>>) {
        self.fingerprint.get_or_init(|| hash([hash([&self.sees]), hash(parts)]));
    }

    /// Whether a request with this key was carried out.
    pub async fn is_used(&self, conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let used = sqlx::query_scalar!(
            "select exists (select 1 from idempotency_keys where caller = $1 and key = $2) as \"used!\"",
            &*self.caller,
            &self.key
        );
        used.fetch_one(conn).await
    }

    /// Claims the key for this transaction; waits for another that is about to do the same.
    ///
    /// # Errors
    /// Another request has it: see [`is_taken`].
    pub async fn claim(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let fingerprint =
            self.fingerprint.get().ok_or_else(|| sqlx::Error::Decode(Box::new(Unfit::Nameless)))?;
        let claimed = sqlx::query!(
            "insert into idempotency_keys (caller, key, request, fingerprint, operation) values ($1, $2, $3, $4, $5) \
             on conflict (caller, key) do nothing",
            &*self.caller,
            &self.key,
            self.request,
            fingerprint,
            &*self.operation
        );
        // A transaction that is tried again may find that the first try was committed after all.
        if claimed.execute(&mut *conn).await?.rows_affected() == 0 && self.earlier(conn).await?.is_some() {
            return Err(sqlx::Error::Decode(Box::new(Unfit::Taken)));
        }
        Ok(())
    }

    /// Keeps the answer, if the key was claimed.
    async fn keep(&self, conn: &mut PgConnection, answer: &Answer) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "update idempotency_keys set status = $4, location = $5, body = $6 where caller = $1 and key = $2 and request = $3",
            &*self.caller,
            &self.key,
            self.request,
            answer.status,
            answer.location,
            answer.body
        )
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Whoever claimed the key, if that was another request.
    async fn earlier(&self, conn: &mut PgConnection) -> Result<Option<Earlier>, sqlx::Error> {
        let row = sqlx::query!(
            "select fingerprint, operation, created_at, status, location, body from idempotency_keys \
             where caller = $1 and key = $2 and request <> $3",
            &*self.caller,
            &self.key,
            self.request
        );
        let row = row.fetch_optional(conn).await?;
        let own = self.fingerprint.get().map(|own| &own[..]);
        Ok(row.map(|row| Earlier {
            is_same: own == Some(&row.fingerprint) && *self.operation == *row.operation,
            operation: row.operation,
            at: row.created_at,
            answer: row.status.map(|status| Answer { status, location: row.location, body: row.body }),
        }))
    }
}

/// Why a key cannot be claimed.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("another request came with this Idempotency-Key")]
    Taken,
    #[error("a request changes something before it was described")]
    Nameless,
}

/// Whether a transaction could not begin because another request was carried out with the key.
pub fn is_taken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Decode(why) if matches!(why.downcast_ref(), Some(Unfit::Taken)))
}

/// A request that came before with the same key.
struct Earlier {
    /// It asked for the same.
    is_same: bool,
    operation: String,
    at: Time,
    /// None: it is not known, or not yet.
    answer: Option<Answer>,
}

struct Answer {
    status: i16,
    location: Option<String>,
    /// None: it held a secret.
    body: Option<Vec<u8>>,
}

/// Forgets answers that are no longer kept; returns how many. Zero: there are no more.
pub async fn forget(conn: &mut PgConnection, now: Time) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "delete from idempotency_keys where ctid = any (array(\
             select ctid from idempotency_keys where created_at < $1 limit $2))",
        now - KEPT,
        FORGOTTEN_AT_ONCE
    );
    Ok(done.execute(conn).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_apart_what_reads_the_same() {
        let of = |parts: &[&str]| hash(parts);
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", ""]), of(&["a"]));
    }
}
