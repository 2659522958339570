//! The SQL of printers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::types::{Arrival, Cohort, Downloads, Facts, Installed, Named, Subscribed, Subscription, bucket};
use super::{Error, Printer};
use crate::auth::Scope;
use crate::clock::Time;
use crate::http::page::{Page, Sort};
use crate::ids::{FirmwareId, PrinterId, PrinterRef, ReplicaId, RolloutId, UserId};
use crate::version::Version;
use crate::windows::TimeZoneName;
use crate::words::{Channel, Platform};

pub(super) static SORTS: &[Sort] = &[
    Sort { name: "number", sql: "p.number", cast: "bigint" },
    Sort { name: "printer_name", sql: "coalesce(p.printer_name, '')", cast: "text" },
    Sort { name: "firmware_version", sql: "p.version_key", cast: "text collate \"C\"" },
    Sort { name: "last_connected", sql: "coalesce(q.last_connected, '-infinity')", cast: "timestamptz" },
];

/// All columns that REST shows.
pub(super) const COLUMNS: &str = "p.id, p.number, p.printer_id, p.user_id, p.printer_name, p.platform, p.firmware_version, p.auto_update, \
    p.update_channel, p.bucket, q.last_connected, q.last_disconnected, q.last_ip, p.created_at, p.updated_at, r.id is not null as online, \
    p.time_zone, p.shared_key, p.blocked_at, q.online_seconds + case when r.id is null then 0 else extract(epoch from now() - q.last_connected)::float8 end \
    as online_seconds, extract(epoch from now() - p.created_at)::float8 as known_seconds";
/// Every printer has its presence: one statement writes both.
pub(super) const FROM: &str = "printers p join presence q on q.printer = p.id \
    left join replicas r on r.id = q.replica and r.lease_until > now()";

/// Writes what subscribe messages said, in one statement. None for a socket whose printer has a newer one, here or
/// elsewhere: it has nothing to say any more. The rows are held from here on.
pub async fn subscribe(
    conn: &mut PgConnection,
    arrivals: &[Arrival],
    replica: ReplicaId,
    now: Time,
) -> Result<Vec<Option<Subscribed>>, sqlx::Error> {
    // Of several sockets of one printer the newest counts; one without a number is newer than all that have one.
    let age = |index: usize| arrivals[index].connection.unwrap_or(i64::MAX);
    let mut newest: BTreeMap<&PrinterId, usize> = BTreeMap::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        let place = newest.entry(&arrival.said.printer_id).or_insert(index);
        if age(index) >= age(*place) {
            *place = index;
        }
    }
    let ours: Vec<_> = newest.values().map(|index| &arrivals[*index]).collect();
    let mut rows = written(conn, &ours, replica, now).await?;
    let subscribed = |(index, arrival): (usize, &Arrival)| {
        if newest[&arrival.said.printer_id] != index {
            return None;
        }
        rows.remove(arrival.said.printer_id.as_str())
            .map(|row| Written { shared_key: arrival.shared_key, ..row }.of(&arrival.said))
    };
    Ok(arrivals.iter().enumerate().map(subscribed).collect())
}

/// What a subscribe message does not say.
struct Written {
    id: Uuid,
    connection: i64,
    installed: Option<Installed>,
    previous: Option<String>,
    shared_key: bool,
}

impl Written {
    fn of(self, said: &Subscription) -> Subscribed {
        let facts = Facts {
            printer: PrinterRef(self.id),
            printer_id: said.printer_id.clone(),
            user_id: said.user_id.clone(),
            bucket: bucket(&said.printer_id),
            cohort: Cohort {
                platform: said.platform,
                version: said.version.clone(),
                auto_update: said.auto_update,
                channel: said.channel,
                installed: self.installed,
            },
            previous: self.previous.map(Version::from),
            downloads: said.downloads,
            time_zone: said.time_zone.clone(),
            shared_key: self.shared_key,
        };
        Subscribed { facts, connection: self.connection }
    }
}

/// The statement; each printer once. By `printer_id`.
///
/// A printer that is as it was writes its presence alone. One that goes online again was online before until it said that
/// it went, or its replica's lease ended.
async fn written(
    conn: &mut PgConnection,
    arrivals: &[&Arrival],
    replica: ReplicaId,
    now: Time,
) -> Result<HashMap<String, Written>, sqlx::Error> {
    fn column<'a, T>(arrivals: &[&'a Arrival], value: impl Fn(&'a Arrival) -> T) -> Vec<T> {
        arrivals.iter().map(|arrival| value(arrival)).collect()
    }
    let printers = column(arrivals, |arrival| arrival.said.printer_id.to_string());
    // In the order in which everybody holds printers.
    sqlx::query!(
        "select id from printers where printer_id = any($1) order by id for no key update",
        &printers
    )
    .fetch_all(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"with said as materialized (
               select s.*, p.id as known, p.number, p.installed_release, p.installed_rollout, p.previous_version,
                   (p.user_id, p.printer_name, p.platform, p.firmware_version, p.version_key, p.auto_update, p.update_channel,
                       p.max_url_length, p.follows_redirects, p.time_zone, p.shared_key)
                   is distinct from (s.user_id, s.printer_name, s.platform, s.firmware_version, s.version_key, s.auto_update,
                       s.update_channel, s.max_url_length, s.follows_redirects, s.time_zone, s.shared_key) as is_news
               from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::text[], $10::text[],
                       $11::bool[], $12::text[], $13::text[], $14::bigint[], $15::int[], $16::bool[], $17::text[], $18::bool[])
                   as s (id, printer_id, user_id, printer_name, bucket, platform, firmware_version, version_key,
                       auto_update, update_channel, last_ip, connection, max_url_length, follows_redirects, time_zone, shared_key)
               left join printers p using (printer_id) left join presence q on q.printer = p.id
               where q.connection is null or s.connection is null or q.connection <= s.connection
           ),
           news as (
               insert into printers as p (id, printer_id, user_id, printer_name, bucket, platform, firmware_version, version_key,
                   auto_update, update_channel, max_url_length, follows_redirects, time_zone, shared_key)
               select id, printer_id, user_id, printer_name, bucket, platform, firmware_version, version_key, auto_update,
                   update_channel, max_url_length, follows_redirects, time_zone, shared_key
               from said where is_news order by printer_id
               on conflict (printer_id) do update set
                   user_id = excluded.user_id, printer_name = excluded.printer_name, platform = excluded.platform,
                   firmware_version = excluded.firmware_version, version_key = excluded.version_key,
                   auto_update = excluded.auto_update, update_channel = excluded.update_channel,
                   max_url_length = excluded.max_url_length, follows_redirects = excluded.follows_redirects,
                   time_zone = excluded.time_zone, shared_key = excluded.shared_key, updated_at = now(),
                   installed_release = case when p.version_key = excluded.version_key then p.installed_release end,
                   installed_rollout = case when p.version_key = excluded.version_key then p.installed_rollout end,
                   previous_version = case when p.version_key = excluded.version_key then p.previous_version end
               returning p.id, p.number, p.printer_id, p.installed_release, p.installed_rollout, p.previous_version
           ),
           here as (
               select * from news
               union all
               select known, number, printer_id, installed_release, installed_rollout, previous_version from said where not is_news
           ),
           present as (
               insert into presence as q (printer, number, connection, replica, last_connected, last_ip)
               select here.id, here.number, coalesce(said.connection, nextval('printer_connections')), $2, $1, said.last_ip
               from here join said using (printer_id)
               on conflict (printer) do update set
                   connection = excluded.connection, replica = excluded.replica, last_ip = excluded.last_ip,
                   last_connected = case when q.connection = excluded.connection and q.replica is not null
                       then q.last_connected else excluded.last_connected end,
                   online_seconds = q.online_seconds + case when q.connection = excluded.connection then 0
                       else coalesce((select greatest(extract(epoch from least(r.lease_until, excluded.last_connected) - q.last_connected), 0)
                           from replicas r where r.id = q.replica), 0) end
               where q.connection <= excluded.connection
               returning q.printer, q.connection
           )
           select here.id as "id!", here.printer_id as "printer_id!", present.connection as "connection!", here.installed_release,
               here.installed_rollout, here.previous_version
           from here join present on present.printer = here.id"#,
        now,
        replica.0,
        &column(arrivals, |_| PrinterRef::generate().0),
        &printers,
        &column(arrivals, |arrival| arrival.said.user_id.to_string()),
        &column(arrivals, |arrival| arrival.said.name.clone()) as &[Option<String>],
        &column(arrivals, |arrival| i16::from(bucket(&arrival.said.printer_id))),
        &column(arrivals, |arrival| arrival.said.platform.as_str().to_owned()),
        &column(arrivals, |arrival| arrival.said.version.to_string()),
        &column(arrivals, |arrival| arrival.said.version.key()),
        &column(arrivals, |arrival| arrival.said.auto_update),
        &column(arrivals, |arrival| arrival.said.channel.as_str().to_owned()),
        &column(arrivals, |arrival| arrival.ip.to_string()),
        &column(arrivals, |arrival| arrival.connection) as &[Option<i64>],
        &column(arrivals, |arrival| arrival.said.downloads.max_url_length.map(u32::cast_signed))
            as &[Option<i32>],
        &column(arrivals, |arrival| arrival.said.downloads.follows_redirects),
        &column(arrivals, |arrival| arrival.said.time_zone.as_ref().map(|zone| zone.as_str().to_owned()))
            as &[Option<String>],
        &column(arrivals, |arrival| arrival.shared_key),
    );
    Ok(rows
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(|row| {
            let installed = read_installed(row.installed_release, row.installed_rollout);
            let written = Written {
                id: row.id,
                connection: row.connection,
                installed,
                previous: row.previous_version,
                shared_key: false,
            };
            (row.printer_id, written)
        })
        .collect())
}

fn read_installed(release: Option<Uuid>, rollout: Option<Uuid>) -> Option<Installed> {
    release.map(|release| Installed { release: FirmwareId(release), rollout: rollout.map(RolloutId) })
}

/// Notes which updates brought printers what they run, and what they ran before.
pub async fn installed(
    conn: &mut PgConnection,
    proved: &[(PrinterRef, Installed, Version)],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update printers p set installed_release = i.release, installed_rollout = i.rollout, previous_version = i.previous \
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) as i (printer, release, rollout, previous) where p.id = i.printer",
        &proved.iter().map(|(printer, ..)| printer.0).collect::<Vec<_>>(),
        &proved.iter().map(|(_, by, _)| by.release.0).collect::<Vec<_>>(),
        &proved.iter().map(|(_, by, _)| by.rollout.map(|rollout| rollout.0)).collect::<Vec<_>>() as &[Option<Uuid>],
        &proved.iter().map(|(.., before)| before.to_string()).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What decisions about a printer are made from, as its row has it.
pub async fn facts(conn: &mut PgConnection, printer: PrinterRef) -> Result<Facts, sqlx::Error> {
    let row = sqlx::query!(
        r#"select printer_id as "printer_id: PrinterId", user_id as "user_id: UserId", bucket, platform as "platform: Platform",
               firmware_version, auto_update, update_channel as "channel: Channel", installed_release, installed_rollout,
               previous_version, max_url_length, follows_redirects, time_zone as "time_zone: TimeZoneName", shared_key
           from printers where id = $1"#,
        printer.0
    );
    let row = row.fetch_one(conn).await?;
    Ok(Facts {
        printer,
        printer_id: row.printer_id,
        user_id: row.user_id,
        bucket: u8::try_from(row.bucket).unwrap_or_default(),
        cohort: Cohort {
            platform: row.platform,
            version: row.firmware_version.into(),
            auto_update: row.auto_update,
            channel: row.channel,
            installed: read_installed(row.installed_release, row.installed_rollout),
        },
        previous: row.previous_version.map(Version::from),
        downloads: Downloads {
            max_url_length: row.max_url_length.map(i32::unsigned_abs),
            follows_redirects: row.follows_redirects,
        },
        time_zone: row.time_zone,
        shared_key: row.shared_key,
    })
}

/// Holds printers until the transaction ends, in the order in which everybody holds them.
pub async fn hold(conn: &mut PgConnection, printers: &[PrinterRef]) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = printers.iter().map(|printer| printer.0).collect();
    sqlx::query!("select id from printers where id = any($1) order by id for no key update", &ids)
        .fetch_all(conn)
        .await?;
    Ok(())
}

/// The number of each printer's newest connection.
pub async fn connections(
    conn: &mut PgConnection,
    printers: &[PrinterRef],
) -> Result<HashMap<PrinterRef, i64>, sqlx::Error> {
    let ids: Vec<_> = printers.iter().map(|printer| printer.0).collect();
    let rows = sqlx::query!("select printer, connection from presence where printer = any($1)", &ids);
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (PrinterRef(row.printer), row.connection)).collect())
}

/// Marks printers offline, unless a newer socket of theirs is somewhere. Returns those that are. The printers' rows are
/// held from here on.
pub async fn disconnected(
    conn: &mut PgConnection,
    sockets: &[(PrinterRef, i64)],
    now: Time,
) -> Result<HashSet<PrinterRef>, sqlx::Error> {
    let printers: Vec<_> = sockets.iter().map(|(printer, _)| *printer).collect();
    hold(conn, &printers).await?;
    let gone = sqlx::query_scalar!(
        "update presence q set replica = null, last_disconnected = $3, \
             online_seconds = q.online_seconds + greatest(extract(epoch from $3 - q.last_connected), 0) \
         from unnest($1::uuid[], $2::bigint[]) as e (printer, connection) \
         where q.printer = e.printer and q.connection = e.connection and q.replica is not null returning q.printer",
        &printers.iter().map(|printer| printer.0).collect::<Vec<_>>(),
        &sockets.iter().map(|(_, connection)| *connection).collect::<Vec<_>>(),
        now
    );
    Ok(gone.fetch_all(conn).await?.into_iter().map(PrinterRef).collect())
}

/// The row that a path names, if it is in this scope.
pub async fn by_name(conn: &mut PgConnection, scope: &Scope, named: &Named) -> Result<PrinterRef, Error> {
    let (id, number) =
        (named.handle.and_then(|handle| handle.id()), named.handle.and_then(|handle| handle.number()));
    let found = sqlx::query_scalar!(
        r#"select p.id as "id!" from printers p where (p.id = $1 or p.number = $2 or p.printer_id = $3)
               and ($4::text[] is null or p.user_id = any($4)) and ($5::text[] is null or p.update_channel = any($5))
               and ($6::text[] is null or p.platform = any($6))
           order by (p.number is not distinct from $2) desc, (p.id is not distinct from $1) desc limit 1"#,
        id,
        number,
        named.text,
        scope.user_ids.as_deref(),
        scope.channels.as_deref(),
        scope.platforms.as_deref()
    );
    found.fetch_optional(conn).await?.map(PrinterRef).ok_or_else(|| Error::NotFound(named.text.clone()))
}

impl FromRow<'_, PgRow> for Printer {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let name: Option<String> = row.try_get("printer_name")?;
        let bucket: i16 = row.try_get("bucket")?;
        let online: f64 = row.try_get::<Option<_>, _>("online_seconds")?.unwrap_or_default();
        let known: f64 = row.try_get("known_seconds")?;
        Ok(Self {
            id: row.try_get("id")?,
            number: row.try_get("number")?,
            printer_id: row.try_get("printer_id")?,
            user_id: row.try_get("user_id")?,
            printer_name: name.clone(),
            name,
            platform: row.try_get("platform")?,
            firmware_version: row.try_get("firmware_version")?,
            auto_update: row.try_get("auto_update")?,
            update_channel: row.try_get("update_channel")?,
            bucket: u8::try_from(bucket).unwrap_or_default(),
            online: row.try_get("online")?,
            last_connected: row.try_get("last_connected")?,
            last_disconnected: row.try_get("last_disconnected")?,
            last_ip: row.try_get("last_ip")?,
            online_seconds: online as u64,
            uptime_percent: (1000.0 * (online / known.max(1.0)).clamp(0.0, 1.0)).round() / 10.0,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            time_zone: row.try_get("time_zone")?,
            shared_key: row.try_get("shared_key")?,
            blocked_at: row.try_get("blocked_at")?,
        })
    }
}

pub(super) async fn get(conn: &mut PgConnection, printer: PrinterRef) -> Result<Printer, sqlx::Error> {
    let mut query = QueryBuilder::new(format!("select {COLUMNS} from {FROM} where p.id = "));
    query.push_bind(printer.0).build_query_as().fetch_one(conn).await
}

/// Which printers a list has.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub scope: Arc<Scope>,
    pub user_id: Option<String>,
    pub online: Option<bool>,
    pub firmware_version: Option<String>,
    pub channel: Option<Channel>,
    pub platform: Option<Platform>,
    pub auto_update: Option<bool>,
}

pub(super) fn filter(query: &mut QueryBuilder<Postgres>, by: &Query) {
    by.scope.push_printers(query, "p");
    if let Some(user) = &by.user_id {
        query.push(" and p.user_id = ").push_bind(user.clone());
    }
    if let Some(version) = &by.firmware_version {
        query.push(" and p.firmware_version = ").push_bind(version.clone());
    }
    if let Some(channel) = by.channel {
        query.push(" and p.update_channel = ").push_bind(channel.as_str());
    }
    if let Some(platform) = by.platform {
        query.push(" and p.platform = ").push_bind(platform.as_str());
    }
    if let Some(auto_update) = by.auto_update {
        query.push(" and p.auto_update = ").push_bind(auto_update);
    }
    // Two sentences for the two cases: the few that are online are found by an index.
    if let Some(online) = by.online {
        query.push(match online {
            true => {
                " and p.id in (select printer from presence where replica in (select id from replicas where lease_until > now()))"
            }
            false => {
                " and not exists (select 1 from presence o join replicas l on l.id = o.replica and l.lease_until > now() \
                 where o.printer = p.id)"
            }
        });
    }
}

/// What counts printers one by one, and what knows their number but for owners and presence.
const ROWS: &str = "select count(*) from printers p where true";
const CENSUS: &str = "select coalesce(sum(n), 0)::bigint from census p where rollout_id is null";

async fn counted(conn: &mut PgConnection, from: &str, by: &Query) -> Result<i64, sqlx::Error> {
    let mut count = QueryBuilder::new(from);
    filter(&mut count, by);
    count.build_query_scalar().fetch_one(conn).await
}

/// One page, the cursor of the next, and the count of all.
pub(super) async fn list(
    conn: &mut PgConnection,
    by: &Query,
    page: &Page,
) -> Result<(Vec<Printer>, Option<String>, i64), sqlx::Error> {
    let everybody = by.user_id.is_none() && by.scope.has_everybody();
    let total = match by.online {
        None if everybody => counted(conn, CENSUS, by).await?,
        // The many that are offline are all but those that are not.
        Some(false) if everybody => {
            let online = Query { online: Some(true), ..by.clone() };
            let all = Query { online: None, ..by.clone() };
            counted(conn, CENSUS, &all).await? - counted(conn, ROWS, &online).await?
        }
        _ => counted(conn, ROWS, by).await?,
    };
    let mut query =
        QueryBuilder::new(format!("select {COLUMNS}, {} from {FROM} where true", page.sort_key()));
    filter(&mut query, by);
    // The same number twice, each in the index of its table.
    let number = if page.sort_key().contains("q.") { "q.number" } else { "p.number" };
    page.push(&mut query, number);
    let mut rows = query.build().fetch_all(conn).await?;
    let next = page.cut(&mut rows, |row| (row.get("sort_key"), row.get("number")));
    Ok((rows.iter().map(Printer::from_row).collect::<Result<_, _>>()?, next, total))
}
