//! The rows of logins.

use sqlx::PgConnection;

use crate::auth::key::Fingerprint;
use crate::clock::Time;

/// Logins that may be on their way at once: anybody may begin one, so the oldest make room.
const MOST: i64 = 10_000;

/// What must be known to end a login.
pub(super) struct Login {
    pub(super) nonce: String,
    pub(super) verifier: String,
    pub(super) return_to: String,
}

pub(super) async fn begin(
    conn: &mut PgConnection,
    [state, browser]: &[Fingerprint; 2],
    login: &Login,
    now: Time,
    expires_at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from logins where expires_at <= $1
         or state_sha256 in (select state_sha256 from logins order by expires_at desc offset $2)",
        now,
        MOST - 1
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into logins (state_sha256, browser_sha256, nonce, verifier, return_to, expires_at) values ($1, $2, $3, $4, $5, $6)",
        state.bytes(),
        browser.bytes(),
        login.nonce,
        login.verifier,
        login.return_to,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a login out, so that it is ended once, whichever replica is asked how often.
pub(super) async fn take(
    conn: &mut PgConnection,
    [state, browser]: &[Fingerprint; 2],
    now: Time,
) -> Result<Option<Login>, sqlx::Error> {
    sqlx::query_as!(
        Login,
        "delete from logins where state_sha256 = $1 and browser_sha256 = $2 and expires_at > $3 returning nonce, verifier, return_to",
        state.bytes(),
        browser.bytes(),
        now
    )
    .fetch_optional(conn)
    .await
}
