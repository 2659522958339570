//! What the database writes down about itself: triggers of the test's own note every change of the rows that matter,
//! when its transaction commits.
//!
//! The notes are in the order in which commits become visible: a deferred trigger is the last thing a transaction does,
//! and from there to its end it holds a lock that every other one has to take as well.
//!
//! What the columns are called is said here and nowhere else.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use super::history::{Change, Commit, Counted, PrinterRow, Rollout, Update};

const INSTALL: &str = "
    create schema chaos; create table chaos.noted (seq bigint generated always as identity primary key, xid xid8 not null, at bigint not null,
        about text not null, before jsonb, after jsonb);
    create function note() returns trigger language plpgsql security definer as $$
    declare
        before jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
        after jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
    begin
        perform pg_advisory_xact_lock(4711);
        insert into chaos.noted (xid, at, about, before, after)
        values (pg_current_xact_id(), extract(epoch from clock_timestamp()) * 1000000, tg_table_name, before, after);
        return null;
    end $$;
    create constraint trigger note after insert or update or delete on update_history
        deferrable initially deferred for each row execute function note();
    create constraint trigger note after insert or update or delete on update_rollouts
        deferrable initially deferred for each row execute function note();
    create constraint trigger note after insert or update or delete on printers
        deferrable initially deferred for each row execute function note();
    create constraint trigger note after insert or update or delete on census
        deferrable initially deferred for each row execute function note();";

/// From here on everything is noted.
pub async fn install(database: &str) {
    let mut conn = PgConnection::connect(database).await.unwrap();
    sqlx::raw_sql(INSTALL).execute(&mut conn).await.unwrap();
}

/// What was noted.
pub async fn read(database: &str) -> Vec<Commit> {
    let mut conn = PgConnection::connect(database).await.unwrap();
    let rows = sqlx::query("select xid::text as xid, at, about, before, after from chaos.noted order by seq");
    let mut commits: Vec<(String, Commit)> = Vec::new();
    for row in rows.fetch_all(&mut conn).await.unwrap() {
        let xid: String = row.get("xid");
        let Some(change) = change(row.get("about"), row.get("before"), row.get("after")) else { continue };
        match commits.last_mut() {
            Some((last, commit)) if *last == xid => commit.changes.push(change),
            _ => commits.push((xid, Commit { at: row.get("at"), changes: vec![change] })),
        }
    }
    commits.into_iter().map(|(_, commit)| commit).collect()
}

/// None when nothing changed that a rule looks at.
fn change(table: &str, before: Option<Value>, after: Option<Value>) -> Option<Change> {
    fn of<T: PartialEq>(
        read: fn(&Value) -> T,
        (before, after): (Option<Value>, Option<Value>),
        make: fn(Option<T>, Option<T>) -> Change,
    ) -> Option<Change> {
        let (before, after) = (before.as_ref().map(read), after.as_ref().map(read));
        (before != after).then(|| make(before, after))
    }
    let both = (before, after);
    match table {
        "update_history" => of(update, both, Change::Update),
        "update_rollouts" => of(rollout, both, Change::Rollout),
        "printers" => of(printer, both, Change::Printer),
        _ => of(counted, both, Change::Census),
    }
}

fn update(row: &Value) -> Update {
    Update {
        id: id(&row["id"]).unwrap(),
        rollout: id(&row["rollout_id"]),
        printer: id(&row["printer"]).unwrap(),
        version: text(&row["firmware_version"]),
        status: text(&row["status"]),
        open: row["open"] == true,
        last: row["last"] == true,
        tries: row["tries"].as_i64().unwrap(),
        sends: row["sends"].as_i64().unwrap_or(1),
        reason: row["reason"].as_str().map(ToOwned::to_owned),
    }
}

fn rollout(row: &Value) -> Rollout {
    let unset = |names: &[&str]| names.iter().all(|name| row[name].is_null());
    let narrowed =
        ["target_channels", "min_version", "max_version", "max_in_flight", "rate_per_minute", "steps"];
    Rollout {
        id: id(&row["id"]).unwrap(),
        number: row["number"].as_i64().unwrap(),
        version: text(&row["firmware_version"]),
        status: text(&row["status"]),
        max_in_flight: row["max_in_flight"].as_i64(),
        max_attempts: row["max_attempts"].as_i64().unwrap(),
        everyone: row["target_all"] == true && row["rollout_percentage"] == 100 && unset(&narrowed),
    }
}

fn printer(row: &Value) -> PrinterRow {
    PrinterRow {
        id: id(&row["id"]).unwrap(),
        name: text(&row["printer_id"]),
        version: text(&row["firmware_version"]),
    }
}

fn counted(row: &Value) -> Counted {
    Counted {
        rollout: id(&row["rollout_id"]),
        version: text(&row["firmware_version"]),
        state: row["state"].as_str().map(ToOwned::to_owned),
        n: row["n"].as_i64().unwrap(),
    }
}

fn id(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
