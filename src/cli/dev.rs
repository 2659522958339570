//! `dev`: the server with a PostgreSQL and an S3 endpoint of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use super::{Fatal, runtime};
use crate::app::{self, App};
use crate::clock::Clock;
use crate::config::Config;
use crate::dev::{EmbeddedS3, Postgres};
use crate::shutdown::Shutdown;
use crate::{db, telemetry};

/// Where `dev` keeps its data, below the current folder.
const FOLDER: &str = ".dev";
const BUCKET: &str = "firmware";

/// A running server and the world that it needs.
pub struct World {
    /// The server.
    pub app: App,
    postgres: Postgres,
    s3: EmbeddedS3,
}

impl World {
    /// Starts everything, with data under `folder`. `setting` answers for the server's variables; what `dev` brings
    /// itself overrides it.
    pub async fn start(folder: &Path, setting: &dyn Fn(&str) -> Option<String>) -> Result<Self, Fatal> {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let postgres = Postgres::start(&folder.join("postgres")).await?;
        let s3_root = folder.join("s3");
        std::fs::create_dir_all(&s3_root)?;
        let s3 = EmbeddedS3::start(&s3_root, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[BUCKET]).await?;
        let mut config = Config::from_lookup(&|name| match name {
            "DATABASE_URL" => Some(postgres.url()),
            "AWS_ENDPOINT_URL_S3" => Some(s3.endpoint()),
            "S3_BUCKET" => Some(BUCKET.into()),
            "AUTH" => Some(setting(name).unwrap_or_else(|| "off".into())),
            "S3_PUBLIC_ENDPOINT" | "S3_PATH_STYLE" | "AWS_ENDPOINT_URL" => None,
            "LISTEN_ADDR" => Some(setting(name).unwrap_or_else(|| "127.0.0.1:8000".into())),
            "INTERNAL_ADDR" => Some(setting(name).unwrap_or_else(|| "127.0.0.1:9000".into())),
            // Somebody waits at the keyboard.
            "DRAIN_SECONDS" => Some(setting(name).unwrap_or_else(|| "1".into())),
            _ => setting(name),
        })?;
        config.storage.credentials = Some((s3.access_key().to_owned(), s3.secret_key().clone()));
        let pool = db::pool(db::options(&config.database)?, 2);
        db::migrate(&pool).await?;
        pool.close().await;
        let app = app::start(&config, Clock::system()).await?;
        Ok(Self { app, postgres, s3 })
    }

    /// Stops everything, in the order of need.
    pub async fn stop(self) -> Result<(), Fatal> {
        self.app.stop().await;
        self.s3.stop().await;
        Ok(self.postgres.stop().await?)
    }
}

/// The process's environment.
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "`dev` hands the environment to `Config`, with changes")]
    std::env::var(name).ok()
}

/// Runs until Ctrl-C.
pub fn dev() -> Result<ExitCode, Fatal> {
    let filter = environment("RUST_LOG").unwrap_or_else(|| "info".into());
    let telemetry = telemetry::init(crate::config::LogFormat::Text, &filter)?;
    let code = runtime()?.block_on(async {
        // A taken port should be told before a database is made.
        check_port("LISTEN_ADDR", "127.0.0.1:8000").await?;
        check_port("INTERNAL_ADDR", "127.0.0.1:9000").await?;
        let mut world = tokio::select! {
            world = World::start(Path::new(FOLDER), &environment) => world?,
            _ = Shutdown::signalled() => return Ok(ExitCode::FAILURE),
        };
        print_banner(&world);
        let died = tokio::select! {
            signal = Shutdown::signalled() => { signal?; None }
            error = world.postgres.died() => Some(error),
        };
        eprintln!("\nstopping");
        tokio::select! { stopped = world.stop() => stopped?, _ = Shutdown::signalled() => {} }
        eprintln!("stopped");
        died.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
    });
    telemetry.flush();
    code
}

async fn check_port(name: &'static str, default: &str) -> Result<(), Fatal> {
    let address = environment(name).unwrap_or_else(|| default.into());
    match tokio::net::TcpListener::bind(&address).await {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("{name}={address} cannot be listened on: {error}. Stop what runs there, or set {name} to another address.").into())
        }
    }
}

fn print_banner(world: &World) {
    let (address, internal) = (world.app.address, world.app.internal_address);
    let auth = if environment("AUTH").as_deref() == Some("on") { "on" } else { "OFF" };
    eprintln!(
        "\n  PaperMinder OTA, for development. Authentication is {auth}; it listens on {listens}.\n\n  \
         REST      http://{address}/api/firmware\n  \
         Docs      http://{address}/docs\n  \
         Printers  ws://{address}/ws/{{user_id}}\n  \
         Health    http://{internal}/readyz  /metrics\n  \
         S3        {s3}  bucket {BUCKET}, keys in {FOLDER}/s3.credentials\n  \
         Database  psql '{database}'\n\n  \
         Data is kept in {FOLDER}/. Try: cargo run -- simulate --printers 10\n  Ctrl-C stops everything.\n",
        listens = if address.ip().is_loopback() { "this machine only" } else { "the network" },
        s3 = world.s3.endpoint(),
        database = world.postgres.url(),
    );
}
