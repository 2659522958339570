//! The server's role in PostgreSQL. Every server of this suite runs as one that has what `migrate --grant-to` gives; here is
//! what it cannot do.

use sqlx::{Connection as _, PgConnection, PgPool};

use crate::support::Server;
use crate::support::process::{database_url, server_url};

#[sqlx::test]
async fn the_servers_role_cannot_do_what_the_server_does_not(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let role: String = sqlx::query_scalar("select usename::text from pg_stat_activity where application_name = 'paperminder-ota' and datname = current_database() limit 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(role, "paperminder_server");
    let mut conn = PgConnection::connect(&server_url(&pool).await).await.unwrap();
    for sql in [
        "delete from printers",
        "delete from update_rollouts",
        "delete from api_keys",
        "insert into audit (number, at, actor, action, subject_id, subject, hash) values (1, now(), 'x', 'x', 'x', 'x', sha256('x'))",
        "update audit set actor = 'x'",
        "delete from audit",
        "truncate audit",
        "truncate printers",
        "alter table audit disable trigger all",
        "drop table audit",
        "create table mine (id int)",
        "update _sqlx_migrations set success = true",
        "create role mine",
        "copy printers to program 'cat'",
    ] {
        let error = sqlx::query(sql).execute(&mut conn).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{sql}: {error}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn migrate_gives_a_role_its_rights_or_says_what_is_missing(pool: PgPool) {
    let run = async |role: &str| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"))
            .args(["migrate", "--grant-to", role])
            .env_clear()
            .env("DATABASE_URL", database_url(&pool))
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    server_url(&pool).await;
    let (ok, said) = run("paperminder_server").await;
    assert!(ok && said.contains("the role paperminder_server may do what `serve` needs"), "{said}");
    let (ok, said) = run("paperminder").await;
    assert!(!ok && said.contains("owns the tables"), "{said}");
    let (ok, said) = run("no\"body").await;
    assert!(!ok && said.contains("there is no role"), "{said}");
    sqlx::query("create table stranger (id int)").execute(&pool).await.unwrap();
    let (ok, said) = run("paperminder_server").await;
    assert!(!ok && said.contains("`stranger`"), "{said}");
}
