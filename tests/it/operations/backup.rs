//! A backup, the loss of everything, and a restore by the commands of `docs/operations.md`, in the middle of a rollout.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use paperminder_ota::clock::{Clock, Time};
use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::printers::bucket;
use paperminder_ota::simulate::image::esp8266_image;
use paperminder_ota::simulate::{Fleet, FleetOptions, Pace, PrinterOptions};
use reqwest::multipart::{Form, Part};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::{Executor as _, PgPool};
use tempfile::TempDir;

use super::Program;
use crate::markdown::{blocks, read};
use crate::support::process::{ServeProcess, database_url};
use crate::support::{SOON, free_address};

const PRINTERS: u64 = 20;

/// What outlives the server.
struct World {
    program: Program,
    server: String,
    client: reqwest::Client,
    /// What `psql` and its like take.
    libpq: String,
    desk: TempDir,
}

impl World {
    async fn new(pool: &PgPool, s3: &EmbeddedS3) -> Self {
        let server = free_address().to_string();
        let program = Program::on(database_url(pool), &s3.endpoint())
            .with("AWS_ACCESS_KEY_ID", s3.access_key())
            .with("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret())
            .with("LISTEN_ADDR", &server)
            .with("BASE_URL", &format!("http://{server}"))
            .with("AUTH", "off")
            .with("RETRY_BACKOFF_SECONDS", "1");
        let options = pool.connect_options();
        let libpq = format!(
            "postgres://{}@localhost/{}?host={}",
            options.get_username(),
            options.get_database().unwrap(),
            options.get_socket().map_or(options.get_host().to_owned(), |socket| socket.display().to_string())
        );
        Self { program, server, client: reqwest::Client::new(), libpq, desk: tempfile::tempdir().unwrap() }
    }

    /// Every command of a section, as it stands there. Between two of them the fleet and its operators go on.
    async fn do_as_documented(&self, section: &str, meanwhile: &str) {
        let bin = Path::new(env!("CARGO_BIN_EXE_paperminder-ota")).parent().unwrap().display();
        let all = blocks(&read("docs/operations.md"));
        let commands: Vec<_> =
            all.iter().filter(|block| block.section == section && block.info == "bash").collect();
        assert!(!commands.is_empty());
        for block in commands {
            let script = block.text.trim_end().replace('\n', &format!("\n{meanwhile}\n"));
            let output = tokio::process::Command::new("bash")
                .args(["-euo", "pipefail", "-c", &format!("PATH={bin}:$PATH\n{script}")])
                .envs(self.program.settings())
                .env("DATABASE_URL", &self.libpq)
                .current_dir(self.desk.path())
                .kill_on_drop(true)
                .output()
                .await
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{script}\n{said}");
        }
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(format!("http://{}{path}", self.server)).send().await.unwrap().json().await.unwrap()
    }

    async fn wait(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let value = self.get(path).await;
            if wanted(&value) {
                return value;
            }
            assert!(tokio::time::Instant::now() < deadline, "{value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn rollout(&self, version: &str, percentage: u8) {
        let wanted = json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": percentage});
        let made = self.client.post(format!("http://{}/api/rollouts", self.server)).json(&wanted);
        assert_eq!(made.send().await.unwrap().status(), 201);
    }

    async fn patch(&self, number: u8, change: Value) {
        let url = format!("http://{}/api/rollouts/{number}", self.server);
        let answer = self.client.patch(url).json(&change).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    async fn release(&self, version: &str) {
        let file = Part::bytes(esp8266_image(50 << 10, version.len() as u64)).file_name("firmware.bin");
        let form = Form::new().part("file", file).text("version", version.to_owned());
        let upload = self.client.post(format!("http://{}/api/firmware/upload", self.server)).multipart(form);
        assert_eq!(upload.send().await.unwrap().status(), 201);
    }
}

/// How many of the fleet are in a gradual rollout of so many percent.
fn in_buckets_below(percentage: u8) -> u64 {
    let id =
        |index| PrinterOptions::new("ws://localhost", index).identity.printer_id.unwrap().parse().unwrap();
    (0..PRINTERS).filter(|index| bucket(&id(*index)) < percentage).count() as u64
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[sqlx::test]
async fn everything_is_lost_and_restored_and_the_rollout_goes_on(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, kept) = (folder.path().join("s3"), folder.path().join("kept"));
    std::fs::create_dir(&bucket).unwrap();
    let s3 =
        EmbeddedS3::start(&bucket, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &["firmware"]).await.unwrap();
    let world = World::new(&pool, &s3).await;
    crate::support::process::server_url(&pool).await;
    let server = ServeProcess::start(&world.program.settings()).await;
    let line = format!("ws://{}", world.server);
    let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| PrinterOptions {
        pace: Pace {
            reconnect: Duration::from_millis(200),
            reboot: Duration::from_millis(100),
            ..Pace::default()
        },
        ..PrinterOptions::new(&line, index)
    }))
    .unwrap();
    fleet.wait_until(SOON, |fleet| fleet.subscribes >= PRINTERS).await.unwrap();
    world.release("1.5.0").await;
    world.release("1.6.0-rc.1").await;
    world.rollout("1.5.0", 40).await;
    world.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == in_buckets_below(40)).await;
    // Nobody is in it yet.
    world.rollout("1.6.0-rc.1", 0).await;

    // An entry of the trail that only the later of two commands sees.
    let meanwhile = format!(
        "curl -fsS -o /dev/null -X PUT http://{}/api/users/somebody -H 'Content-Type: application/json' -d '{{\"time_zone\": \"Europe/Berlin\"}}'",
        world.server
    );
    world.do_as_documented("Backup", &meanwhile).await;
    copy(&bucket, &kept);

    // What the backup does not know: more have 1.5.0, and 1.6.0 turned out to be bad.
    world.patch(1, json!({"rollout_percentage": 70})).await;
    let then =
        world.wait("/api/rollouts/1", |rollout| rollout["confirmed_count"] == in_buckets_below(70)).await;
    world.patch(2, json!({"status": "cancelled"})).await;

    // All is lost.
    assert!(server.terminate().await.success());
    for sql in
        ["drop schema public cascade", "create schema public", "grant usage on schema public to public"]
    {
        pool.execute(sql).await.unwrap();
    }
    std::fs::remove_dir_all(bucket.join("firmware")).unwrap();

    let image = std::fs::read_dir(kept.join("firmware")).unwrap().count();
    assert!(image > 0, "the bucket was kept");
    copy(&kept.join("firmware"), &bucket);
    world.do_as_documented("Restore", "").await;
    world
        .program
        .run(&["doctor"])
        .await
        .well("all 2 releases have their image in the bucket")
        .says(" 0 errors");

    let restored = Clock::system().now();
    let server = ServeProcess::start(&world.program.settings()).await;
    // A fresh dump says that all are online, for as long as the lease of the replica before.
    let has_come = |printer: &Value| {
        let connected: Option<Time> = serde_json::from_value(printer["last_connected"].clone()).unwrap();
        connected > Some(restored)
    };
    world
        .wait("/api/printers?online=true&limit=100", |list| {
            list["total"] == PRINTERS && list["printers"].as_array().unwrap().iter().all(has_come)
        })
        .await;
    for number in [1, 2] {
        let rollout = world.get(&format!("/api/rollouts/{number}")).await;
        assert_eq!(rollout["status"], "paused", "{rollout}");
    }
    // Each said what it runs, also those who got it after the backup.
    let list = world.get("/api/printers?firmware_version=1.5.0").await;
    assert_eq!(list["total"], fleet.snapshot().running("1.5.0"), "{list} {then}");
    world.patch(2, json!({"status": "cancelled"})).await;
    world.patch(1, json!({"status": "active", "rollout_percentage": 100})).await;
    let rollout = world.wait("/api/rollouts/1", |rollout| rollout["status"] == "completed").await;
    assert_eq!(rollout["failed_count"], 0, "{rollout}");
    fleet.wait_until(SOON, |fleet| fleet.all_run("1.5.0")).await.unwrap();
    let fleet = fleet.stop().await;
    assert!(fleet.all_run("1.5.0"));
    assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    let trail = world.program.run(&["audit", "verify"]).await;
    trail.well("entries are as they were written");
    server.terminate().await;
    s3.stop().await;
}
