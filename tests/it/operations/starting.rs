//! The first start on an empty database and an S3 without a bucket, and starts on schemas of other releases.

use std::process::Stdio;
use std::time::Duration;

use paperminder_ota::auth::db as keys;
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use super::Program;
use crate::support::process::{Leash, ServeProcess, database_url, server_url, signal};
use crate::support::weed::Weed;
use crate::support::{SOON, Server, free_address};

/// Starts a replica for the first time: what it printed to standard output until it was ready, and then on SIGTERM.
async fn first_start(program: &Program) -> (String, String) {
    let internal = free_address().to_string();
    let program = program.clone().with("INTERNAL_ADDR", &internal);
    let mut child = program
        .command(&["serve", "--migrate", "--create-bucket", "--first-key"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().unwrap();
    let _leash = Leash::on(pid, None);
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = async {
        let mut said = String::new();
        while let Some(line) = log.next_line().await.unwrap() {
            assert!(!line.contains("already exists"), "what nobody needs to know: {line}");
            if line.contains(r#""serving""#) {
                return Ok(line);
            }
            said += &line;
        }
        Err(said)
    };
    let line = timeout(SOON + Duration::from_secs(20), serving).await.unwrap().unwrap();
    let address = line.split(r#""address":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    program.run(&["healthcheck"]).await.well("ok");
    program.run(&["healthcheck", "--live"]).await.well("ok");
    signal(pid, "TERM");
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut child.stdout.take().unwrap(), &mut said).await.unwrap();
    assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
    program.run(&["healthcheck"]).await.badly("does not answer; INTERNAL_ADDR says where the replica is");
    (said, address)
}

#[sqlx::test(migrations = false)]
async fn the_first_start_makes_all_that_is_missing_once(pool: PgPool) {
    let weed = Weed::start().await;
    let program = Program::on(database_url(&pool), &weed.endpoint)
        .with("AWS_REGION", "eu-central-1")
        .with("S3_BUCKET", "first");
    // Three at once, as a Deployment starts them.
    let ((one, _), (two, _), (three, _)) =
        tokio::join!(first_start(&program), first_start(&program), first_start(&program));
    let said = one + &two + &three;
    let keys: Vec<_> = said.split_whitespace().filter(|word| word.starts_with("pmk_")).collect();
    let [key] = keys[..] else { panic!("one key, once: {said}") };
    let (again, _) = first_start(&program).await;
    assert_eq!(again, "", "nothing is made twice");

    let server = ServeProcess::start(&program.clone().with("AUTH", "on").settings()).await;
    let client = reqwest::Client::new();
    let ask = async |key: &str| {
        let request = client.get(server.url("/api/keys")).header("X-API-Key", key);
        request.send().await.unwrap().status()
    };
    assert_eq!((ask(key).await, ask("pmk_no").await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    // Revoked is not the same as never made.
    program.run(&["key", "revoke", key.split('_').nth(1).unwrap()]).await.well("opens nothing any more");
    assert_eq!(first_start(&program).await.0, "");
    server.terminate().await;
}

/// A replica that is started before its schema waits for it: alive, not ready, and with nobody on its public address.
#[sqlx::test(migrations = false)]
async fn a_replica_waits_for_migrations_and_for_its_rights(pool: PgPool) {
    let (s3, _folder) = crate::support::embedded_s3().await;
    let owner = Program::on(database_url(&pool), &s3.endpoint());
    // The role of the servers, which owns nothing and may nothing yet.
    let url = database_url(&pool).replacen("paperminder@", "paperminder_server@", 1);
    let server = owner
        .clone()
        .with("DATABASE_URL", &url)
        .with("AWS_ACCESS_KEY_ID", s3.access_key())
        .with("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret())
        .with("AUTH", "off");
    sqlx::query("do $$ begin create role paperminder_server login; exception when duplicate_object or unique_violation then null; end $$")
        .execute(&pool)
        .await
        .unwrap();
    let ask = async |internal: &str, path: &str| {
        let answer = reqwest::get(format!("http://{internal}{path}")).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.unwrap()))
    };
    let until = async |internal: &str, status: u16, words: &str| {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let said = ask(internal, "/readyz").await;
            if said.as_ref().is_some_and(|(code, text)| *code == status && text.contains(words)) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{said:?} instead of {words}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // On ports of its own each time: somebody else may have taken the last ones.
    let start = || {
        let (public, internal) = (free_address().to_string(), free_address().to_string());
        let server = server.clone().with("LISTEN_ADDR", &public).with("INTERNAL_ADDR", &internal);
        let child = server.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let leash = Leash::on(child.id().unwrap(), None);
        (child, leash, public, internal)
    };
    let (mut child, _leash, public, internal) = start();
    until(&internal, 503, "migrations; run `paperminder-ota migrate`").await;
    assert_eq!(ask(&internal, "/livez").await, Some((200, "ok\n".into())));
    let (_, metrics) = ask(&internal, "/metrics").await.unwrap();
    let pending = metrics.lines().find_map(|line| line.strip_prefix("paperminder_migrations_pending "));
    assert!(pending.unwrap().parse::<f64>().unwrap() > 20.0, "{metrics}");
    assert!(reqwest::get(format!("http://{public}/api/stats")).await.unwrap_err().is_connect());
    // It ends when it is asked to.
    signal(child.id().unwrap(), "TERM");
    assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());

    let (mut child, _leash, _, internal) = start();
    until(&internal, 503, "migrations; run").await;
    owner.run(&["migrate"]).await.well("migrations applied");
    until(&internal, 503, "has no rights").await;
    let waits = server.run(&["migrate", "--wait", "1"]).await;
    waits.badly("waited 1 s in vain: the role has no rights");
    // Whoever comes only now waits, too.
    signal(child.id().unwrap(), "TERM");
    assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
    let (mut child, _leash, public, internal) = start();
    until(&internal, 503, "has no rights").await;
    owner.run(&["migrate", "--grant-to", "paperminder_server"]).await.well("may do what `serve` needs");
    until(&internal, 200, "ok").await;
    assert!(reqwest::get(format!("http://{public}/api/stats")).await.unwrap().status().is_success());

    sqlx::query("revoke insert on update_history from paperminder_server").execute(&pool).await.unwrap();
    until(
        &internal,
        503,
        "the role may not insert on update_history; run `paperminder-ota migrate --grant-to ROLE`",
    )
    .await;
    server.run(&["migrate", "--wait", "1"]).await.badly("may not insert on update_history");
    signal(child.id().unwrap(), "TERM");
    assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
    s3.stop().await;
}

/// Nobody finds that there is no key while somebody else makes the first.
#[sqlx::test]
async fn who_makes_the_first_key_is_alone(pool: PgPool) {
    let (mut one, mut two) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    assert!(keys::none(&mut one).await.unwrap());
    let waits = timeout(Duration::from_millis(300), keys::none(&mut two)).await;
    assert!(waits.is_err(), "two make it: {waits:?}");
    one.rollback().await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn whoever_waits_for_migrations_goes_on_when_they_are_there(pool: PgPool) {
    let program = Program::on(database_url(&pool), "http://127.0.0.1:1");
    program.run(&["migrate", "--wait", "1"]).await.badly("waited 1 s in vain: the database lacks");
    let waiting = async { program.run(&["migrate", "--wait", "60"]).await };
    let migrating = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        program.run(&["migrate"]).await
    };
    let (waited, migrated) = tokio::join!(waiting, migrating);
    migrated.well("migrations applied");
    waited.well("waiting: the database lacks").says("no migrations are missing");
    program.run(&["migrate", "--check"]).await.well("0 migrations are missing");
    let nobody = program.with("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    nobody.run(&["migrate", "--wait", "1"]).await.badly("waited 1 s in vain: the database cannot be used");
}

#[sqlx::test]
async fn a_release_goes_back_to_unless_the_schema_left_it_behind(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let ready = async || reqwest::get(server.internal("/readyz")).await.unwrap();
    let program = Program::on(database_url(&pool), "http://127.0.0.1:1");
    // A newer release was here.
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (99991231000001, 'of a release to come', true, '\\x00', 1)",
    )
    .execute(&pool)
    .await
    .unwrap();
    server.twin().await.stop().await;
    sqlx::query("create table of_a_release_to_come (id int)").execute(&pool).await.unwrap();
    assert_eq!(ready().await.status(), StatusCode::OK);
    program.run(&["migrate"]).await.well("0 migrations applied");
    rights_stay(&pool, &program).await;

    sqlx::query("update schema_floor set oldest_release = '99.0.0'").execute(&pool).await.unwrap();
    let answer = ready().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = answer.text().await.unwrap();
    assert!(text.contains("the database serves release 99.0.0 and newer, and this is"), "{text}");
    let serve = program.with("AUTH", "off").run(&["serve"]).await;
    serve.badly("the database serves release 99.0.0 and newer").says("go back to a newer release");
    server.stop().await;
}

/// The rights that a newer release gave are not taken away by an older one, which does not know its tables.
async fn rights_stay(pool: &PgPool, program: &Program) {
    let granted = program.run(&["migrate", "--grant-to", "paperminder_server"]).await;
    granted.well("migrations that this release does not know, so the rights of paperminder_server stay");
    let count: i64 = sqlx::query_scalar(
        "select count(*) from information_schema.role_table_grants where grantee = 'paperminder_server' and table_name = 'printers'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(count > 0);
}

#[sqlx::test]
async fn readiness_says_no_while_a_migration_is_missing(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let url = server_url(&pool).await;
    let ready = async || {
        let answer = reqwest::get(server.internal("/readyz")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ready().await, (200, "ok\n".into()));
    let last = "select max(version) from _sqlx_migrations";
    sqlx::query(sqlx::AssertSqlSafe(format!("delete from _sqlx_migrations where version = ({last})")))
        .execute(&pool)
        .await
        .unwrap();
    let (status, said) = ready().await;
    assert_eq!(status, 503);
    assert!(said.contains("the database lacks 1 migrations; run `paperminder-ota migrate`"), "{said}");
    Program::on(url, "http://127.0.0.1:1")
        .run(&["migrate", "--check"])
        .await
        .badly("1 migrations are missing");
    server.stop().await;
}
