//! The internal address: whether the process lives and is ready, and its metrics; also while it waits for the schema.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::Error;
use crate::http::{self, client_ip::Proxies};
use crate::shutdown::Shutdown;
use crate::state::AppState;
use crate::{db, telemetry};

/// Connections of probes and scrapers, who are few.
const INTERNAL_CONNECTIONS: u32 = 1000;
/// Longest wait of `/readyz` for the database and the bucket.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// How often a database that lacks something is asked whether it has it by now.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The listener for probes and scrapers.
pub(super) fn listening(listener: TcpListener) -> http::Listening {
    let (most, proxies) = (INTERNAL_CONNECTIONS, Proxies::default());
    http::Listening { name: "internal", listener, most, proxies, tls: None }
}

/// Waits until migrations and rights are there, which somebody else sees to: alive, not ready, with the reason. Whoever
/// started us is told in the log. An error when waiting is of no use.
pub(super) async fn wait_for_schema(pool: &PgPool, internal: &TcpListener, why: String) -> Result<(), Error> {
    let failed = |error| Error::Listen {
        name: "INTERNAL_ADDR",
        address: internal.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into()),
        error,
    };
    let (handle, why, shutdown) =
        (telemetry::metrics::install(), Arc::new(Mutex::new(why)), Shutdown::default());
    let said = why.clone();
    let ready = async move || (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", held(&said)));
    let routes = alive().route("/readyz", get(ready)).route("/metrics", get(async move || handle.render()));
    let shared = share(internal).map_err(failed)?;
    let server = tokio::spawn(http::serve(listening(shared), routes, shutdown.clone()));
    let mut told = String::new();
    let outcome = loop {
        let now = match db::standing(pool).await {
            Err(error) => error.to_string(),
            Ok(standing) => {
                telemetry::metrics::migrations_pending(standing.missing);
                match (standing.too_old(), standing.refusal()) {
                    (Some(never), _) => break Err(Error::Schema(never)),
                    (None, None) => break Ok(()),
                    (None, Some(why)) => why,
                }
            }
        };
        if now != told {
            tracing::warn!("waiting, not ready: {now}");
            *why.lock().unwrap_or_else(PoisonError::into_inner) = now.clone();
            told = now;
        }
        sleep(ASK_EVERY).await;
    };
    shutdown.hard.cancel();
    let _ = server.await;
    outcome
}

fn held(text: &Mutex<String>) -> String {
    text.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The same socket once more, for as long as somebody else answers on it.
fn share(listener: &TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(socket2::SockRef::from(listener).try_clone()?.into())
}

fn alive<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/livez", get(async || "ok\n"))
}

pub(super) fn routes(state: AppState, metrics: PrometheusHandle) -> Router {
    let ready = {
        let state = state.clone();
        async move || ready(&state).await
    };
    let render = async move || {
        let (pool, most) = (&state.pool, state.pool.options().get_max_connections());
        telemetry::metrics::pool(pool.size(), pool.num_idle(), most);
        let figures = state.figures.borrow().as_ref().map(ToString::to_string);
        metrics.render() + &figures.unwrap_or_default()
    };
    alive().route("/readyz", get(ready)).route("/metrics", get(render))
}

/// Ready means: not ending, the schema is ours, the bucket answers.
async fn ready(state: &AppState) -> (StatusCode, String) {
    let no = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    if state.shutdown.soft.is_cancelled() {
        return no("shutting down".into());
    }
    match timeout(READY_WITHIN, db::standing(&state.pool)).await {
        Err(_) => return no("the database does not answer in time".into()),
        Ok(Err(error @ db::MigrationError::Denied(_))) => return no(error.to_string()),
        Ok(Err(_)) => return no("the database does not answer".into()),
        Ok(Ok(standing)) => {
            if let Some(why) = standing.refusal() {
                return no(why);
            }
        }
    }
    match timeout(READY_WITHIN, state.uploads.store.check()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".into()),
        Ok(Err(_)) | Err(_) => no("the bucket does not answer".into()),
    }
}
