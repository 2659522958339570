//! `simulate seed`: a database with a past that the server takes for its own.

use std::process::Output;

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Server, process::database_url};

async fn seed(pool: &PgPool, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"));
    command.args(["simulate", "seed"]).args(args).env_clear().env("DATABASE_URL", database_url(pool));
    command.output().await.unwrap()
}

async fn one(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

/// How many rows only one of the queries has.
async fn unlike(pool: &PgPool, a: &str, b: &str) -> i64 {
    let both = format!("select count(*) from (({a} except all {b}) union all ({b} except all {a})) unlike");
    sqlx::query_scalar(sqlx::AssertSqlSafe(both)).fetch_one(pool).await.unwrap()
}

#[sqlx::test]
async fn a_seeded_database_is_one_that_the_server_could_have_written(pool: PgPool) {
    let indexes = "select count(*) from pg_indexes where schemaname = 'public'";
    let constraints = "select count(*) from pg_constraint";
    let triggers = "select count(*) from pg_trigger where tgenabled = 'O'";
    let mut before = Vec::new();
    for schema in [indexes, constraints, triggers] {
        before.push(one(&pool, schema).await);
    }
    let done = seed(&pool, &["--printers", "2000", "--updates", "10000"]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for (schema, before) in [indexes, constraints, triggers].into_iter().zip(before) {
        assert_eq!(one(&pool, schema).await, before, "{schema}");
    }
    assert_eq!(one(&pool, "select count(*) from printers").await, 2_000);
    assert_eq!(one(&pool, "select count(*) from update_history").await, 10_000);

    // What the triggers would have summed up, counted again row by row.
    let fleet = unlike(
        &pool,
        "select platform, firmware_version, auto_update, update_channel, installed_release, installed_rollout, count(*)
         from printers group by 1, 2, 3, 4, 5, 6",
        "select platform, firmware_version, auto_update, update_channel, installed_release, installed_rollout, sum(n)
         from census where rollout_id is null group by 1, 2, 3, 4, 5, 6",
    );
    assert_eq!(fleet.await, 0, "the census of the fleet");
    let attempted = unlike(
        &pool,
        "select rollout_id, p.firmware_version, case when open then 'open' when status = 'completed' then 'confirmed'
             when status = 'declined' then 'declined' when tries = 3 then 'used_up' else 'failed' end, count(*)
         from update_history u join printers p on p.id = u.printer where last group by 1, 2, 3",
        "select rollout_id, firmware_version, state, sum(n) from census where rollout_id is not null group by 1, 2, 3",
    );
    assert_eq!(attempted.await, 0, "the census of the rollouts");
    let ended = unlike(
        &pool,
        "select status, firmware_version, count(*) from update_history where not open group by 1, 2",
        "select outcome, version, sum(count) from outcomes group by 1, 2",
    );
    assert_eq!(ended.await, 0, "the outcomes");
    let later = "select count(*) from update_history u where last and exists (select 1 from update_history l
        where l.rollout_id = u.rollout_id and l.printer = u.printer and l.attempt > u.attempt)";
    assert_eq!(one(&pool, later).await, 0, "attempts after the last");
    let stray = "select count(*) from printers p where installed_rollout is distinct from (select u.rollout_id from update_history u
        where u.printer = p.id and u.status = 'completed' order by number desc limit 1)";
    assert_eq!(one(&pool, stray).await, 0, "what installed the printers' versions");

    let server = Server::start(pool).await;
    let list = server.get("/api/rollouts").await.expect(200);
    let of = |rollout: &serde_json::Value, name: &str| rollout[name].as_i64().unwrap();
    let mut statuses = Vec::new();
    for rollout in list["rollouts"].as_array().unwrap() {
        let parts = ["completed_count", "failed_count", "declined_count", "pending_count"];
        assert_eq!(parts.iter().map(|name| of(rollout, name)).sum::<i64>(), of(rollout, "total_targets"));
        let resting = rollout["status"] != "completed" || of(rollout, "pending_count") == 0;
        assert!(of(rollout, "confirmed_count") > 0 && resting, "{rollout}");
        statuses.push(rollout["status"].as_str().unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        ["active", "cancelled", "completed", "completed", "completed", "completed", "completed"]
    );
    let newest = server.get("/api/firmware").await.expect(200)["releases"].clone();
    assert!(newest.as_array().is_none_or(|list| !list.is_empty()), "{newest}");
    let all = json!({"firmware_version": "1.8.0", "target": {"all": true}, "rollout_type": "immediate"});
    let rollout = server.rollout(all).await;
    assert!(of(&rollout, "total_targets") > 1_800, "{rollout}");
    let printers = server.get("/api/printers?platform=esp32&limit=1").await.expect(200);
    assert!(of(&printers, "total") > 300, "{printers}");
    server.stop().await;
}

#[sqlx::test]
async fn a_database_with_printers_is_refused(pool: PgPool) {
    let done = seed(&pool, &["--printers", "10", "--updates", "20"]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let again = seed(&pool, &[]).await;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("only an empty one is filled"), "{said}");
    assert_eq!(one(&pool, "select count(*) from printers").await, 10);
}
