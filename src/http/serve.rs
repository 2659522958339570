//! The loop that takes connections in. `axum::serve` would do, but it lets hyper hold 408 KiB a connection for a client
//! that reads slowly, and offers no way to say less.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Bytes that a connection may hold, in each direction; a request's head must fit.
const BUFFER: usize = 64 << 10;
/// Wait when no connection can be accepted for lack of file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(500);

/// Serves until it is told to stop; then connections end as soon as their answer is out.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.max_buf_size(BUFFER);
    let service = TowerToHyperService::new(router);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // The end of an answer must not wait until the client has acknowledged what came before.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "answers on a connection may be held back");
                }
                let service = service.clone();
                let with_peer = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(ConnectInfo(peer));
                    service.call(request)
                });
                let connection = http.serve_connection(TokioIo::new(stream), with_peer).with_upgrades();
                let stop = stop.clone();
                tokio::spawn(async move {
                    let mut connection = pin!(connection);
                    let ended = tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = stop.cancelled() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a connection broke off");
                    }
                });
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// The client went away before it was accepted.
fn is_of_the_client(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}
