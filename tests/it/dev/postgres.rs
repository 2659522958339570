//! A server of our own: kept data, one run at a time, nothing left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use paperminder_ota::dev::Postgres;
use paperminder_ota::dev::postgres::Error;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// Names the data folder for [`holds_a_server`] and tells it to do something at all.
const HELPER: &str = "PAPERMINDER_TEST_HOLD_POSTGRES";

/// A folder that the server's user can reach, whoever runs the tests.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn connect(server: &Postgres) -> PgConnection {
    PgConnection::connect(&server.url()).await.unwrap()
}

fn socket_folder(url: &str) -> PathBuf {
    PathBuf::from(url.split_once("?host=").unwrap().1)
}

fn server_pid(data_dir: &Path) -> String {
    let file = std::fs::read_to_string(data_dir.join("data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().to_owned()
}

fn lives(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "still not so after 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn data_is_kept_and_the_url_suits_sqlx_and_psql() {
    let folder = open_folder();
    let data_dir = folder.path().join("not/there/yet");

    let server = Postgres::start(&data_dir).await.unwrap();
    let mut connection = connect(&server).await;
    sqlx::raw_sql("create table kept (n int); insert into kept values (7)")
        .execute(&mut connection)
        .await
        .unwrap();
    let (encoding, fsync): (String, String) =
        sqlx::query_as("select current_setting('server_encoding'), current_setting('fsync')")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((encoding.as_str(), fsync.as_str()), ("UTF8", "on"));
    let psql = Command::new("psql").args(["-XAtc", "select n from kept", &server.url()]).output();
    if let Ok(output) = psql {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n", "{output:?}");
    }
    let (sockets, pid) = (socket_folder(&server.url()), server_pid(&data_dir));
    server.stop().await.unwrap();
    assert!(!sockets.exists() && !lives(&pid));

    let server = Postgres::start(&data_dir).await.unwrap();
    let kept: i32 =
        sqlx::query_scalar("select n from kept").fetch_one(&mut connect(&server).await).await.unwrap();
    assert_eq!(kept, 7);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_run_on_one_folder_is_told_so() {
    let folder = open_folder();
    let data_dir = folder.path().join("pg");
    let server = Postgres::start(&data_dir).await.unwrap();
    let refusal = Postgres::start(&data_dir).await.unwrap_err();
    assert!(matches!(refusal, Error::InUse { .. }), "{refusal}");
    assert!(refusal.to_string().starts_with("another run already uses "), "{refusal}");
    // The refused one has changed nothing.
    connect(&server).await.ping().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_server_goes_away_and_the_next_one_waits_for_it() {
    let folder = open_folder();
    let data_dir = folder.path().join("pg");
    let server = Postgres::start(&data_dir).await.unwrap();
    let pid = server_pid(&data_dir);
    drop(server);
    let server = Postgres::start(&data_dir).await.unwrap();
    assert!(!lives(&pid));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_and_its_traces_do_no_harm() {
    let folder = open_folder();
    let data_dir = folder.path().join("pg");
    let mut server = Postgres::start(&data_dir).await.unwrap();
    let pid = server_pid(&data_dir);
    assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
    let error = tokio::time::timeout(Duration::from_secs(20), server.died()).await.unwrap();
    assert!(error.to_string().contains("immediate shutdown"), "{error}");
    drop(server);

    // As after a crash in a container: the file names a process that lives, but is no PostgreSQL.
    let file = data_dir.join("data/postmaster.pid");
    let stale = format!("{}\n{}\n0\n5432\n/nowhere\n\n", std::process::id(), data_dir.display());
    std::fs::write(&file, stale).unwrap();
    let server = Postgres::start(&data_dir).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_quotes_the_log() {
    let folder = open_folder();
    let data_dir = folder.path().join("pg");
    Postgres::start(&data_dir).await.unwrap().stop().await.unwrap();
    std::fs::write(data_dir.join("data/postgresql.auto.conf"), "no_such_setting = 1\n").unwrap();
    let error = Postgres::start(&data_dir).await.unwrap_err();
    assert!(matches!(error, Error::Start { .. }) && error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn an_interrupted_initdb_is_redone_and_foreign_files_are_left_alone() {
    let folder = open_folder();
    let data_dir = folder.path().join("pg");
    std::fs::create_dir_all(data_dir.join("data.new/base")).unwrap();
    std::fs::write(data_dir.join("lock"), "").unwrap();
    Postgres::start(&data_dir).await.unwrap().stop().await.unwrap();

    let precious = folder.path().join("precious");
    std::fs::create_dir_all(precious.join("data")).unwrap();
    std::fs::write(precious.join("data/thesis.tex"), "…").unwrap();
    let before = std::fs::metadata(&precious).unwrap().uid();
    let refusal = Postgres::start(&precious).await.unwrap_err();
    assert!(matches!(refusal, Error::NotADatabase { .. }), "{refusal}");
    assert_eq!(std::fs::metadata(&precious).unwrap().uid(), before);
    assert!(precious.join("data/thesis.tex").exists());
}

#[tokio::test]
async fn roots_private_folders_get_a_substitute_that_can_be_found() {
    let private = tempfile::tempdir().unwrap();
    std::fs::set_permissions(private.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    if std::fs::metadata(private.path()).unwrap().uid() != 0 {
        return; // Everybody else runs PostgreSQL as themselves, wherever they like.
    }
    let data_dir = private.path().join("pg");
    Postgres::start(&data_dir).await.unwrap().stop().await.unwrap();
    let substitute = std::fs::read_link(&data_dir).unwrap();
    assert!(substitute.starts_with("/var/tmp"), "{}", substitute.display());
    assert!(data_dir.join("data/PG_VERSION").exists());
    // Somebody cleans /var/tmp: the database is gone, but the next start works.
    std::fs::remove_dir_all(&substitute).unwrap();
    Postgres::start(&data_dir).await.unwrap().stop().await.unwrap();
    std::fs::remove_dir_all(&substitute).unwrap();
}

/// Not a test by itself: the process that the next test kills.
#[tokio::test]
async fn holds_a_server() {
    let Some(data_dir) = std::env::var_os(HELPER) else { return };
    let server = Postgres::start(Path::new(&data_dir)).await.unwrap();
    println!("\nREADY {}", server.url());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killing_the_owner_leaves_no_server_behind() {
    let folder = open_folder();
    let data_dir = folder.path().join("pg");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["dev::postgres::holds_a_server", "--exact", "--nocapture"])
        .env(HELPER, &data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let url =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("READY ").map(str::to_owned)).unwrap();
    let (sockets, pid) = (socket_folder(&url), server_pid(&data_dir));
    assert!(lives(&pid) && sockets.exists());

    owner.kill().unwrap(); // SIGKILL: no destructor and no handler of ours runs
    owner.wait().unwrap();

    // Right away, while the old one is still shutting down.
    let server = Postgres::start(&data_dir).await.unwrap();
    assert!(!lives(&pid));
    eventually("the old socket's folder is gone", || !sockets.exists());
    server.stop().await.unwrap();
    assert!(!data_dir.join("data/postmaster.pid").exists());
}
