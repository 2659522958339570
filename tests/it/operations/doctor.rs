//! `doctor` finds what is wrong, each time in a world that was well before.

use paperminder_ota::config::Config;
use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::Program;
use crate::support::process::{database_url, server_url};
use crate::support::weed::{self, Weed};
use crate::support::{Server, free_address};

/// A server whose images are in SeaweedFS, and the program with the same settings.
async fn world(pool: &PgPool, weed: &Weed) -> (Server, Program) {
    let address = free_address().to_string();
    let base = format!("http://{address}");
    let program = Program::on(server_url(pool).await, &weed.endpoint)
        .with("AWS_REGION", "us-east-1")
        .with("BASE_URL", &base)
        .with("DATABASE_MAX_CONNECTIONS", "4")
        .with("TRUSTED_PROXIES", "127.0.0.0/8");
    let settings = program.settings();
    let mut storage = Config::from_lookup(&|name| {
        settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
    .storage;
    storage.credentials = Some((weed::ADMIN.0.to_owned(), weed::ADMIN.1.to_owned().into()));
    let store = paperminder_ota::storage::Store::connect(&storage).await;
    store.create_bucket().await.unwrap();
    let server =
        Server::on_bucket(pool.clone(), storage, &[("LISTEN_ADDR", &address), ("BASE_URL", &base)]).await;
    (server, program)
}

#[sqlx::test]
async fn a_sound_server_is_told_to_be_sound_and_every_fault_is_named(pool: PgPool) {
    let weed = Weed::start().await;
    let (server, program) = world(&pool, &weed).await;
    server.release("1.5.0", "stable").await;
    Program::on(database_url(&pool), "http://127.0.0.1:1")
        .run(&["key", "create", "--name", "me", "--role", "admin"])
        .await
        .well("pmk_");

    let sound = program.run(&["doctor"]).await;
    sound
        .well("0 warnings, 0 errors")
        .says("PostgreSQL")
        .says("what one replica notifies, others hear")
        .says("the role paperminder_server owns nothing")
        .says("the schema is up to date, and the role may do what `serve` does")
        .says("takes an object and gives it back")
        .says("serves HTTP/1.0 with its length")
        .says("a URL that has expired is refused")
        .says("it takes large objects in parts")
        .says("answers HTTP/1.0 with a length")
        .says("WebSockets pass")
        .says("all 1 releases have their image");
    let secret = |said: &str| said.contains(weed::ADMIN.1) || said.contains("X-Amz-Signature");
    assert!(!secret(&sound.said), "{}", sound.said);
    // Nothing of it stays.
    let rows: i64 = sqlx::query_scalar("select count(*) from printers").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);

    settings(&program).await;
    database(&pool, &program).await;
    bucket(&program).await;
    public(&program).await;
    images(&pool, &program).await;
    server.stop().await;
}

async fn settings(program: &Program) {
    let open = program.clone().with("PRINTER_AUTH", "open").with("TRUSTED_PROXIES", "");
    open.run(&["doctor"])
        .await
        .well("PRINTER_AUTH=open")
        .says("TRUSTED_PROXIES is set")
        .says("2 warnings, 0 errors");
    let wrong = program.clone().with("DELIVERY", "pigeon").run(&["doctor"]).await;
    wrong.badly("DELIVERY=`pigeon`: must be `presigned`, `cdn` or `link`");
}

async fn database(pool: &PgPool, program: &Program) {
    let owner = program.clone().with("DATABASE_URL", &database_url(pool));
    owner.run(&["doctor"]).await.well("owns the tables").says("--grant-to");
    sqlx::query("revoke insert on update_history from paperminder_server").execute(pool).await.unwrap();
    program
        .run(&["doctor"])
        .await
        .badly("the role may not insert on update_history; run `paperminder-ota migrate --grant-to");
    sqlx::query("grant insert on update_history to paperminder_server").execute(pool).await.unwrap();
    let many = program.clone().with("DATABASE_MAX_CONNECTIONS", "1000").run(&["doctor"]).await;
    many.well("a replica may hold 1001: lower DATABASE_MAX_CONNECTIONS");
    let nobody =
        program.clone().with("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").run(&["doctor"]).await;
    nobody.badly("the database cannot be used").says("takes an object and gives it back");
}

async fn bucket(program: &Program) {
    let reader = program
        .clone()
        .with("AWS_ACCESS_KEY_ID", weed::READER.0)
        .with("AWS_SECRET_ACCESS_KEY", weed::READER.1)
        .run(&["doctor"])
        .await;
    reader.badly("writing an object failed: S3 refused access").says("SECURITY.md lists the rights");
    program
        .clone()
        .with("S3_BUCKET", "missing")
        .run(&["doctor"])
        .await
        .badly("`missing` cannot be used: S3 has no such bucket");
    let elsewhere = program.clone().with("S3_PUBLIC_ENDPOINT", "http://127.0.0.1:1").run(&["doctor"]).await;
    elsewhere
        .badly("127.0.0.1 is not reached from here")
        .says("S3_PUBLIC_ENDPOINT must be what printers reach");
    let short = program.clone().with("MAX_URL_LENGTH", "200").run(&["doctor"]).await;
    short.well("beyond MAX_URL_LENGTH=200: printers get short links");
}

/// Proxies that a printer cannot use.
async fn public(program: &Program) {
    for (answer, complaint) in [
        (
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n",
            "answers HTTP/1.0 with 426: tell the proxy",
        ),
        ("HTTP/1.0 301 Moved\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n", "answers HTTP/1.0 with 301"),
        ("HTTP/1.0 401 No\r\nContent-Length: 0\r\n\r\n", "answers HTTP/1.0 with 401"),
        ("HTTP/1.0 200 OK\r\n\r\nbody", "and no length: printers want 200 and a Content-Length"),
    ] {
        let base = format!("http://{}", always(answer).await);
        let ran = program.clone().with("BASE_URL", &base).run(&["doctor"]).await;
        ran.badly(complaint).says("a WebSocket");
    }
    // Replicas are stopped, as in the middle of a restore.
    let base = format!("http://{}", always("HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n").await);
    let ran = program.clone().with("BASE_URL", &base).run(&["doctor"]).await;
    ran.well("answers 503 Service Unavailable: the proxy has no replica behind it");
    let nobody = program.clone().with("BASE_URL", "http://127.0.0.1:1").run(&["doctor"]).await;
    nobody.well("BASE_URL=http://127.0.0.1:1 is not reached from here: Connection refused");
}

/// Answers every request with these bytes.
async fn always(answer: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    address
}

async fn images(pool: &PgPool, program: &Program) {
    sqlx::query("update firmware_versions set file_size = file_size + 1").execute(pool).await.unwrap();
    program.run(&["doctor"]).await.badly("1.5.0 on stable for esp8266 should have");
    sqlx::query("update firmware_versions set object_key = 'firmware/gone'").execute(pool).await.unwrap();
    program
        .run(&["doctor"])
        .await
        .badly("has no image: firmware/gone is not in the bucket; restore the object");
}
