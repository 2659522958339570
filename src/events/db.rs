//! The SQL of events.

use std::time::Duration;

use sqlx::PgConnection;

use super::types::{Event, Filter, Kind, Place};

/// Rows that one turn of [`forget`] looks at.
const BATCH: i64 = 10_000;

/// Behind a row.
fn place(xid: &str, id: i64) -> Result<Place, sqlx::Error> {
    Ok(Place::behind(xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?, id))
}

/// The place before everything that is still to come.
pub(super) async fn now(conn: &mut PgConnection) -> Result<Place, sqlx::Error> {
    let xid = sqlx::query_scalar!(r#"select pg_snapshot_xmin(pg_current_snapshot())::text as "xid!""#);
    place(&xid.fetch_one(conn).await?, 0)
}

/// The place of the last event that was removed.
pub(super) async fn horizon(conn: &mut PgConnection) -> Result<Place, sqlx::Error> {
    let row = sqlx::query!(r#"select xid::text as "xid!", id from events_horizon"#).fetch_one(conn).await?;
    place(&row.xid, row.id)
}

/// The next events after a place. A row that tells of many attempts is told apart here; those that were never sent, and
/// are gone by now, are no events.
pub(super) async fn page(
    conn: &mut PgConnection,
    after: Place,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Event>, sqlx::Error> {
    let kinds: Vec<_> = filter.kinds.0.iter().map(|kind| kind.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"select e.xid::text as "xid!", e.id, c.part as "part?", e.at, e.kind as "kind: Kind", e.rollout_id, e.rollout_number,
               coalesce(e.data, jsonb_build_object('id', u.id, 'number', u.number, 'rollout_id', e.rollout_id,
                   'rollout_number', e.rollout_number, 'printer_id', p.printer_id, 'firmware_version', u.firmware_version,
                   'from_version', u.from_version, 'attempt', u.attempt, 'status', c.status, 'open', c.open, 'reason', c.reason,
                   'error_message', c.error_message))::text as "data!"
           from events e
           left join lateral unnest(e.changes) with ordinality as c (update_id, status, open, reason, error_message, part) on true
           left join update_history u on u.id = c.update_id
           left join printers p on p.id = u.printer
           where (e.xid, e.id) >= ($1::text::xid8, $2) and (e.xid, e.id, coalesce(c.part, $3)) > ($1::text::xid8, $2, $4)
             and e.xid < pg_snapshot_xmin(pg_current_snapshot()) and (e.changes is null or p.id is not null)
             and ($5::uuid is null or e.rollout_id = $5) and ($6::bigint is null or e.rollout_number = $6)
             and (cardinality($7::text[]) = 0 or e.kind = any($7))
             and (num_nonnulls($9::text[], $10::text[], $11::text[]) = 0 or case split_part(e.kind, '.', 1)
                 when 'update' then exists (
                     select 1 from printers q where q.printer_id = coalesce(p.printer_id, e.data ->> 'printer_id')
                         and ($9 is null or q.user_id = any($9)) and ($10 is null or q.update_channel = any($10))
                         and ($11 is null or q.platform = any($11)))
                 when 'rollout' then exists (
                     select 1 from update_rollouts r where r.id = e.rollout_id and ($9 is null or r.reach_users <@ $9)
                         and ($10 is null or r.reach_channels <@ $10) and ($11 is null or r.reach_platforms <@ $11))
                 when 'firmware' then ($10 is null or e.data ->> 'channel' = any($10))
                     and ($11 is null or e.data ->> 'platform' = any($11))
                 else false end)
           order by e.xid, e.id, c.part limit $8"#,
        after.xid.to_string(),
        after.id,
        Place::WHOLE,
        after.part,
        filter.rollout.and_then(|rollout| rollout.id()),
        filter.rollout.and_then(|rollout| rollout.number()),
        &kinds,
        limit,
        filter.scope.user_ids.as_deref() as Option<&[String]>,
        filter.scope.channels.as_deref() as Option<&[String]>,
        filter.scope.platforms.as_deref() as Option<&[String]>
    );
    let mut events = Vec::new();
    for row in rows.fetch_all(conn).await? {
        let rollout = (row.rollout_id, row.rollout_number);
        let place = Place { part: row.part.unwrap_or(Place::WHOLE), ..place(&row.xid, row.id)? };
        events.push(Event::new(place, row.kind, row.at, rollout, &row.data));
    }
    Ok(events)
}

/// Removes events that are older than this, and notes how far it came; some thousands at once, so call it until it
/// says that it did nothing. Also removes those of another database cluster, which a restored dump brings along:
/// nothing that can be seen has a transaction that is still to come.
pub async fn forget(conn: &mut PgConnection, keep: Duration) -> Result<i64, sqlx::Error> {
    let removed = sqlx::query_scalar!(
        r#"with oldest as (select xid, id, at from events order by xid, id limit $2),
               gone as (
                   delete from events e using oldest o
                   where e.xid = o.xid and e.id = o.id and o.at < now() - make_interval(secs => $1)
                   returning e.xid, e.id
               ),
               last as (select xid, id from gone order by xid desc, id desc limit 1),
               noted as (
                   update events_horizon h set xid = last.xid, id = last.id from last where (h.xid, h.id) < (last.xid, last.id)
               ),
               foreign_ones as (
                   delete from events e where e.xid >= pg_snapshot_xmax(pg_current_snapshot()) returning 1
               )
           select (select count(*) from gone) + (select count(*) from foreign_ones) as "removed!""#,
        keep.as_secs_f64(),
        BATCH
    );
    removed.fetch_one(conn).await
}
