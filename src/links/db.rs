//! The SQL of links.

use sqlx::PgConnection;

use super::token::{NewLink, Token};
use crate::clock::Time;
use crate::ids::{FirmwareId, UpdateId};
use crate::storage::ObjectKey;
use crate::version::Version;

/// What a link downloads, and for whom.
#[derive(Debug)]
pub(super) struct Link {
    pub update: UpdateId,
    pub release: FirmwareId,
    pub version: Version,
    pub key: ObjectKey,
    pub size: u64,
    pub md5: String,
    pub sha256: String,
    pub follows_redirects: bool,
}

/// Writes links, in one statement.
pub async fn create(conn: &mut PgConnection, links: &[NewLink], now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into download_links (token_hash, printer, firmware_version_id, update_id, created_at, expires_at) \
         select l.token_hash, l.printer, l.release, l.update_id, $6, l.expires_at \
         from unnest($1::bytea[], $2::uuid[], $3::uuid[], $4::uuid[], $5::timestamptz[]) as l (token_hash, printer, release, update_id, expires_at)",
        &links.iter().map(|link| link.token.hash().to_vec()).collect::<Vec<_>>(),
        &links.iter().map(|link| link.printer.0).collect::<Vec<_>>(),
        &links.iter().map(|link| link.release.0).collect::<Vec<_>>(),
        &links.iter().map(|link| link.update.0).collect::<Vec<_>>(),
        &links.iter().map(|link| link.expires_at).collect::<Vec<_>>(),
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a token opens at this moment.
pub(super) async fn find(
    conn: &mut PgConnection,
    token: &Token,
    now: Time,
) -> Result<Option<Link>, sqlx::Error> {
    let row = sqlx::query!(
        "select l.update_id, f.id, f.version, f.object_key, f.file_size, f.md5_checksum, f.sha256_checksum, p.follows_redirects \
         from download_links l join firmware_versions f on f.id = l.firmware_version_id join printers p on p.id = l.printer \
         where l.token_hash = $1 and l.expires_at > $2",
        &token.hash()[..],
        now
    );
    Ok(row.fetch_optional(conn).await?.map(|row| Link {
        update: UpdateId(row.update_id),
        release: FirmwareId(row.id),
        version: row.version.into(),
        key: ObjectKey::stored(row.object_key),
        size: row.file_size.unsigned_abs(),
        md5: row.md5_checksum,
        sha256: row.sha256_checksum,
        follows_redirects: row.follows_redirects,
    }))
}

/// Forgets links that expired.
pub async fn sweep(conn: &mut PgConnection, now: Time) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!("delete from download_links where expires_at <= $1", now).execute(conn).await?;
    Ok(done.rows_affected())
}
