//! A server of one's own for a test: real PostgreSQL, a real S3 endpoint, real sockets.

pub mod nginx;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod weed;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use paperminder_ota::app::{self, App};
use paperminder_ota::clock::Clock;
use paperminder_ota::config::{Config, Storage};
use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::simulate::{Mode, Pace, PrinterOptions, image::esp8266_image};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;

use proxy::{Proxy, Target};

/// Longest wait for anything that should happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// A running server on free ports, with a bucket of its own.
pub struct Server {
    app: App,
    /// None when the test brought one.
    s3: Option<(EmbeddedS3, TempDir)>,
    /// The test's database.
    pub pool: PgPool,
    storage: Storage,
    clock: Clock,
    client: reqwest::Client,
}

/// An answer of REST.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body, which must have come with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }
}

impl Server {
    /// With the default settings.
    pub async fn start(pool: PgPool) -> Self {
        Self::with(pool, &[]).await
    }

    /// With these settings.
    pub async fn with(pool: PgPool, settings: &[(&str, &str)]) -> Self {
        let (s3, folder) = embedded_s3().await;
        let endpoint = s3.endpoint();
        Self::on(pool, s3, folder, &endpoint, settings).await
    }

    /// On a bucket that the test brings.
    pub async fn on_bucket(pool: PgPool, storage: Storage, settings: &[(&str, &str)]) -> Self {
        Self::started(pool, storage, None, Clock::system(), settings).await
    }

    /// With a clock that the test moves. Images go through links of the server's own, which expire by that clock.
    pub async fn on_clock(pool: PgPool, clock: Clock, settings: &[(&str, &str)]) -> Self {
        let (s3, folder) = embedded_s3().await;
        let storage = keyed(&pool, &s3, &s3.endpoint(), settings);
        Self::linking(pool, storage, Some((s3, folder)), clock, settings).await
    }

    /// Another replica on the same database, bucket and clock.
    pub async fn twin(&self) -> Self {
        self.twin_with(&[]).await
    }

    /// The same with these settings.
    pub async fn twin_with(&self, settings: &[(&str, &str)]) -> Self {
        Self::linking(self.pool.clone(), self.storage.clone(), None, self.clock.clone(), settings).await
    }

    /// A replica whose links point at itself, so that its port must be known before it starts.
    async fn linking(
        pool: PgPool,
        storage: Storage,
        s3: Option<(EmbeddedS3, TempDir)>,
        clock: Clock,
        settings: &[(&str, &str)],
    ) -> Self {
        let address = free_address();
        let (listen, base) = (address.to_string(), format!("http://{address}"));
        let own = [("DELIVERY", "link"), ("LISTEN_ADDR", &listen), ("BASE_URL", &base)];
        Self::started(pool, storage, s3, clock, &[&own, settings].concat()).await
    }

    /// With a wire before S3 that the test can cut.
    pub async fn behind_wire(pool: PgPool, settings: &[(&str, &str)]) -> (Self, Proxy) {
        let (s3, folder) = embedded_s3().await;
        let wire = Proxy::start(Target::Tcp(s3.addr().to_string())).await;
        let endpoint = format!("http://{}", wire.address);
        (Self::on(pool, s3, folder, &endpoint, settings).await, wire)
    }

    async fn on(
        pool: PgPool,
        s3: EmbeddedS3,
        folder: TempDir,
        endpoint: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let storage = keyed(&pool, &s3, endpoint, settings);
        Self::started(pool, storage, Some((s3, folder)), Clock::system(), settings).await
    }

    async fn started(
        pool: PgPool,
        storage: Storage,
        s3: Option<(EmbeddedS3, TempDir)>,
        clock: Clock,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut config = Config { storage: storage.clone(), ..config(&pool, "http://localhost", settings) };
        if settings.iter().all(|(name, _)| *name != "DATABASE_URL") {
            config.database = process::server_url(&pool).await.into();
        }
        let app = app::start(&config, clock.clone()).await.unwrap();
        Self { app, s3, pool, storage, clock, client: reqwest::Client::new() }
    }

    /// From now on every request shows this key, unless it shows another.
    pub fn as_key(&mut self, key: &str) {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        self.client = reqwest::Client::builder().default_headers(headers).build().unwrap();
    }

    /// `http://host:port`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.address)
    }

    /// `http://host:port` of health and metrics.
    pub fn internal(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.internal_address)
    }

    /// The parts of the server, for looking behind the scenes.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Sends a request and reads the answer as JSON, as text when it is none.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// A request that is not sent yet.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// Uploads bytes with these text fields, the file first, as curl does.
    pub async fn upload_bytes(&self, bytes: Vec<u8>, fields: &[(&str, &str)]) -> Answer {
        let mut form = Form::new().part("file", Part::bytes(bytes).file_name("firmware.bin"));
        for (name, value) in fields {
            form = form.text((*name).to_owned(), (*value).to_owned());
        }
        self.send(self.request(Method::POST, "/api/firmware/upload").multipart(form)).await
    }

    /// Releases a valid image, different for every version and channel.
    pub async fn release(&self, version: &str, channel: &str) -> Value {
        let seed = version
            .bytes()
            .chain(channel.bytes())
            .fold(7u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        self.upload_bytes(esp8266_image(20 << 10, seed), &[("version", version), ("channel", channel)])
            .await
            .expect(201)
    }

    /// Creates a rollout and returns it.
    pub async fn rollout(&self, body: Value) -> Value {
        self.post("/api/rollouts", &body).await.expect(201)
    }

    /// Options of a printer that is quick about everything.
    pub fn printer(&self, index: u64) -> PrinterOptions {
        PrinterOptions {
            pace: Pace {
                reconnect: Duration::from_millis(50),
                reboot: Duration::from_millis(50),
                ..Pace::default()
            },
            ..PrinterOptions::new(&format!("ws://{}", self.app.address), index)
        }
    }

    /// The same as a device, which never reports.
    pub fn device(&self, index: u64) -> PrinterOptions {
        PrinterOptions { mode: Mode::Device, ..self.printer(index) }
    }

    /// Asks until the answer is as wanted.
    pub async fn wait(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.get(path).await;
            if wanted(&answer.body) {
                return answer.body;
            }
            assert!(Instant::now() < deadline, "{path} stays {}", answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The folder of the embedded S3's buckets, in `s3/`.
    pub fn folder(&self) -> &std::path::Path {
        self.s3.as_ref().unwrap().1.path()
    }

    /// Every object in the bucket, and every open multipart upload and its parts, as the file system has them.
    pub fn objects(&self) -> Vec<String> {
        self.s3.as_ref().map_or_else(Vec::new, |(_, folder)| objects_in(folder))
    }

    /// Ends the server; fails when work was left undone. Says how long that took, without the bucket's own end.
    pub async fn stop(self) -> Duration {
        let began = Instant::now();
        assert!(self.app.stop().await, "work was left undone at the end");
        let took = began.elapsed();
        if let Some((s3, _folder)) = self.s3 {
            s3.stop().await;
        }
        took
    }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The bucket of an embedded S3, reached at `endpoint`.
fn keyed(pool: &PgPool, s3: &EmbeddedS3, endpoint: &str, settings: &[(&str, &str)]) -> Storage {
    let mut storage = config(pool, endpoint, settings).storage;
    storage.credentials = Some((s3.access_key().to_owned(), s3.secret_key().clone()));
    storage
}

/// An S3 endpoint with a bucket, and the folder that it serves.
pub async fn embedded_s3() -> (EmbeddedS3, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("s3");
    std::fs::create_dir(&root).unwrap();
    let s3 =
        EmbeddedS3::start(&root, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &["firmware"]).await.unwrap();
    (s3, folder)
}

/// The configuration of a test's server; `settings` win.
pub fn config(pool: &PgPool, endpoint: &str, settings: &[(&str, &str)]) -> Config {
    let database = process::database_url(pool);
    Config::from_lookup(&|name| match settings.iter().find(|(key, _)| *key == name) {
        Some((_, value)) => Some((*value).to_owned()),
        None => match name {
            "DATABASE_URL" => Some(database.clone()),
            "DATABASE_MAX_CONNECTIONS" => Some("8".into()),
            "AWS_ENDPOINT_URL_S3" => Some(endpoint.to_owned()),
            "LISTEN_ADDR" | "INTERNAL_ADDR" => Some("127.0.0.1:0".into()),
            "AUTH" => Some("off".into()),
            "PRINTER_AUTH" => Some("open".into()),
            "DRAIN_SECONDS" => Some("0".into()),
            "GC_EVERY_SECONDS" => Some("0".into()),
            "RETRY_BACKOFF_SECONDS" => Some("0".into()),
            _ => None,
        },
    })
    .unwrap()
}

/// Every object, open multipart upload and part of the endpoint that serves this folder.
pub fn objects_in(folder: &TempDir) -> Vec<String> {
    let mut found = Vec::new();
    walk(&folder.path().join("s3"), &mut found);
    found.sort();
    found
}

fn walk(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // The endpoint's own notes about an object outlive it; those about an open multipart upload do not.
            if !name.starts_with(".bucket-") {
                found.push(path.display().to_string());
            }
        }
    }
}
