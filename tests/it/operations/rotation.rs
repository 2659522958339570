//! The database's password changes under a replica that runs.

use std::time::{Duration, Instant};

use paperminder_ota::dev::Postgres;
use sqlx::{Connection as _, PgConnection};

use super::Program;
use crate::support::SOON;
use crate::support::process::ServeProcess;
use crate::support::weed::Weed;

/// A replica goes on with the password that the file has by now, for the pool and for the listener, without a restart.
#[tokio::test]
async fn a_password_that_changes_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(&folder.path().join("postgres")).await.unwrap();
    let weed = Weed::start().await;
    let program = Program::on(postgres.url(), &weed.endpoint);
    program.run(&["migrate"]).await.well("migrations applied");
    let mut owner = PgConnection::connect(&postgres.url()).await.unwrap();
    for sql in ["create role server login password 'one/two@three'", "select 1"] {
        sqlx::query(sql).execute(&mut owner).await.unwrap();
    }
    program.run(&["migrate", "--grant-to", "server"]).await.well("may do what `serve` needs");
    // From now on this role needs its password, and only it.
    let hba: String = sqlx::query_scalar("show hba_file").fetch_one(&mut owner).await.unwrap();
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("local all server scram-sha-256\n{rules}")).unwrap();
    sqlx::query("select pg_reload_conf()").execute(&mut owner).await.unwrap();

    let password = folder.path().join("password");
    std::fs::write(&password, "one/two@three\n").unwrap();
    let url = postgres.url().replacen("paperminder@", "server@", 1);
    let program = program.with("DATABASE_URL", &url);
    program.run(&["migrate", "--check"]).await.badly("password");
    let program = program
        .with("DATABASE_PASSWORD_FILE", password.to_str().unwrap())
        .with("AUTH", "off")
        .with("S3_BUCKET", "rotation")
        .with("AWS_REGION", "us-east-1");
    program.run(&["migrate", "--check"]).await.well("0 migrations are missing");
    create_bucket(&program).await;
    let server = ServeProcess::start(&program.settings()).await;

    sqlx::query("alter role server password 'another'").execute(&mut owner).await.unwrap();
    std::fs::write(&password, "another").unwrap();
    // Time to read it; then every connection is ended, as a failover does.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let ended: i64 = sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'server'",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    assert!(ended >= 2, "a pool and a listener: {ended}");
    let deadline = Instant::now() + SOON;
    loop {
        let ready = reqwest::get(format!("http://{}/readyz", server.internal)).await.unwrap().status();
        let listens: bool = sqlx::query_scalar(
            "select exists (select 1 from pg_stat_activity where usename = 'server' and query ilike 'listen%')",
        )
        .fetch_one(&mut owner)
        .await
        .unwrap();
        if ready.is_success() && listens {
            break;
        }
        assert!(Instant::now() < deadline, "{ready} {listens}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.terminate().await;
    drop(owner);
    postgres.stop().await.unwrap();
}

async fn create_bucket(program: &Program) {
    let storage = paperminder_ota::config::Storage {
        credentials: Some((
            crate::support::weed::ADMIN.0.to_owned(),
            crate::support::weed::ADMIN.1.to_owned().into(),
        )),
        ..paperminder_ota::config::Config::from_lookup(&|name| {
            program.settings().iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
        .storage
    };
    let store = paperminder_ota::storage::Store::connect(&storage).await;
    assert!(store.create_bucket().await.unwrap());
    assert!(!store.create_bucket().await.unwrap(), "it is there");
}
