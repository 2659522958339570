//! Whether the trail is as it was written.

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

/// The last entry: whoever keeps it elsewhere can tell later whether the trail was cut off or written anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number, which is how many entries there are.
    pub number: i64,
    /// Its hash, in hex.
    pub hash: String,
}

/// Where the trail is not what was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing.
    #[error("entry {0} is missing")]
    Missing(i64),
    /// An entry, or its hash, was changed.
    #[error("entry {0} is not what was written, or one before it was replaced")]
    Changed(i64),
    /// The entry that somebody kept is another one here.
    #[error("entry {0} is not the one that was expected")]
    Unexpected(i64),
}

/// Reads the whole trail. `kept` is an entry that somebody knows from an earlier time.
pub async fn verify(
    conn: &mut PgConnection,
    kept: Option<&Head>,
) -> Result<Result<Head, Broken>, sqlx::Error> {
    // The functions of the database could have been changed as well, so the text is put together here and hashed outside.
    let rows = sqlx::query!(
        r#"select number, encode(hash, 'hex') as "hash!", jsonb_build_array(number, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               actor, address, operation, trace_id, action, subject_id, subject, before, after, reach_users, reach_channels,
               reach_platforms)::text as "text!"
           from audit order by number"#
    );
    let (mut rows, mut head) = (rows.fetch(conn), Head::default());
    let mut is_kept = kept.is_none();
    while let Some(row) = rows.try_next().await? {
        if row.number != head.number + 1 {
            return Ok(Err(Broken::Missing(head.number + 1)));
        }
        let hash = hex::encode(Sha256::digest(head.hash + &row.text));
        if hash != row.hash {
            return Ok(Err(Broken::Changed(row.number)));
        }
        head = Head { number: row.number, hash };
        if let Some(kept) = kept.filter(|kept| kept.number == head.number) {
            if kept.hash != head.hash {
                return Ok(Err(Broken::Unexpected(head.number)));
            }
            is_kept = true;
        }
    }
    match kept {
        Some(kept) if !is_kept => Ok(Err(Broken::Missing(kept.number))),
        _ => Ok(Ok(head)),
    }
}
