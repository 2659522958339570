//! The SQL of releases.

use std::collections::BTreeMap;

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};

use super::image::Findings;
use super::{Error, Query, Release, Selector, direct};
use crate::auth::Scope;
use crate::clock::Time;
use crate::http::page::{Page, Sort};
use crate::ids::FirmwareId;
use crate::storage::ObjectKey;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// What is the same for whoever looks.
const COLUMNS: &str = "f.id, f.number, f.version, f.channel, f.platform, f.object_key, f.file_size, f.md5_checksum, \
    f.sha256_checksum, f.release_notes, f.changelog, f.mandatory, f.min_upgrade_version, f.released_at, f.deprecated_at, \
    f.image, f.validated, f.revision";

/// What is counted, of everybody's printers. Successes and failures are those of the outcomes, which the database keeps
/// beside the updates, and of what waits for its proof: exact at every commit, and no matter of how many there are.
const COUNTS: &str = "f.download_count, (coalesce((select sum(o.count) from outcomes o where o.release = f.id and o.outcome = 'completed'), 0) \
        + coalesce(recent.completed, 0) \
        + (select count(*) from update_history u where u.firmware_version_id = f.id and u.open and u.status = 'completed'))::bigint \
        as success_count, \
    (coalesce((select sum(o.count) from outcomes o where o.release = f.id and o.outcome = 'failed'), 0) \
        + coalesce(recent.failed, 0))::bigint as failure_count \
    from firmware_versions f left join ( \
    select release, sum(count) filter (where outcome = 'completed') as completed, sum(count) filter (where outcome = 'failed') as failed \
    from outcomes_log group by release) recent on recent.release = f.id";

/// Selects the releases of a scope, and `more` of each. Whoever sees the printers of some users alone has these counted,
/// one by one.
fn select(scope: &Scope, more: &str) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS}{more}, "));
    match &scope.user_ids {
        None => {
            query.push(COUNTS);
        }
        Some(users) => {
            query.push(
                "c.downloads as download_count, c.successes as success_count, c.failures as failure_count \
                 from firmware_versions f cross join lateral (select count(u.download_ended_at) as downloads, \
                     count(*) filter (where u.status = 'completed') as successes, \
                     count(*) filter (where u.status = 'failed') as failures \
                 from update_history u join printers p on p.id = u.printer \
                 where u.firmware_version_id = f.id and u.firmware_version = f.version and p.user_id = any(",
            );
            query.push_bind(users.clone()).push(")) c");
        }
    }
    query.push(" where true");
    scope.push_releases(&mut query, "f");
    query
}

/// Most stable first, as SQL.
pub(super) const STABILITY: &str = "case f.channel when 'stable' then 0 when 'beta' then 1 else 2 end";

pub(super) static SORTS: &[Sort] = &[
    Sort { name: "released_at", sql: "f.released_at", cast: "timestamptz" },
    Sort { name: "version", sql: "f.version_key", cast: "text collate \"C\"" },
    Sort { name: "number", sql: "f.number", cast: "bigint" },
];

impl FromRow<'_, PgRow> for Release {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            number: row.try_get("number")?,
            version: row.try_get::<String, _>("version")?.into(),
            channel: row.try_get("channel")?,
            platform: row.try_get("platform")?,
            object_key: ObjectKey::stored(row.try_get("object_key")?),
            file_size: row.try_get("file_size")?,
            md5: row.try_get("md5_checksum")?,
            sha256: row.try_get("sha256_checksum")?,
            release_notes: row.try_get("release_notes")?,
            changelog: row.try_get("changelog")?,
            mandatory: row.try_get("mandatory")?,
            min_upgrade_version: row.try_get::<Option<String>, _>("min_upgrade_version")?.map(Version::from),
            released_at: row.try_get("released_at")?,
            deprecated_at: row.try_get("deprecated_at")?,
            download_count: row.try_get("download_count")?,
            success_count: row.try_get("success_count")?,
            failure_count: row.try_get("failure_count")?,
            image: row.try_get::<Option<Json<Findings>>, _>("image")?.map(|image| image.0),
            validated: row.try_get("validated")?,
            revision: row.try_get("revision")?,
        })
    }
}

pub(super) async fn exists(
    conn: &mut PgConnection,
    version: &Version,
    channel: Channel,
    platform: Platform,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"select exists (select 1 from firmware_versions where version = $1 and channel = $2 and platform = $3) as "found!""#,
        version.to_string(),
        channel.as_str(),
        platform.as_str()
    );
    found.fetch_one(conn).await
}

/// Writes the row. A second time with the same id changes nothing and is no error.
pub(super) async fn insert(conn: &mut PgConnection, release: &Release) -> Result<Release, Error> {
    let inserted = sqlx::query_scalar!(
        "insert into firmware_versions (id, version, version_key, channel, platform, object_key, file_size, md5_checksum, \
         sha256_checksum, release_notes, changelog, mandatory, min_upgrade_version, min_upgrade_version_key, released_at, \
         image, validated) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) on conflict do nothing returning number",
        release.id.0,
        release.version.to_string(),
        release.version.key(),
        release.channel.as_str(),
        release.platform.as_str(),
        release.object_key.as_str(),
        release.file_size,
        release.md5,
        release.sha256,
        release.release_notes,
        release.changelog,
        release.mandatory,
        release.min_upgrade_version.as_ref().map(ToString::to_string),
        release.min_upgrade_version.as_ref().map(Version::key),
        release.released_at,
        release.image.as_ref().map(Json) as Option<Json<&Findings>>,
        release.validated,
    );
    let number = match inserted.fetch_optional(&mut *conn).await? {
        Some(number) => Some(number),
        // Ours by an earlier try, or the triple is somebody else's.
        None => {
            sqlx::query_scalar!("select number from firmware_versions where id = $1", release.id.0)
                .fetch_optional(conn)
                .await?
        }
    };
    let number = number.ok_or_else(|| Error::Exists {
        version: release.version.clone(),
        channel: release.channel,
        platform: release.platform,
    })?;
    Ok(Release { number, ..release.clone() })
}

pub(super) async fn find(conn: &mut PgConnection, scope: &Scope, by: &Selector) -> Result<Release, Error> {
    let mut query = select(scope, "");
    query.push(" and f.version = ").push_bind(by.version.to_string());
    query.push(" and f.platform = ").push_bind(by.platform.as_str());
    if let Some(channel) = by.channel {
        query.push(" and f.channel = ").push_bind(channel.as_str());
    }
    query.push(format!(" order by {STABILITY} limit 1"));
    query.build_query_as().fetch_optional(conn).await?.ok_or_else(|| {
        let channel = by.channel.map_or_else(String::new, |channel| format!(" on {channel}"));
        Error::NotFound(format!("{}{channel} for {}", by.version, by.platform))
    })
}

pub(super) async fn get(conn: &mut PgConnection, id: FirmwareId) -> Result<Option<Release>, sqlx::Error> {
    let mut query = select(Scope::ALL, "");
    query.push(" and f.id = ").push_bind(id.0).build_query_as().fetch_optional(conn).await
}

/// Writes what may change. The row must be locked.
pub(super) async fn amend(conn: &mut PgConnection, release: &Release) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update firmware_versions set release_notes = $2, changelog = $3, mandatory = $4, min_upgrade_version = $5, \
         min_upgrade_version_key = $6, deprecated_at = $7, revision = $8 where id = $1",
        release.id.0,
        release.release_notes,
        release.changelog,
        release.mandatory,
        release.min_upgrade_version.as_ref().map(ToString::to_string),
        release.min_upgrade_version.as_ref().map(Version::key),
        release.deprecated_at,
        release.revision,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Every release of a version in this scope, on all channels and platforms.
pub async fn releases_of(
    conn: &mut PgConnection,
    scope: &Scope,
    version: &Version,
) -> Result<Vec<Release>, sqlx::Error> {
    let mut query = select(scope, "");
    query
        .push(" and f.version = ")
        .push_bind(version.to_string())
        .push(format!(" order by {STABILITY}, f.platform"));
    query.build_query_as().fetch_all(conn).await
}

pub(super) async fn latest(
    conn: &mut PgConnection,
    scope: &Scope,
    channel: Channel,
    platform: Platform,
) -> Result<Release, Error> {
    let mut query = select(scope, "");
    query.push(" and f.deprecated_at is null and f.channel = ").push_bind(channel.as_str());
    query.push(" and f.platform = ").push_bind(platform.as_str());
    query.push(" order by f.version_key desc, f.number desc limit 1");
    let found = query.build_query_as().fetch_optional(conn).await?;
    found.ok_or_else(|| Error::NotFound(format!("on {channel} for {platform}")))
}

fn filter(query: &mut QueryBuilder<Postgres>, by: &Query) {
    if let Some(channel) = by.channel {
        query.push(" and f.channel = ").push_bind(channel.as_str());
    }
    if let Some(platform) = by.platform {
        query.push(" and f.platform = ").push_bind(platform.as_str());
    }
    if let Some(deprecated) = by.deprecated {
        query.push(" and (f.deprecated_at is not null) = ").push_bind(deprecated);
    }
}

/// One page, the cursor of the next, and the count of all.
pub(super) async fn list(
    conn: &mut PgConnection,
    scope: &Scope,
    by: &Query,
    page: &Page,
) -> Result<(Vec<Release>, Option<String>, i64), sqlx::Error> {
    let mut count = QueryBuilder::new("select count(*) from firmware_versions f where true");
    scope.push_releases(&mut count, "f");
    filter(&mut count, by);
    let total = count.build_query_scalar().fetch_one(&mut *conn).await?;
    let mut query = select(scope, &format!(", {}", page.sort_key()));
    filter(&mut query, by);
    page.push(&mut query, "f.number");
    let mut rows = query.build().fetch_all(conn).await?;
    let next = page.cut(&mut rows, |row| (row.get("sort_key"), row.get("number")));
    let releases = rows.iter().map(Release::from_row).collect::<Result<_, _>>()?;
    Ok((releases, next, total))
}

/// One more complete download.
pub async fn count_download(conn: &mut PgConnection, id: FirmwareId) -> Result<(), sqlx::Error> {
    sqlx::query!("update firmware_versions set download_count = download_count + 1 where id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Number of a rollout that offers this release, or may again: it names the version, and no other channel.
pub(super) async fn used_by(conn: &mut PgConnection, release: &Release) -> Result<Option<i64>, sqlx::Error> {
    let rollout = sqlx::query_scalar!(
        "select number from update_rollouts where firmware_version = $1 and (channel is null or channel = $2) \
         and status <> 'cancelled' and deleted_at is null order by number limit 1",
        release.version.to_string(),
        release.channel.as_str(),
    );
    rollout.fetch_optional(conn).await
}

/// Holds a release against use and change until the transaction ends.
pub(super) async fn lock(conn: &mut PgConnection, id: FirmwareId) -> Result<(), sqlx::Error> {
    sqlx::query!("select id from firmware_versions where id = $1 for update", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(())
}

/// Holds every release of a version against deletion until the transaction ends.
pub async fn hold(conn: &mut PgConnection, version: &Version) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select id from firmware_versions where version = $1 order by id for share",
        version.to_string()
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// How many printers are on their way to a release.
pub(super) async fn open_updates(conn: &mut PgConnection, id: FirmwareId) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from update_history where firmware_version_id = $1 and open"#,
        id.0
    );
    count.fetch_one(conn).await
}

/// Removes a release, and returns its key.
pub(super) async fn delete(
    conn: &mut PgConnection,
    id: FirmwareId,
) -> Result<Option<ObjectKey>, sqlx::Error> {
    let key = sqlx::query_scalar!("delete from firmware_versions where id = $1 returning object_key", id.0);
    Ok(key.fetch_optional(conn).await?.map(ObjectKey::stored))
}

/// Where a release's image is.
pub(super) struct Stored {
    pub version: String,
    pub channel: String,
    pub platform: String,
    pub key: ObjectKey,
    pub size: u64,
}

/// Every release's image, the oldest first.
pub(super) async fn stored(conn: &mut PgConnection) -> Result<Vec<Stored>, sqlx::Error> {
    let rows = sqlx::query!(
        "select version, channel, platform, object_key, file_size from firmware_versions order by number"
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| Stored {
        version: row.version,
        channel: row.channel,
        platform: row.platform,
        key: ObjectKey::stored(row.object_key),
        size: u64::try_from(row.file_size).unwrap_or_default(),
    });
    Ok(rows.collect())
}

/// Those of these keys that a release names.
pub(super) async fn named(conn: &mut PgConnection, keys: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!("select object_key from firmware_versions where object_key = any($1)", keys)
        .fetch_all(conn)
        .await
}

/// Whether there is any release.
pub(super) async fn any(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select 1 from firmware_versions) as "any!""#).fetch_one(conn).await
}

/// Notes a direct upload.
pub(super) async fn begin_upload(conn: &mut PgConnection, upload: &direct::Row) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into firmware_uploads (id, upload_id, fields, file_size, parts, expires_at) values ($1, $2, $3, $4, $5, $6)",
        upload.id.0,
        upload.upload,
        Json(&upload.fields) as Json<&BTreeMap<String, String>>,
        upload.size,
        upload.parts,
        upload.expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A direct upload that has not expired.
pub(super) async fn find_upload(
    conn: &mut PgConnection,
    id: FirmwareId,
    now: Time,
) -> Result<Option<direct::Row>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select upload_id, fields as "fields: Json<BTreeMap<String, String>>", file_size, parts, expires_at
        from firmware_uploads where id = $1 and expires_at > $2"#,
        id.0,
        now
    );
    Ok(row.fetch_optional(conn).await?.map(|row| direct::Row {
        id,
        upload: row.upload_id,
        fields: row.fields.0,
        size: row.file_size,
        parts: row.parts,
        expires_at: row.expires_at,
    }))
}

/// Takes a direct upload away; only one can.
pub(super) async fn take_upload(conn: &mut PgConnection, id: FirmwareId) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query!("delete from firmware_uploads where id = $1", id.0).execute(conn).await?;
    Ok(taken.rows_affected() == 1)
}

/// Forgets direct uploads that expired.
pub(super) async fn forget_uploads(conn: &mut PgConnection, now: Time) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from firmware_uploads where expires_at < $1", now).execute(conn).await?;
    Ok(())
}
