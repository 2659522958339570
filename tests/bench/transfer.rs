//! `make bench-transfer`: what the way through the server costs. Uploads through it stand beside PUTs straight to S3,
//! downloads through a link beside GETs straight from S3, against one endpoint in one run. The server, PostgreSQL and
//! S3 (SeaweedFS) are processes of their own; the client is this one, and works as much for the one way as for the other.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be measured ends in a panic"
)]

#[path = "../it/support/process.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod process;
#[path = "../it/support/weed.rs"]
mod weed;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;
use comfy_table::Table;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use paperminder_ota::clock::Clock;
use paperminder_ota::db;
use paperminder_ota::ids::{FirmwareId, PrinterRef, UpdateId};
use paperminder_ota::links::{self, NewLink, Token};
use paperminder_ota::simulate::image::esp8266_image;
use process::ServeProcess;
use reqwest::multipart::{Form, Part};
use sqlx::PgPool;
use weed::Weed;

/// Longest wait for anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);
const BUCKET: &str = "firmware";
const AT_ONCE: usize = 4;
/// MiB that one round moves.
const ROUND: usize = 64;
/// The ways take turns, so that what disturbs the machine falls on all of them.
const ROUNDS: usize = 7;
/// Sizes of an image, in MiB. Each is one PUT.
const SIZES: [usize; 2] = [1, 4];
/// What the way through the server must reach of the direct one.
const UPLOAD_GOAL: f64 = 0.8;
const DOWNLOAD_GOAL: f64 = 0.7;

struct Bench {
    client: reqwest::Client,
    s3: Client,
    server: ServeProcess,
    pool: PgPool,
    _weed: Weed,
}

/// One image, and where it can be had.
struct Subject {
    mib: usize,
    image: Bytes,
    /// Straight from S3.
    presigned: String,
    /// Through the server.
    link: String,
}

#[derive(Clone, Copy)]
enum Way {
    Put,
    Upload,
    Get,
    Download,
}

/// One way's rounds.
#[derive(Default)]
struct Rounds {
    /// MiB a second.
    speeds: Vec<f64>,
    /// Of the server.
    cpu: Duration,
}

impl Rounds {
    fn median(&mut self) -> f64 {
        self.speeds.sort_by(f64::total_cmp);
        self.speeds[self.speeds.len() / 2]
    }
}

impl Bench {
    async fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "there is no configuration here")]
        let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set by `make bench-transfer`");
        let pool = PgPool::connect(&url).await.unwrap();
        db::migrate(&pool).await.unwrap();
        let weed = Weed::start().await;
        let (id, secret) = weed::ADMIN;
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(id, secret, None, None, "bench"))
            .endpoint_url(&weed.endpoint)
            .force_path_style(true);
        let s3 = Client::from_conf(config.build());
        s3.create_bucket().bucket(BUCKET).send().await.unwrap();
        let settings = [
            ("DATABASE_URL", url.as_str()),
            ("AWS_ENDPOINT_URL_S3", &weed.endpoint),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
            ("DOWNLOADS_PER_ADDRESS", "1000000"),
        ];
        let server = ServeProcess::start(&settings).await;
        Self { client: reqwest::Client::new(), s3, server, pool, _weed: weed }
    }

    /// Time that the server kept a core busy so far, in steps of a hundredth of a second.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.pid)).unwrap();
        // Behind the name, which may hold anything: `utime` and `stime` are fields 14 and 15 of the line.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        Duration::from_millis(10 * fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
    }

    async fn put(&self, subject: &Subject, number: usize) {
        let call = self.s3.put_object().bucket(BUCKET).key(format!("direct/{}/{number}", subject.mib));
        call.body(subject.image.clone().into()).send().await.unwrap();
    }

    async fn upload(&self, subject: &Subject, number: usize) {
        let image = subject.image.clone();
        let file = Part::stream_with_length(image, subject.image.len() as u64).file_name("firmware.bin");
        let form = Form::new().text("version", format!("{}.0.{number}", subject.mib)).part("file", file);
        let answer = self.client.post(self.server.url("/api/firmware/upload")).multipart(form);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    }

    /// From S3 or through the server: the same client asks in the same way.
    async fn get(&self, subject: &Subject, url: &str) {
        let answer = self.client.get(url).send().await.unwrap().error_for_status().unwrap();
        let read = answer.bytes_stream().try_fold(0, async |sum, bytes| Ok(sum + bytes.len()));
        assert_eq!(read.await.unwrap(), subject.image.len());
    }

    /// An image that was uploaded in both ways, once.
    async fn subject(&self, mib: usize) -> Subject {
        let image = Bytes::from(esp8266_image(mib << 20, 1));
        let mut subject = Subject { mib, image, presigned: String::new(), link: String::new() };
        self.put(&subject, 0).await;
        self.upload(&subject, 0).await;
        let hour = Duration::from_secs(3600);
        let call = self.s3.get_object().bucket(BUCKET).key(format!("direct/{mib}/0"));
        let presigned = call.presigned(PresigningConfig::expires_in(hour).unwrap()).await.unwrap();
        subject.presigned = presigned.uri().to_owned();

        let mut conn = self.pool.acquire().await.unwrap();
        let id = sqlx::query_scalar("select id from firmware_versions order by number desc limit 1");
        let release = FirmwareId(id.fetch_one(&mut *conn).await.unwrap());
        let (printer, update) = (PrinterRef(uuid::Uuid::now_v7()), UpdateId::generate());
        let sql = "insert into printers (id, printer_id, user_id, bucket, version_key) \
                   values ($1, $1::text, 'somebody', 0, '')";
        sqlx::query(sql).bind(printer.0).execute(&mut *conn).await.unwrap();
        let sql = "insert into update_history (id, printer, firmware_version_id, firmware_version, from_version, attempt) \
                   values ($1, $2, $3, '1.0.0', '0.0.0', 1)";
        let row = sqlx::query(sql).bind(update.0).bind(printer.0).bind(release.0);
        row.execute(&mut *conn).await.unwrap();
        let (now, token) = (Clock::system().now(), Token::generate());
        subject.link = self.server.url(&token.path());
        let link = NewLink { token, printer, release, update, expires_at: now + hour };
        links::create(&mut conn, &[link], now).await.unwrap();
        subject
    }

    async fn transfer(self: Arc<Self>, subject: Arc<Subject>, way: Way, number: usize) {
        match way {
            Way::Put => self.put(&subject, number).await,
            Way::Upload => self.upload(&subject, number).await,
            Way::Get => self.get(&subject, &subject.presigned).await,
            Way::Download => self.get(&subject, &subject.link).await,
        }
    }

    /// One round, whose transfers have numbers from this one on.
    async fn round(self: &Arc<Self>, subject: &Arc<Subject>, way: Way, first: usize, rounds: &mut Rounds) {
        let (began, cpu) = (Instant::now(), self.cpu_time());
        // A task each: the SDK hashes where it is called, and may use all cores for it as the server may.
        let transfers = stream::iter(first..first + ROUND / subject.mib)
            .map(|number| tokio::spawn(self.clone().transfer(subject.clone(), way, number)));
        transfers.buffer_unordered(AT_ONCE).for_each(async |done| done.unwrap()).await;
        rounds.speeds.push(ROUND as f64 / began.elapsed().as_secs_f64());
        rounds.cpu += self.cpu_time() - cpu;
    }

    async fn measure(self: &Arc<Self>, subject: &Arc<Subject>, table: &mut Table) {
        let ways = [Way::Put, Way::Upload, Way::Get, Way::Download];
        let mut rounds = ways.map(|_| Rounds::default());
        for index in 0..ROUNDS {
            for (way, rounds) in ways.into_iter().zip(&mut rounds) {
                self.round(subject, way, 1 + index * ROUND, rounds).await;
            }
        }
        let [put, upload, get, download] = rounds;
        for (name, mut direct, mut through, goal) in
            [("upload", put, upload, UPLOAD_GOAL), ("download", get, download, DOWNLOAD_GOAL)]
        {
            let (direct, speed) = (direct.median(), through.median());
            let ratio = speed / direct;
            table.add_row([
                format!("{name}, {} MiB", subject.mib),
                format!("{direct:.0} MiB/s"),
                format!("{speed:.0} MiB/s"),
                format!("{ratio:.2}"),
                format!("{goal} {}", if ratio >= goal { "met" } else { "missed" }),
                format!("{:.1} ms/MiB", through.cpu.as_secs_f64() * 1000.0 / (ROUNDS * ROUND) as f64),
            ]);
        }
    }
}

#[tokio::main]
async fn main() {
    let bench = Arc::new(Bench::start().await);
    let mut table = Table::new();
    table.set_header(["", "direct", "through the server", "ratio", "goal", "server's CPU"]);
    for mib in SIZES {
        let subject = Arc::new(bench.subject(mib).await);
        bench.measure(&subject, &mut table).await;
    }
    let cores = std::thread::available_parallelism().unwrap();
    println!("{AT_ONCE} at once, {ROUND} MiB a round, medians of {ROUNDS} rounds, {cores} cores");
    println!("{table}");
}
