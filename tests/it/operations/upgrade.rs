//! The release before this one goes on while the schema of this one is there: `tests/upgrade/` keeps its schema, some rows, and
//! every statement that its servers say (`scripts/keep-release`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use paperminder_ota::db::MIGRATOR;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{
    Column as _, Connection as _, Executor as _, PgPool, SqlSafeStr as _, Statement as _, TypeInfo as _,
};
use tokio_util::sync::CancellationToken;

use crate::markdown::read;
use crate::support::SOON;
use crate::support::process::database_url;

/// A migration may hold the release that runs up for so long, on a small table. `migrate` itself gives up after 5 s.
const HELD_UP: Duration = Duration::from_secs(2);

/// The database of the release before, with its rows.
async fn previous(pool: &PgPool) {
    pool.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(read("tests/upgrade/previous.sql")))).await.unwrap();
}

async fn migrate(pool: &PgPool) -> Result<usize, paperminder_ota::db::MigrationError> {
    paperminder_ota::db::migrate(pool).await
}

/// What a statement answers with, column by column; none when PostgreSQL does not understand it.
type Answers = BTreeMap<String, Option<Vec<(String, String)>>>;

async fn answers(pool: &PgPool) -> Answers {
    let mut conn = PgConnection::connect(&database_url(pool)).await.unwrap();
    let mut answers = Answers::new();
    for sql in read("tests/upgrade/statements.sql").lines() {
        let prepared =
            conn.prepare(sqlx::AssertSqlSafe(sql.to_owned()).into_sql_str()).await.ok().map(|statement| {
                statement
                    .columns()
                    .iter()
                    .map(|column| (column.name().to_owned(), column.type_info().name().to_owned()))
                    .collect()
            });
        answers.insert(sql.to_owned(), prepared);
    }
    answers
}

/// What a row must have that the release before does not know of, and so does not give it.
async fn demands(pool: &PgPool) -> BTreeSet<String> {
    let demands = sqlx::query_scalar(
        "select format('column %s.%s is not null and has no default', table_name, column_name) from information_schema.columns \
         where table_schema = 'public' and is_nullable = 'NO' and column_default is null and is_identity = 'NO' and is_generated = 'NEVER' \
         union all \
         select format('constraint %s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid)) from pg_constraint \
         where connamespace = 'public'::regnamespace and contype <> 'n' \
         union all \
         select format('unique index %s on %s', indexrelid::regclass, indrelid::regclass) from pg_index \
         join pg_class on pg_class.oid = indexrelid where indisunique and relnamespace = 'public'::regnamespace",
    );
    demands.fetch_all(pool).await.unwrap().into_iter().collect()
}

async fn tables(pool: &PgPool) -> BTreeSet<String> {
    let tables = sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'");
    tables.fetch_all(pool).await.unwrap().into_iter().collect()
}

/// Everything that breaks the release before.
async fn breaks(pool: &PgPool, before: (&Answers, &BTreeSet<String>, &BTreeSet<String>)) -> Vec<String> {
    let (answered, demanded, known) = before;
    let mut breaks = Vec::new();
    for (sql, now) in answers(pool).await {
        if answered[&sql] != now {
            breaks.push(format!("{sql}\n  was {:?}\n  is  {now:?}", answered[&sql]));
        }
    }
    // A new table asks nothing of those who do not know it.
    let of_known = |demand: &&String| {
        known.iter().any(|table| {
            demand.contains(&format!("column {table}."))
                || demand.contains(&format!(" on {table}:"))
                || demand.ends_with(&format!(" on {table}"))
        })
    };
    breaks.extend(demands(pool).await.difference(demanded).filter(of_known).cloned());
    breaks
}

#[sqlx::test(migrations = false)]
async fn the_release_before_finds_all_that_it_says_understood_and_nothing_new_demanded(pool: PgPool) {
    previous(&pool).await;
    let before = (answers(&pool).await, demands(&pool).await, tables(&pool).await);
    let unknown: Vec<_> =
        before.0.iter().filter(|(_, answer)| answer.is_none()).map(|(sql, _)| sql).collect();
    assert!(unknown.is_empty(), "statements of another release? {unknown:#?}");
    assert!(before.0.len() > 300, "they are all there: {}", before.0.len());
    let before = (&before.0, &before.1, &before.2);

    migrate(&pool).await.unwrap();
    let found = breaks(&pool, before).await;
    assert!(found.is_empty(), "the release before cannot run beside this one:\n{}", found.join("\n"));

    // What this test is for is found, each by itself.
    for (change, complaint) in [
        (
            "alter table printers add column colour text not null default ''; alter table printers alter column colour drop default",
            "column printers.colour is not null",
        ),
        (
            "alter table printers add check (bucket < 50) not valid",
            "on printers: CHECK ((bucket < 50)) NOT VALID",
        ),
        (
            "create unique index one_each on update_rollouts (number, status)",
            "unique index one_each on update_rollouts",
        ),
        ("alter table update_history rename column reason to why", "is  None"),
        ("alter table printers alter column auto_update type text using auto_update::text", "TEXT"),
        ("drop table outcomes_log cascade", "is  None"),
    ] {
        let mut tx = pool.begin().await.unwrap();
        tx.execute(sqlx::raw_sql(change)).await.unwrap_or_else(|error| panic!("{change}: {error}"));
        tx.commit().await.unwrap();
        let found = breaks(&pool, before).await.join("\n");
        assert!(found.contains(complaint), "{change}: {found}");
    }
}

/// What printers write all the time, to every table that they write to.
const WRITES: [&str; 5] = [
    "update printers set updated_at = now() where number = 1 + (random() * 50)::int",
    "update presence set last_connected = now() where number = 1 + (random() * 50)::int",
    "update update_history set last_activity_at = now() where number = 1 + (random() * 100)::int",
    "update update_rollouts set updated_at = now() where number = 1",
    "select count(*) from firmware_versions",
];
/// Writes to a table that no migration knows: what these wait for is the machine.
const ELSEWHERE: [&str; 2] = [
    "create temporary table if not exists elsewhere as select n as number, now() as updated_at from generate_series(1, 50) n",
    "update elsewhere set updated_at = now() where number = 1 + (random() * 50)::int",
];

/// Says these as fast as it goes, counts them, and tells the longest wait.
async fn busy(
    pool: PgPool,
    sqls: &'static [&'static str],
    times: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> Duration {
    let mut conn = PgConnection::connect(&database_url(&pool)).await.unwrap();
    let mut longest = Duration::ZERO;
    while !stop.is_cancelled() {
        for sql in sqls {
            let begun = Instant::now();
            sqlx::query(*sql).execute(&mut conn).await.unwrap();
            longest = longest.max(begun.elapsed());
            times.fetch_add(1, Ordering::Relaxed);
        }
    }
    longest
}

/// Waits until everybody has said so many more.
async fn more(times: &[Arc<AtomicUsize>], more: usize) {
    let deadline = Instant::now() + SOON;
    for times in times {
        let wanted = times.load(Ordering::Relaxed) + more;
        while times.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "{times:?} statements");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[sqlx::test(migrations = false)]
async fn migrating_under_load_holds_nobody_up(pool: PgPool) {
    previous(&pool).await;
    let stop = CancellationToken::new();
    let times = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut say = times
        .iter()
        .zip([&WRITES[..], &WRITES, &ELSEWHERE])
        .map(|(times, sqls)| tokio::spawn(busy(pool.clone(), sqls, times.clone(), stop.clone())));
    let (one, other, elsewhere) = (say.next().unwrap(), say.next().unwrap(), say.next().unwrap());
    more(&times, 50).await;
    assert!(migrate(&pool).await.unwrap() > 0, "there is something to migrate");
    more(&times, 51).await;
    stop.cancel();
    let machine = elsewhere.await.unwrap();
    for writer in [one, other] {
        let longest = writer.await.unwrap();
        assert!(longest.saturating_sub(machine) < HELD_UP, "{longest:?}, of which the machine {machine:?}");
    }
}

#[sqlx::test(migrations = false)]
async fn a_migration_that_cannot_have_its_lock_gives_up_and_can_be_run_again(pool: PgPool) {
    previous(&pool).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table _sqlx_migrations in access exclusive mode").execute(&mut *holder).await.unwrap();
    let begun = Instant::now();
    let error = migrate(&pool).await.unwrap_err().to_string();
    let waited = begun.elapsed();
    assert!(error.contains("lock timeout"), "{error}");
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&waited), "{waited:?}");
    holder.rollback().await.unwrap();
    assert!(migrate(&pool).await.unwrap() > 0);
    assert_eq!(migrate(&pool).await.unwrap(), 0);
}

/// An index that is built concurrently waits for transactions that are older, longer than anything else may wait.
#[sqlx::test]
async fn an_index_is_built_beside_a_long_transaction(pool: PgPool) {
    let index = |version, sql| {
        let sql = sqlx::AssertSqlSafe(String::from(sql)).into_sql_str();
        Migration::new(version, "synthetic".into(), MigrationType::Simple, sql, true)
    };
    let migrator = Migrator {
        migrations: MIGRATOR
            .iter()
            .cloned()
            .chain([index(99991231000001, "create index concurrently slow on printers (updated_at)")])
            .collect(),
        ..Migrator::DEFAULT
    };
    let mut long = pool.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *long).await.unwrap();
    sqlx::query("select count(*) from printers").execute(&mut *long).await.unwrap();
    let building = tokio::spawn({
        let pool = pool.clone();
        async move { paperminder_ota::db::migrate_by(&pool, &migrator).await }
    });
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!building.is_finished(), "it waits");
    long.rollback().await.unwrap();
    assert_eq!(building.await.unwrap().unwrap(), 1);
    let valid: bool =
        sqlx::query_scalar("select indisvalid from pg_index where indexrelid = 'slow'::regclass")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(valid);
}
