//! A replica: parts put together, started, stopped.

mod health;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use crate::clock::Clock;
use crate::config::{self, Config, Cors};
use crate::events::Feed;
use crate::firmware::Uploads;
use crate::http::browser::{self, Reached};
use crate::http::client_ip::Proxies;
use crate::http::problem::{self, Problem};
use crate::http::rest_rate::{self, RestRate};
use crate::idempotency::http::{Repeats, once};
use crate::ids::{PrinterRef, ReplicaId};
use crate::links::{self, Limits};
use crate::push::{self, Door, Fence, Hub, Refusals};
use crate::rollouts::{Engine, Steward};
use crate::shutdown::Shutdown;
use crate::state::{AppState, Parts};
use crate::storage::{BadKey, Buffers, Cdn, Delivery, Images, Mode, Store};
use crate::updates::Intake;
use crate::{
    audit, auth, db, docs, events, firmware, http, jobs, line, printers, rollouts, stats, telemetry, updates,
};

/// Hints that may wait for the engine; beyond it, it looks at everything.
const HINTS: usize = 1024;
/// Connections that may wait to be accepted; the system may allow fewer (`net.core.somaxconn`). What does not fit tries
/// again after one second, three, seven: a fleet that comes back at once takes minutes with a short queue.
const BACKLOG: u32 = 4096;
/// Longest wait for the database at the start.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Why a replica could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, or the address is not ours.
    #[error(
        "{name}={address} cannot be listened on: {error}. Is another server running there? Set {name} to a free address."
    )]
    Listen {
        /// The setting.
        name: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// `DATABASE_URL` cannot be read.
    #[error("DATABASE_URL is not a PostgreSQL URL that can be read")]
    DatabaseUrl,
    /// No database.
    #[error("the database cannot be used: {0}. Check DATABASE_URL and that PostgreSQL is running.")]
    Database(#[from] db::MigrationError),
    /// A newer release left this one behind.
    #[error("{0}")]
    Schema(String),
    /// The CDN's key cannot sign.
    #[error("CDN_PRIVATE_KEY_FILE {0}")]
    CdnKey(#[from] BadKey),
    /// No certificate.
    #[error("{0}")]
    Tls(#[from] http::tls::Error),
    /// No TLS for requests to the OpenID issuer.
    #[error("the client for OIDC_ISSUER cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    /// No bucket.
    #[error(
        "the bucket `{bucket}` cannot be used: {error}. Check S3_BUCKET, AWS_ENDPOINT_URL_S3 and the credentials."
    )]
    Bucket {
        /// Its name.
        bucket: String,
        /// What S3 said.
        error: crate::storage::Error,
    },
}

/// A replica that is running.
pub struct App {
    /// Its parts.
    pub state: AppState,
    /// Where REST and sockets are.
    pub address: SocketAddr,
    /// Where health and metrics are.
    pub internal_address: SocketAddr,
}

async fn listen(name: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |error| Error::Listen { name, address, error };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    // As tokio does where a port in TIME_WAIT may be bound again.
    socket.set_reuseaddr(cfg!(unix)).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Connects once, outside of any pool, because a pool only tells that it waited in vain.
pub async fn database(database: &config::Database) -> Result<PgConnectOptions, Error> {
    let options = db::options(database).map_err(|_| Error::DatabaseUrl)?;
    let connected = timeout(CONNECT_WITHIN, PgConnection::connect_with(&options)).await;
    let connected =
        connected.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
    let conn = connected.map_err(db::MigrationError::from)?;
    let _ = conn.close().await;
    Ok(options)
}

/// Checks what the replica stands on, then starts it.
pub async fn start(config: &Config, clock: Clock) -> Result<App, Error> {
    let tls = config.edge.tls.clone().map(http::tls::Tls::load).transpose()?;
    let (mut listener, mut address) = listen("LISTEN_ADDR", config.listen_addr).await?;
    let (internal, internal_address) = listen("INTERNAL_ADDR", config.internal_addr).await?;
    let options = database(&config.database).await?;
    let pool = db::pool(options, config.database_max_connections);
    let refusal = match db::standing(&pool).await {
        Err(error @ db::MigrationError::Denied(_)) => Some(error.to_string()),
        standing => standing?.refusal(),
    };
    if let Some(why) = refusal {
        // Nobody is to wait for an answer on the public address meanwhile.
        drop(listener);
        health::wait_for_schema(&pool, &internal, why).await?;
        (listener, address) = listen("LISTEN_ADDR", config.listen_addr).await?;
    }
    let store = Store::connect(&config.storage).await;
    store.check().await.map_err(|error| Error::Bucket { bucket: config.storage.bucket.clone(), error })?;

    if matches!(config.auth, config::Auth::Off) && !address.ip().is_loopback() {
        tracing::warn!(%address, "AUTH=off: whoever reaches this address may install anything on every printer");
    }
    if matches!(config.auth, config::Auth::On { admin_key: None }) && !has_admin(&pool, &clock).await? {
        tracing::warn!(
            "no key opens the API yet: make one with `paperminder-ota key create --name me --role admin`"
        );
    }
    let handle = telemetry::metrics::install();
    telemetry::metrics::begin(updates::ends());
    let (state, queue) = assemble(config, pool.clone(), store, clock.clone())?;
    let (shutdown, engine, steward) = (state.shutdown.clone(), state.engine.clone(), state.steward.clone());
    // Before the first printer can connect, or it would count as offline for a moment.
    let name = format!("{}:{}", host_name(), address.port());
    let lease = async { printers::heartbeat(&mut *pool.acquire().await?, state.replica, &name, 0).await };
    lease.await.map_err(db::MigrationError::from)?;

    let (hints, engine_hints) = broadcast::channel(HINTS);
    let guard_hints = hints.subscribe();
    let tasks = &shutdown.tasks;
    tokio::spawn(push::listen(config.database.clone(), hints, shutdown.hard.clone()));
    tokio::spawn(db::follow(pool.clone(), config.database.clone(), shutdown.hard.clone()));
    tokio::spawn(engine.clone().guard(guard_hints, shutdown.hard.clone()));
    tokio::spawn(engine.run(queue, engine_hints, shutdown.hard.clone()));
    tokio::spawn(jobs::presence(state.clone(), name));
    tokio::spawn(jobs::upkeep(state.clone(), handle.clone()));
    tokio::spawn(jobs::progress(state.clone()));
    tasks.spawn(jobs::expiry(state.clone()));
    tasks.spawn(jobs::sweep(state.clone()));
    tasks.spawn(jobs::fold(state.clone()));
    tasks.spawn(jobs::figures(state.clone()));
    if let Some(every) = config.gc_every {
        tasks.spawn(jobs::garbage(state.clone(), every));
    }
    tasks.spawn(jobs::reporting(state.clone(), config.reporting.event_retention));
    tokio::spawn(state.feed.clone().run(pool.clone(), shutdown.hard.clone()));
    tokio::spawn({
        let (pool, stop) = (pool, shutdown.hard.clone());
        async move { steward.run(pool, clock, stop).await }
    });
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().follow(shutdown.hard.clone()));
    }
    let proxies = Proxies::new(&config.edge.trusted_proxies);
    let on = http::Listening { name: "public", listener, most: config.connections.open, proxies, tls };
    tokio::spawn(http::serve(on, public(&state, config), shutdown.clone()));
    tokio::spawn(http::serve(health::listening(internal), health::routes(state.clone(), handle), shutdown));
    Ok(App { state, address, internal_address })
}

async fn has_admin(pool: &PgPool, clock: &Clock) -> Result<bool, db::MigrationError> {
    Ok(auth::db::admins(&mut *pool.acquire().await?, clock.now()).await? > 0)
}

/// The parts of a replica put together, and the queue that its engine reads. Nothing runs yet but what takes in what
/// printers say.
pub fn assemble(
    config: &Config,
    pool: PgPool,
    store: Store,
    clock: Clock,
) -> Result<(AppState, mpsc::Receiver<PrinterRef>), Error> {
    let (shutdown, fence, hub, steward) =
        (Shutdown::default(), Fence::default(), Arc::new(Hub::default()), Arc::new(Steward::default()));
    let (mode, replica) = (delivery_mode(&config.delivery)?, ReplicaId::generate());
    let connections = &config.connections;
    let base_url: Arc<str> = config.base_url.as_str().into();
    let (engine, queue) = Engine::new(rollouts::Parts {
        pool: pool.clone(),
        replica,
        hub: hub.clone(),
        fence: fence.clone(),
        delivery: Delivery::new(store.clone(), mode, clock.clone()),
        base_url: base_url.clone(),
        max_url_length: config.downloads.max_url_length,
        steward: steward.clone(),
        clock: clock.clone(),
        backoff: config.attempts.backoff,
    });
    let uploads = Uploads {
        pool: pool.clone(),
        store,
        buffers: Buffers::new(config.max_concurrent_uploads),
        clock: clock.clone(),
        max_size: config.max_firmware_size,
        patience: config.upload_timeout,
        shutdown: shutdown.clone(),
        by: auth::Caller::admin("server"),
    };
    let state = Parts {
        access: auth::Access::new(config, &pool, &clock)?,
        intake: Intake::start(&pool, replica, config.printer_auth, &clock, &shutdown.hard),
        pool,
        clock,
        replica,
        uploads,
        base_url,
        cdn_url: cdn_url(&config.delivery),
        links: Limits::new(config.downloads.concurrent, config.downloads.per_address),
        images: Images::new(config.downloads.cache),
        hub,
        fence,
        engine,
        steward,
        figures: watch::Sender::default(),
        exports: http::export::Exports::new(config.reporting.exports, shutdown.hard.clone()),
        feed: Feed::new(config.reporting.event_streams),
        door: Arc::new(Door::new(connections.sockets, connections.per_second, connections.per_address)),
        refusals: Refusals::new(config.wrong_keys),
        origins: match &config.cors {
            Cors::Any => Vec::new(),
            Cors::Only(origins) => origins.clone(),
        },
        messages: config.edge.messages,
        attempts: config.attempts,
        drain: config.drain,
        shutdown,
    };
    Ok((Arc::new(state), queue))
}

fn cdn_url(config: &config::Delivery) -> Option<Arc<str>> {
    if let config::Delivery::Cdn { base_url, .. } = config { Some(base_url.as_str().into()) } else { None }
}

fn delivery_mode(config: &config::Delivery) -> Result<Mode, Error> {
    Ok(match config {
        config::Delivery::Presigned => Mode::Presigned,
        config::Delivery::Link => Mode::Link,
        config::Delivery::Cdn { base_url, key } => {
            Mode::Cdn(Cdn::new(base_url, key.as_ref().map(|(id, pem)| (id.as_str(), pem)))?)
        }
    })
}

impl App {
    /// Lets go of the sockets over the drain, finishes uploads and downloads, and ends. True when everything ended by
    /// itself.
    pub async fn stop(self) -> bool {
        let clean = self.state.shutdown.run(self.state.door.inside(), self.state.drain).await;
        self.state.shutdown.hard.cancel();
        let farewell =
            async { printers::farewell(&mut *self.state.pool.acquire().await?, self.state.replica).await };
        let _ = timeout(Duration::from_secs(3), farewell).await;
        let _ = timeout(Duration::from_secs(3), self.state.pool.close()).await;
        clean
    }
}

/// Every operation of REST, and the document that describes them.
pub fn api() -> utoipa_axum::router::OpenApiRouter<AppState> {
    docs::router()
        .merge(firmware::http::routes())
        .merge(printers::http::routes())
        .merge(updates::http::routes())
        .merge(rollouts::http::routes())
        .merge(events::http::routes())
        .merge(stats::http::routes())
        .merge(auth::http::routes())
        .merge(audit::http::routes())
        .merge(auth::session::http::routes())
        .merge(auth::oidc::http::routes())
}

fn public(state: &AppState, config: &Config) -> Router {
    let (api, document) = api().split_for_parts();
    let gate = auth::Gate::new(state.access.clone(), &document);
    let repeats =
        Repeats { pool: state.pool.clone(), clock: state.clock.clone(), tasks: state.shutdown.tasks.clone() };
    let api = api.layer(from_fn_with_state(repeats, once));
    let api = api.layer(from_fn_with_state(gate, auth::require)).layer(from_fn(http::limit::in_time));
    let rate = RestRate::new(config.edge.rest);
    let by_https = config.edge.tls.is_some() || config.base_url.starts_with("https:");
    Router::new()
        .merge(api)
        .merge(docs::pages(document))
        .layer(from_fn_with_state(rate, rest_rate::limit))
        .merge(line::routes())
        .merge(links::http::routes())
        .fallback(async || {
            Problem::new(&problem::NOT_FOUND, "Nothing has this path; look it up under /docs.")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(&problem::METHOD, "This path takes other methods; see the Allow header.")
        })
        .layer(from_fn_with_state(Reached { by_https }, browser::secure))
        .layer(browser::cors(&config.cors))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Problem::internal("a handler panicked").into_response()
        }))
        .layer(from_fn(http::log::observe))
        .with_state(state.clone())
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}
