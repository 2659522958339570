//! Lists of attempts, exports and statistics, against what is in the tables.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::timeout;

use crate::support::{SOON, Server};

/// Printers 1 to `printers` of users a and b in turn, and one closed attempt with each for 1.5.0, of which every tenth
/// failed; attempt n began n minutes after the turn of the year and took n seconds.
async fn history(server: &Server, printers: i64) {
    server.release("1.5.0", "stable").await;
    // Nobody forced them, and an entry of the trail for each would hold back everybody's events for its time.
    sqlx::query("alter table update_history disable trigger audit_forced")
        .execute(&server.pool)
        .await
        .unwrap();
    for sql in [
        "insert into printers (id, printer_id, user_id, printer_name, bucket, version_key) \
         select gen_random_uuid(), 'printer-' || n, case n % 2 when 0 then 'a' else 'b' end, '=1+' || n, 1, 'k' \
         from generate_series(1, $1) n",
        "insert into presence (printer, number, connection) select id, number, number from printers where number <= $1",
        "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt, status, open, reason, \
             error_message, started_at, completed_at, confirmed_at) \
         select gen_random_uuid(), p.id, f.id, f.version, '1.4.0', 1, case when failed then 'failed' else 'completed' end, false, \
             case when failed then 'reported' end, case when failed then 'HTTP error ' || 400 + p.number / 10 % 3 || ' 50%' end, \
             began, began + p.number * interval '1 second', case when not failed then began + p.number * interval '1 second' end \
         from (select *, number % 10 = 0 as failed, timestamptz '2026-01-01 00:00Z' + number * interval '1 minute' as began \
               from printers where number <= $1 order by number) p, firmware_versions f",
    ] {
        sqlx::query(sql).bind(printers).execute(&server.pool).await.unwrap();
    }
}

fn numbers(list: &Value) -> Vec<i64> {
    list["updates"].as_array().unwrap().iter().map(|row| row["number"].as_i64().unwrap()).collect()
}

#[sqlx::test]
async fn attempts_are_filtered_sorted_and_paged(pool: PgPool) {
    let server = Server::start(pool).await;
    history(&server, 40).await;
    sqlx::query(
        "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt, started_at) \
         select gen_random_uuid(), p.id, f.id, f.version, '1.5.0', 2, '2026-01-01 00:00:30Z' from printers p, firmware_versions f where p.number = 7",
    )
    .execute(&server.pool)
    .await
    .unwrap();
    let id: String = sqlx::query_scalar("select id::text from printers where number = 7")
        .fetch_one(&server.pool)
        .await
        .unwrap();
    let by_id = format!("printer_id={id}");
    for (query, expected) in [
        ("limit=3", vec![41, 40, 39]),
        ("limit=3&sort=number", vec![1, 2, 3]),
        ("limit=3&sort=started_at", vec![41, 1, 2]),
        ("status=failed", vec![40, 30, 20, 10]),
        ("status=pending", vec![41]),
        ("open=true", vec![41]),
        ("open=false&status=failed&user_id=a", vec![40, 30, 20, 10]),
        ("status=failed&user_id=b", vec![]),
        ("printer_id=7", vec![41, 7]),
        ("printer_id=printer-7&status=completed", vec![7]),
        (&by_id, vec![41, 7]),
        ("reason=reported&error=http%20ERROR%20401", vec![40, 10]),
        ("error=50%25", vec![40, 30, 20, 10]),
        ("error=5_%25", vec![]),
        ("reason=timeout", vec![]),
        ("rollout_id=7", vec![]),
        ("firmware_version=1.5.1", vec![]),
        ("started_after=2026-01-01T00:39:00Z", vec![40, 39]),
        ("started_after=2026-01-01T00:00:00Z&started_before=2026-01-01T00:02:00Z", vec![1, 41]),
    ] {
        let list = server.get(&format!("/api/updates?{query}")).await.expect(200);
        assert_eq!(numbers(&list), expected, "{query}");
        let total = if query.starts_with("limit") { 41 } else { expected.len() };
        assert_eq!(
            (&list["total"], &list["total_is_lower_bound"]),
            (&json!(total), &json!(false)),
            "{query}"
        );
    }
    // All pages together are the list, in each order.
    for sort in ["number", "-number", "started_at", "-started_at"] {
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        while let Some(next) = {
            let list = server.get(&format!("/api/updates?limit=7&sort={sort}{cursor}")).await.expect(200);
            seen.extend(numbers(&list));
            list["next_cursor"].as_str().map(str::to_owned)
        } {
            cursor = format!("&cursor={next}");
        }
        let whole = server.get(&format!("/api/updates?sort={sort}")).await.expect(200);
        assert_eq!((seen.len(), &seen), (41, &numbers(&whole)), "{sort}");
    }
    let problem = server.get("/api/updates?state=failed").await.expect(422);
    assert!(problem["detail"].as_str().unwrap().contains("did you mean `status`"), "{problem}");
    server.get("/api/updates?printer_id=nobody").await.expect(404);
    server.get("/api/updates?started_after=yesterday").await.expect(422);
    server.stop().await;
}

#[sqlx::test]
async fn a_total_is_not_counted_for_ever(pool: PgPool) {
    let server = Server::start(pool).await;
    history(&server, 1).await;
    sqlx::query("alter table update_history disable trigger user").execute(&server.pool).await.unwrap();
    let many = "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt, status, open, completed_at, confirmed_at) \
                select gen_random_uuid(), p.id, f.id, f.version, '1.4.0', n, 'completed', false, now(), now() from printers p, firmware_versions f, generate_series(1, $1) n";
    sqlx::query(many).bind(100_005i64).execute(&server.pool).await.unwrap();
    let list = server.get("/api/updates?limit=1").await.expect(200);
    assert_eq!((&list["total"], &list["total_is_lower_bound"]), (&json!(100_000), &json!(true)));
    let list = server.get("/api/updates?limit=1&started_before=2026-06-01T00:00:00Z").await.expect(200);
    assert_eq!((&list["total"], &list["total_is_lower_bound"]), (&json!(1), &json!(false)));
    server.stop().await;
}

#[sqlx::test]
async fn exports_hold_what_the_lists_hold(pool: PgPool) {
    let server = Server::start(pool).await;
    history(&server, 1234).await;
    let list = server.get("/api/updates?limit=500&sort=number&status=failed").await.expect(200);
    let answer = server.get("/api/updates/export?format=ndjson&status=failed").await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"updates.ndjson\"");
    let Value::String(text) = answer.expect(200) else { panic!("one line only") };
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), list["updates"]);

    let answer = server.get("/api/updates/export").await;
    assert_eq!(answer.headers["content-type"], "text/csv; charset=utf-8; header=present");
    let Value::String(text) = answer.expect(200) else { panic!() };
    let mut file = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<_> = file.headers().unwrap().iter().map(str::to_owned).collect();
    let mut fields: Vec<_> = list["updates"][0].as_object().unwrap().keys().cloned().collect();
    fields.sort();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, fields);
    assert_eq!(names[..5], ["id", "number", "rollout_id", "rollout_number", "printer_id"]);
    let rows: Vec<csv::StringRecord> = file.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 1234);
    assert_eq!((&rows[9][1], &rows[9][4], &rows[9][8]), ("10", "printer-10", "failed"));

    let Value::String(text) = server.get("/api/printers/export?user_id=a").await.expect(200) else {
        panic!()
    };
    let mut file = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> = file.records().map(Result::unwrap).collect();
    assert_eq!((rows.len(), &rows[0][4]), (617, "'=1+2"));
    let Value::String(text) = server.get("/api/printers/export?user_id=nobody").await.expect(200) else {
        panic!()
    };
    assert!(text.starts_with("id,number,printer_id,") && text.lines().count() == 1, "{text}");
    server.get("/api/printers/export?format=xml").await.expect(422);
    server.get("/api/printers/export?limit=5").await.expect(422);
    server.stop().await;
}

/// So much that it cannot hide in the sockets' buffers.
const LARGE: i64 = 60_000;

#[sqlx::test]
async fn an_export_is_one_snapshot_and_breaks_off_when_it_cannot_go_on(pool: PgPool) {
    let server = Server::with(pool, &[("MAX_CONCURRENT_EXPORTS", "1")]).await;
    history(&server, LARGE).await;
    // Whoever had the room gives it back a moment after the answer.
    let open = async || {
        let again = async {
            loop {
                let request = server.request(Method::GET, "/api/updates/export?format=ndjson");
                let answer = request.send().await.unwrap();
                if answer.status() != 503 {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, again).await.expect("no room for an export")
    };

    let mut chunks = open().await.bytes_stream();
    let mut bytes = chunks.next().await.unwrap().unwrap().to_vec();
    let full = server.get("/api/printers/export").await;
    assert_eq!(full.headers["retry-after"], "30");
    assert_eq!(full.expect(503)["type"], "/docs/problems/exports-full");
    sqlx::query("update update_history set last_status_message = 'later'")
        .execute(&server.pool)
        .await
        .unwrap();
    sqlx::query("delete from update_history where number > 100").execute(&server.pool).await.unwrap();
    while let Some(chunk) = chunks.next().await {
        bytes.extend(chunk.unwrap());
    }
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!((text.lines().count() as i64, text.contains("later")), (LARGE, false));

    // A client that goes away gives its room back.
    let room = async || {
        let full = async || {
            server.request(Method::GET, "/api/printers/export?user_id=nobody").send().await.unwrap().status()
                == 503
        };
        let wait = async {
            while full().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, wait).await.expect("no room for an export");
    };
    room().await;
    sqlx::query("truncate update_history cascade").execute(&server.pool).await.unwrap();
    history_again(&server).await;
    room().await;
    let mut chunks = open().await.bytes_stream();
    chunks.next().await.unwrap().unwrap();
    drop(chunks);
    room().await;

    // The database goes away in the middle.
    let mut chunks = open().await.bytes_stream();
    chunks.next().await.unwrap().unwrap();
    let ended: i64 = sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and query like 'fetch%from export'",
    )
    .fetch_one(&server.pool)
    .await
    .unwrap();
    assert!(ended >= 1);
    let mut broken = false;
    while let Some(chunk) = chunks.next().await {
        broken = chunk.is_err();
    }
    assert!(broken, "a short file looked whole");
    server.stop().await;
}

async fn history_again(server: &Server) {
    sqlx::query(
        "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt, status, open, completed_at) \
         select gen_random_uuid(), p.id, f.id, f.version, '1.4.0', 1, 'failed', false, now() from printers p, firmware_versions f",
    )
    .execute(&server.pool)
    .await
    .unwrap();
}

/// What the sums say, and what the attempts themselves say.
async fn sums(pool: &PgPool) -> (Value, Value) {
    let said = "select coalesce(jsonb_object_agg(k, n), '{}') from (select outcome || ' ' || reason || ' ' || version || ' ' || platform || ' ' || channel || ' ' || (duration >= 0) as k, \
                sum(count) as n from (select * from outcomes union all select * from outcomes_log) o group by 1 having sum(count) <> 0) s";
    let counted = "select coalesce(jsonb_object_agg(k, n), '{}') from (select status || ' ' || coalesce(reason, '') || ' ' || firmware_version || ' esp8266 stable ' || (confirmed_at is not null) as k, \
                   count(*) as n from update_history where not open group by 1) s";
    let mut tx = pool.begin_with("begin isolation level repeatable read").await.unwrap();
    let said = sqlx::query_scalar(said).fetch_one(&mut *tx).await.unwrap();
    (said, sqlx::query_scalar(counted).fetch_one(&mut *tx).await.unwrap())
}

#[sqlx::test]
async fn sums_are_what_was_counted_while_everybody_writes_and_folds(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    history(&server, 300).await;
    let writers = (0..4).map(|writer: i64| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for step in 0..40i64 {
                let sql = match step % 4 {
                    // A late proof, a late proof taken back, an offer that ends in another way, a whole batch.
                    0 => "update update_history set status = 'completed', reason = null, error_message = null, confirmed_at = now(), completed_at = now() \
                          where status = 'failed' and number % 4 = $1 and number % 7 = $2 % 7",
                    1 => "update update_history set status = 'failed', reason = 'rolled_back', confirmed_at = null where status = 'completed' and not open and number % 4 = $1 and number % 5 = $2 % 5",
                    2 => "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt) \
                          select gen_random_uuid(), p.id, f.id, f.version, '1.4.0', 2 from printers p, firmware_versions f where p.number % 4 = $1 and p.number % 9 = $2 % 9 \
                          on conflict (printer) where open do nothing",
                    _ => "update update_history set status = case when number % 3 = 0 then 'declined' else 'cancelled' end, open = false, reason = 'withdrawn', completed_at = now() \
                          where open and number % 4 = $1 and number % 2 = $2 % 2",
                };
                sqlx::query(sql).bind(writer).bind(step).execute(&pool).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let (one, other) =
            tokio::join!(paperminder_ota::stats::fold(&mut one), paperminder_ota::stats::fold(&mut other));
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let (said, counted) = sums(&pool).await;
        assert_eq!(said, counted);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut conn = pool.acquire().await.unwrap();
    while paperminder_ota::stats::fold(&mut conn).await.unwrap() > 0 {}
    let (said, counted) = sums(&pool).await;
    assert_eq!(said, counted);
    let left: (i64, i64) = sqlx::query_as("select (select count(*) from outcomes_log), (select count(*) from outcomes where hour <> date_trunc('day', hour, 'UTC') and hour < now() - interval '3 days')")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, (0, 0), "the log is empty, and old hours are days");
    server.stop().await;
}

#[sqlx::test]
async fn statistics_tell_what_is_there(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    history(&server, 200).await;
    server.rollout(json!({"firmware_version": "1.5.0", "target": {"user_ids": ["nobody"]}, "rollout_type": "immediate"})).await;
    let stats = server.get("/api/stats").await.expect(200);
    assert_eq!(stats["updates"]["last_30_days"]["completed"], 0, "January is long ago");
    sqlx::query("update update_history set started_at = started_at + shift, completed_at = completed_at + shift, confirmed_at = confirmed_at + shift \
                 from (select now() - timestamptz '2026-01-01 12:00Z' as shift) s")
        .execute(&pool)
        .await
        .unwrap();
    let stats = server.get("/api/stats").await.expect(200);
    assert_eq!(
        stats["printers"],
        json!({"total": 200, "online": 0, "by_version": {"0.0.0": 200}, "by_platform": {"esp8266": 200}, "by_channel": {"stable": 200}})
    );
    assert_eq!(
        (&stats["rollouts"]["by_status"], &stats["rollouts"]["active"][0]["number"]),
        (&json!({"active": 1}), &json!(1))
    );
    let updates = &stats["updates"];
    assert_eq!(updates["open"], 0);
    for part in [
        &updates["last_24_hours"],
        &updates["last_30_days"],
        &updates["by_version"]["1.5.0"],
        &updates["by_platform"]["esp8266"],
        &updates["by_channel"]["stable"],
    ] {
        assert_eq!(
            (&part["completed"], &part["failed"], &part["success_rate"]),
            (&json!(180), &json!(20), &json!(0.9)),
            "{part}"
        );
        // Attempt n took n seconds, every tenth failed.
        for (name, exact) in [("duration_p50_seconds", 100.0), ("duration_p95_seconds", 190.0)] {
            let error = (part[name].as_f64().unwrap() / exact - 1.0).abs();
            assert!(error < 0.06, "{name} of {part}");
        }
    }
    for (window, count) in [("last_24_hours", 24), ("last_30_days", 30)] {
        let buckets = updates[window]["buckets"].as_array().unwrap();
        let sum: i64 = buckets.iter().map(|bucket| bucket["completed"].as_i64().unwrap()).sum();
        assert_eq!((buckets.len(), sum), (count, 180), "{window}");
    }
    let errors = updates["errors"].as_array().unwrap();
    assert_eq!(errors.iter().map(|error| error["count"].as_i64().unwrap()).sum::<i64>(), 20);
    assert!(errors[0]["error_message"].as_str().unwrap().starts_with("HTTP error 40"), "{errors:?}");
    server.get("/api/stats?days=3").await.expect(422);
    server.stop().await;
}
