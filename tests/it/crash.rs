//! The process dies, or is asked to end, in the middle of a rollout. The printers and S3 go on without it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::simulate::{
    Error, Fleet, FleetOptions, Mode, Pace, Printer, PrinterOptions, image::esp8266_image,
};
use reqwest::multipart::{Form, Part};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use socket2::SockRef;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::support::SOON;
use crate::support::process::{ServeProcess, database_url};
use crate::support::raw::{self, Wire};

const PRINTERS: u64 = 40;
/// Over which four sockets are let go.
const DRAIN: Duration = Duration::from_secs(6);

/// What outlives the server.
struct World {
    s3: EmbeddedS3,
    database: String,
    port: u16,
    client: reqwest::Client,
    _folder: TempDir,
}

impl World {
    async fn new(pool: &PgPool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let s3 = EmbeddedS3::start(folder.path(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &["firmware"])
            .await
            .unwrap();
        // A port that is free now; the server must come back where it was.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { s3, database: database_url(pool), port, client: reqwest::Client::new(), _folder: folder }
    }

    async fn serve(&self, more: &[(&str, &str)]) -> ServeProcess {
        let (listen, endpoint) = (format!("127.0.0.1:{}", self.port), self.s3.endpoint());
        let mut settings = vec![
            ("DATABASE_URL", self.database.as_str()),
            ("LISTEN_ADDR", &listen),
            ("AWS_ENDPOINT_URL_S3", &endpoint),
            ("AWS_ACCESS_KEY_ID", self.s3.access_key()),
            ("AWS_SECRET_ACCESS_KEY", self.s3.secret_key().expose_secret()),
            ("AWS_REGION", "us-east-1"),
            ("RETRY_BACKOFF_SECONDS", "1"),
        ];
        settings.extend(more);
        ServeProcess::start(&settings).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    /// Releases 1.5.0, slow printers of both kinds come, and everyone is to get it.
    async fn begin(&self) -> Fleet {
        let file = Part::bytes(esp8266_image(100 << 10, 1)).file_name("firmware.bin");
        let form = Form::new().part("file", file).text("version", "1.5.0");
        assert_eq!(
            self.client.post(self.url("/api/firmware/upload")).multipart(form).send().await.unwrap().status(),
            201
        );
        let line = format!("ws://127.0.0.1:{}", self.port);
        let fleet = Fleet::start(FleetOptions::of(PRINTERS, |index| PrinterOptions {
            mode: if index % 2 == 0 { Mode::Polite } else { Mode::Device },
            // Between a quarter of a second and four.
            slow_bytes_per_second: Some(25_000 + 10_000 * u32::try_from(index).unwrap()),
            pace: Pace {
                reconnect: Duration::from_millis(100),
                reboot: Duration::from_millis(100),
                ..Pace::default()
            },
            ..PrinterOptions::new(&line, index)
        }))
        .unwrap();
        fleet.wait_until(SOON, |fleet| fleet.subscribes >= PRINTERS).await.unwrap();
        let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "rollout_percentage": 100});
        assert_eq!(
            self.client.post(self.url("/api/rollouts")).json(&wanted).send().await.unwrap().status(),
            201
        );
        fleet
    }

    /// Waits until the rollout rests and checks every counter.
    async fn end(&self, fleet: Fleet) {
        let deadline = Instant::now() + SOON;
        let rollout = loop {
            let rollout = self.get("/api/rollouts/1").await;
            if rollout["status"] == "completed" && rollout["confirmed_count"] == PRINTERS {
                break rollout;
            }
            assert!(Instant::now() < deadline, "{rollout}\n{:?}", fleet.snapshot());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let count = |name: &str| rollout[name].as_u64().unwrap();
        assert_eq!(
            ["total_targets", "completed_count", "failed_count", "declined_count", "pending_count"]
                .map(count),
            [PRINTERS, PRINTERS, 0, 0, 0]
        );
        let fleet = fleet.stop().await;
        assert!(fleet.all_run("1.5.0"));
        assert_eq!((fleet.double_offers, fleet.md5_mismatches), (0, 0));
    }
}

#[sqlx::test]
async fn killed_in_the_middle_of_a_rollout_it_ends_with_every_printer_confirmed_and_exact_counters(
    pool: PgPool,
) {
    let world = World::new(&pool).await;
    let mut server = world.serve(&[]).await;
    let fleet = world.begin().await;
    // Once while hardly anyone has it, once while some do.
    for confirmed in [1, PRINTERS / 2] {
        fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") as u64 >= confirmed).await.unwrap();
        server.kill().await;
        assert!(!fleet.snapshot().all_run("1.5.0"), "it was killed too late to prove anything");
        server = world.serve(&[]).await;
    }
    world.end(fleet).await;
    server.terminate().await;
}

#[sqlx::test]
async fn asked_to_end_it_lets_go_of_its_printers_and_exits_with_0(pool: PgPool) {
    let world = World::new(&pool).await;
    let server = world.serve(&[("DRAIN_SECONDS", "1")]).await;
    let fleet = world.begin().await;
    fleet.wait_until(SOON, |fleet| fleet.running("1.5.0") > 0).await.unwrap();
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    let replicas: i64 = sqlx::query_scalar("select count(*) from replicas").fetch_one(&pool).await.unwrap();
    assert_eq!(replicas, 0, "its printers are offline at once");
    let server = world.serve(&[]).await;
    world.end(fleet).await;
    server.terminate().await;
}

#[sqlx::test]
async fn asked_to_end_it_is_unready_at_once_takes_newcomers_for_a_while_and_finishes_what_it_began(
    pool: PgPool,
) {
    let world = World::new(&pool).await;
    let server = world.serve(&[("DRAIN_SECONDS", &DRAIN.as_secs().to_string())]).await;
    let form = Form::new().part("file", Part::bytes(esp8266_image(4 << 20, 1)).file_name("firmware.bin"));
    let form = form.text("version", "1.5.0");
    let uploaded = world.client.post(world.url("/api/firmware/upload")).multipart(form).send().await.unwrap();
    assert_eq!(uploaded.status(), 201);

    // Both are in the middle when the end is asked for.
    let image = esp8266_image(100 << 10, 2);
    let (head, tail) = raw::form(&[("version", "1.6.0")], &[]);
    let body = [head, image, tail].concat();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut upload = Wire::open(server.address).await;
    upload.send(raw::upload_head(server.address, Some(body.len()), "").as_bytes()).await;
    upload.send(first).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut download = Wire(socket.connect(server.address).await.unwrap());
    download.send(b"GET /api/firmware/download/1.5.0 HTTP/1.1\r\nHost: ota\r\n\r\n").await;
    let options = |index| PrinterOptions::new(&format!("ws://{}", server.address), index);
    let mut printers = Vec::new();
    for index in 1..=4 {
        printers.push(Printer::online(options(index)).await.unwrap());
    }
    download.0.readable().await.unwrap();
    let deadline = Instant::now() + SOON;
    while world.get("/api/printers?online=true").await["total"] != 4 {
        assert!(Instant::now() < deadline, "the printers are not there");
    }

    let asked = Instant::now();
    server.ask_to_end();
    let ready = format!("http://{}/readyz", server.internal);
    while world.client.get(&ready).send().await.unwrap().status() == 200 {
        assert!(asked.elapsed() < DRAIN / 3, "it says that it is ready");
    }
    let end = |mut printer: Printer| {
        tokio::spawn(async move {
            let end = printer.next_message(SOON).await;
            assert!(matches!(end, Err(Error::Closed { code: Some(1001), .. })), "{end:?}");
            asked.elapsed().as_secs_f64()
        })
    };
    let elders: Vec<_> = printers.into_iter().map(end).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let newcomer = end(Printer::online(options(5)).await.unwrap());
    let mut ends = futures_util::future::try_join_all(elders).await.unwrap();
    let newcomer = newcomer.await.unwrap();
    ends.sort_by(f64::total_cmp);
    // A quarter of the time for each, which is when we hear of it at the earliest, and whoever came last goes last.
    let drain = DRAIN.as_secs_f64();
    for (place, end) in ends.iter().enumerate() {
        assert!(*end >= drain * place as f64 / 4.0, "{ends:?}");
    }
    assert!(ends[3] < drain && newcomer >= drain, "{ends:?}, then {newcomer}");

    let refused = async || matches!(Printer::connect(options(6)).await, Err(Error::Refused(503)));
    while !refused().await {
        assert!(asked.elapsed() < 2 * DRAIN, "it still takes printers");
    }
    upload.send(rest).await;
    assert_eq!(upload.reply(false).await.status, 201);
    SockRef::from(&download.0).set_recv_buffer_size(1 << 20).unwrap();
    let whole = download.reply(false).await.body;
    assert!(whole == esp8266_image(4 << 20, 1), "{} bytes", whole.len());
    let status = server.ended().await;
    assert!(status.success(), "{status}");
}
