//! The rows of keys.

use std::time::Duration;

use sqlx::{FromRow, PgConnection, QueryBuilder};

use super::key::{Fingerprint, KeyId, NewKey};
use super::role::Role;
use super::scope::Scope;
use crate::clock::Time;
use crate::http::page::{Page, Sort};
use crate::http::problem::FieldError;

pub(super) static SORTS: &[Sort] = &[Sort { name: "number", sql: "k.number", cast: "bigint" }];

/// A key without its secret.
#[derive(Clone, Debug, FromRow)]
pub struct Key {
    /// Its public part.
    pub id: String,
    /// For lists.
    pub number: i64,
    /// What people call it.
    pub name: String,
    /// What its holder is.
    pub role: Role,
    secret_sha256: Vec<u8>,
    previous_sha256: Option<Vec<u8>>,
    /// Until then the secret before the last rotation opens as well.
    pub previous_until: Option<Time>,
    /// When it was made.
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// It opens nothing from then on.
    pub expires_at: Option<Time>,
    /// It opens nothing since then.
    pub revoked_at: Option<Time>,
    /// To the minute.
    pub last_used_at: Option<Time>,
    /// How much of the fleet its holder sees.
    #[sqlx(flatten)]
    pub scope: Scope,
}

/// How exactly `last_used_at` is kept.
const USE: Duration = Duration::from_secs(60);

const COLUMNS: &str = "k.id, k.number, k.name, k.role, k.secret_sha256, k.previous_sha256, k.previous_until, k.created_at, k.created_by, \
    k.expires_at, k.revoked_at, k.last_used_at, k.user_ids, k.channels, k.platforms";
/// Its scope, to compare with a caller's.
const SCOPE: [&str; 3] = ["k.user_ids", "k.channels", "k.platforms"];

impl Key {
    /// Whether it is open to this secret now.
    pub fn opens_to(&self, given: &Fingerprint, now: Time) -> bool {
        // Both are compared, whatever the first says.
        let present = given.is(&self.secret_sha256);
        let previous = self.previous_sha256.as_deref().is_some_and(|previous| given.is(previous))
            && self.previous_until.is_some_and(|until| now < until);
        (present || previous) && self.is_live(now)
    }

    /// Whether its last use was noted too long ago.
    pub fn is_use_due(&self, now: Time) -> bool {
        self.last_used_at.is_none_or(|at| (now - at).to_std().is_ok_and(|ago| ago >= USE))
    }

    /// `active`, `expired` or `revoked`.
    pub fn status(&self, now: Time) -> &'static str {
        match self {
            Self { revoked_at: Some(_), .. } => "revoked",
            key if key.is_live(now) => "active",
            _ => "expired",
        }
    }

    /// Whether it opens anything.
    pub fn is_live(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// Longest name of a key, in characters.
const NAME: usize = 100;

/// What somebody wants a key to be.
pub struct Wanted {
    name: String,
    role: Role,
    scope: Scope,
    expires_at: Option<Time>,
}

impl Wanted {
    /// Unless something about it is wrong.
    pub fn new(
        name: &str,
        role: Role,
        scope: Scope,
        expires_at: Option<Time>,
        now: Time,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, detail: String| errors.push(FieldError { field: field.into(), detail });
        let name = name.trim();
        let length = name.chars().count();
        if !(1..=NAME).contains(&length) || name.chars().any(char::is_control) {
            let detail =
                format!("must have 1 to {NAME} characters and no control characters, this has {length}");
            wrong("name", detail);
        }
        if expires_at.is_some_and(|at| at <= now) {
            wrong("expires_at", "must lie in the future".into());
        }
        match scope.checked() {
            Ok(scope) if errors.is_empty() => Ok(Self { name: name.to_owned(), role, scope, expires_at }),
            scope => {
                errors.extend(scope.err().into_iter().flatten());
                Err(errors)
            }
        }
    }

    /// How much of the fleet its holder is to see.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }
}

/// The key, unless it sees more than `scope`.
pub(super) async fn get(
    conn: &mut PgConnection,
    scope: &Scope,
    id: &KeyId,
) -> Result<Option<Key>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from api_keys k where k.id = "));
    query.push_bind(id.as_str());
    scope.push_within(&mut query, SCOPE);
    query.build_query_as().fetch_optional(conn).await
}

/// Notes that a key opened something.
pub(super) async fn note_use(conn: &mut PgConnection, key: &Key, now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update api_keys set last_used_at = $2 where id = $1 and last_used_at is not distinct from $3",
        key.id,
        now,
        key.last_used_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes a new key down.
pub async fn create(
    conn: &mut PgConnection,
    new: &NewKey,
    wanted: &Wanted,
    by: &str,
    now: Time,
) -> Result<Key, sqlx::Error> {
    sqlx::query!(
        "insert into api_keys (id, name, role, secret_sha256, created_at, created_by, expires_at, user_ids, channels, platforms) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        new.id.as_str(),
        wanted.name,
        wanted.role as Role,
        new.fingerprint.bytes(),
        now,
        by,
        wanted.expires_at,
        wanted.scope.user_ids.as_deref(),
        wanted.scope.channels.as_deref(),
        wanted.scope.platforms.as_deref()
    )
    .execute(&mut *conn)
    .await?;
    get(conn, Scope::ALL, &new.id).await?.ok_or(sqlx::Error::RowNotFound)
}

/// Gives a key another secret; the old one opens until `previous_until`. None when there is no such key, or it is dead.
pub async fn rotate(
    conn: &mut PgConnection,
    new: &NewKey,
    previous_until: Time,
    now: Time,
) -> Result<Option<Key>, sqlx::Error> {
    let changed = sqlx::query!(
        "update api_keys set previous_sha256 = secret_sha256, previous_until = $3, secret_sha256 = $2
         where id = $1 and revoked_at is null and (expires_at is null or expires_at > $4)",
        new.id.as_str(),
        new.fingerprint.bytes(),
        previous_until,
        now
    );
    if changed.execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(None);
    }
    get(conn, Scope::ALL, &new.id).await
}

/// Revokes a key; one that is revoked stays so. None when there is no such key.
pub async fn revoke(conn: &mut PgConnection, id: &KeyId, now: Time) -> Result<Option<Key>, sqlx::Error> {
    sqlx::query!("update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1", id.as_str(), now)
        .execute(&mut *conn)
        .await?;
    get(conn, Scope::ALL, id).await
}

/// How many keys of administrators open everything.
pub async fn admins(conn: &mut PgConnection, now: Time) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from api_keys where role = 'admin' and num_nonnulls(user_ids, channels, platforms) = 0 and revoked_at is null and (expires_at is null or expires_at > $1)"#,
        now
    )
    .fetch_one(conn)
    .await
}

/// A page, the cursor of the next one, and how many there are.
pub(super) async fn list(
    conn: &mut PgConnection,
    scope: &Scope,
    page: &Page,
) -> Result<(Vec<Key>, Option<String>, i64), sqlx::Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from api_keys k where true"));
    scope.push_within(&mut query, SCOPE);
    page.push(&mut query, "k.number");
    let mut keys = query.build_query_as::<Key>().fetch_all(&mut *conn).await?;
    let next = page.cut(&mut keys, |key| (key.number.to_string(), key.number));
    let mut count = QueryBuilder::new("select count(*) from api_keys k where true");
    scope.push_within(&mut count, SCOPE);
    let total = count.build_query_scalar().fetch_one(conn).await?;
    Ok((keys, next, total))
}

/// All keys, the newest last.
pub async fn all(conn: &mut PgConnection) -> Result<Vec<Key>, sqlx::Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from api_keys k order by k.number"));
    query.build_query_as().fetch_all(conn).await
}

/// Whether there is no key at all, revoked ones included. Whoever asks makes the next one before anybody else may.
pub async fn none(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('paperminder first key', 0))")
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar("select not exists (select 1 from api_keys)").fetch_one(conn).await
}
