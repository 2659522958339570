//! PostgreSQL stops dead in the middle of a rollout, and is back after a while.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use paperminder_ota::db;
use paperminder_ota::dev::Postgres;
use paperminder_ota::simulate::{Fleet, FleetOptions, PrinterOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use super::history::What;
use super::rules::{check, check_end};
use super::world::World;
use crate::support::SOON;
use crate::support::process::signal;

const PRINTERS: u64 = 45;
const AWAY: Duration = Duration::from_secs(20);
/// A request waits for a connection for so long, and once.
const WAIT: Duration = Duration::from_secs(3);

/// A server of our own, reached by a path that stays the same.
struct Database {
    server: Option<Postgres>,
    folder: tempfile::TempDir,
    door: PathBuf,
}

impl Database {
    async fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let door = folder.path().join("door");
        let mut database = Self { server: None, folder, door };
        database.open().await;
        database
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("postgres")
    }

    async fn open(&mut self) {
        let server = Postgres::start(&self.data()).await.unwrap();
        let url = server.url();
        let (_, sockets) = url.split_once("?host=").unwrap();
        let _ = std::fs::remove_file(&self.door);
        std::os::unix::fs::symlink(Path::new(sockets), &self.door).unwrap();
        self.server = Some(server);
    }

    fn url(&self) -> String {
        format!("postgres://paperminder@localhost:5432/paperminder?host={}", self.door.display())
    }

    /// As `pg_ctl stop -m immediate` does it: nothing is finished, nothing is written any more.
    async fn die(&mut self) {
        let pid = std::fs::read_to_string(self.data().join("data/postmaster.pid")).unwrap();
        signal(pid.lines().next().unwrap().parse().unwrap(), "QUIT");
        self.server.take().unwrap().died().await;
    }
}

/// The status, whether it says when to come back, and how long the answer took.
async fn asked(request: reqwest::RequestBuilder) -> (u16, bool, Duration) {
    let began = Instant::now();
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.headers().contains_key("retry-after"), began.elapsed())
}

#[tokio::test]
async fn without_a_database_printers_stay_and_the_rollout_goes_on_when_it_is_back() {
    let mut database = Database::start().await;
    let url = database.url();
    let pool = PgPool::connect(&url).await.unwrap();
    db::migrate(&pool).await.unwrap();
    pool.close().await;
    let mut world = World::new(url.clone(), url, 3).await;
    for replica in 0..3 {
        world.start(replica, &[]).await;
    }
    let here = world.base(0);
    world.release(&here, "1.5.0").await;
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| PrinterOptions {
        slow_bytes_per_second: Some(200 << 10),
        ..world.printer(index)
    }))
    .unwrap();
    world.connected(&fleet, PRINTERS).await;
    let rollout = world.rollout_to_most(&here, "1.5.0", &fleet, 9).await;
    let watch = world.watch(&fleet, Some((here.clone(), rollout)));
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") as u64 > PRINTERS / 4).await.unwrap();

    let from = world.now();
    database.die().await;
    let died = Instant::now();
    assert!(fleet.snapshot().running("1.5.0") < PRINTERS as usize, "too late to prove anything");
    for replica in 0..3 {
        let process = world.replica(replica);
        let url = |path: &str| process.url(path);
        let requests = [
            world.client.get(url("/api/rollouts/1")),
            world.client.get(url("/api/printers")),
            world.client.patch(url("/api/rollouts/1")).json(&json!({"status": "paused"})),
            world.client.get(url("/api/firmware/1.5.0")),
        ];
        for request in requests {
            let (status, retry, took) = asked(request).await;
            println!("replica {replica}: {status} after {took:?}");
            assert_eq!((status, retry), (503, true));
            assert!(took < 2 * WAIT, "it waits more than once: {took:?}");
        }
        let internal = |path: &str| world.client.get(format!("http://{}{path}", process.internal));
        let (ready, _, took) = asked(internal("/readyz")).await;
        assert_eq!(ready, 503, "replica {replica} says that it is ready");
        assert!(took < Duration::from_secs(5), "{took:?}");
        let (lives, _, took) = asked(internal("/livez")).await;
        assert!(lives == 200 && took < WAIT, "replica {replica}: {lives}, it waits: {took:?}");
    }
    sleep(AWAY.saturating_sub(died.elapsed())).await;
    let back = world.now();
    database.open().await;
    let deadline = Instant::now() + SOON;
    for replica in 0..3 {
        let ready = format!("http://{}/readyz", world.replica(replica).internal);
        while asked(world.client.get(&ready)).await.0 != 200 {
            assert!(Instant::now() < deadline, "replica {replica} is not ready");
            sleep(Duration::from_millis(50)).await;
        }
    }
    world.fault("PostgreSQL was away", from);
    world.to_the_others(&here, rollout).await;
    world.rests(&here, rollout, PRINTERS).await;
    println!("at rest {:?} after PostgreSQL died", died.elapsed());
    drop(watch);
    let fleet = fleet.stop().await;
    assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    let history = world.history().await;
    let closed = history
        .events
        .iter()
        .find(|event| matches!(event.what, What::Closed(Some(_))) && (from..back).contains(&event.at));
    assert_eq!(closed, None, "a server closed a socket");
    check(&history);
    check_end(&history, "1.5.0", PRINTERS as usize);
    world.end().await;
    database.server.take().unwrap().stop().await.unwrap();
}
