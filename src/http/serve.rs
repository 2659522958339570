//! The loop that takes connections in. `axum::serve` would do, but it lets hyper hold 408 KiB a connection for a client
//! that reads slowly, and offers no way to say less; nor does it bound how many there are, or how long one may be silent.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::client_ip::Proxies;
use super::connection::{Connection, Stream};
use super::problem::{Problem, TOO_MANY_CONNECTIONS};
use super::tls::Tls;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics;

/// Bytes that a connection may hold, in each direction; a request's head must fit, or it gets 431. (So it does with more
/// than 100 headers: hyper's own bound, which costs less than any other.)
const BUFFER: usize = 64 << 10;
/// Wait when no connection can be accepted for lack of file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(500);
/// Time for the head of a connection's first request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Time for the head of any further one, the silence before it included: hyper's limit does not tell the two apart, and
/// proxies keep connections for 60 seconds and take it ill when one ends under their hands.
const NEXT_HEAD_WITHIN: Duration = Duration::from_secs(75);
/// How many may be told at once that there is no room, and how long that may take; further ones are just closed.
const TURNED_AWAY: usize = 256;
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);

/// One of our listeners.
pub struct Listening {
    /// What it is called in metrics.
    pub name: &'static str,
    /// Where connections come from.
    pub listener: TcpListener,
    /// How many may be open; further ones get 503.
    pub most: u32,
    /// Who is believed about where a request comes from.
    pub proxies: Proxies,
    /// Plain HTTP when none.
    pub tls: Option<Tls>,
}

/// Serves until the hard end. Once no more sockets are served, each connection is let go with its answer, and those
/// with an answer under way are what the shutdown waits for.
pub async fn serve(on: Listening, router: Router, shutdown: Shutdown) {
    let mut http = http1::Builder::new();
    http.max_buf_size(BUFFER).timer(TokioTimer::new()).header_read_timeout(NEXT_HEAD_WITHIN);
    let service = TowerToHyperService::new(router);
    let room = Arc::new(Semaphore::new(on.most as usize));
    let (full, turned_away) = (full(), Arc::new(Semaphore::new(TURNED_AWAY)));
    loop {
        let accepted = tokio::select! {
            () = shutdown.hard.cancelled() => break,
            accepted = on.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                Ok(room) => {
                    // A connection that is new after that must not be told to end before it has asked.
                    http.keep_alive(!shutdown.closing.is_cancelled());
                    let (http, service, proxies) = (http.clone(), service.clone(), on.proxies.clone());
                    let (tls, name, shutdown) = (on.tls.clone(), on.name, shutdown.clone());
                    shutdown.connections.clone().spawn(async move {
                        let stream = match tls {
                            None => Stream::Plain(stream),
                            Some(tls) => match tls.accept(stream).await {
                                Some(stream) => Stream::Tls(Box::new(stream)),
                                None => return,
                            },
                        };
                        let connection = Connection::new(stream, room, name);
                        converse(http, connection, (peer, proxies), service, shutdown).await;
                    });
                }
                Err(_) => {
                    metrics::refused("connections");
                    // Nobody who came for TLS could read the answer.
                    if on.tls.is_none()
                        && let Ok(permit) = turned_away.clone().try_acquire_owned()
                    {
                        let full = full.clone();
                        tokio::spawn(async move {
                            let _ = timeout(TURN_AWAY_WITHIN, turn_away(stream, &full)).await;
                            drop(permit);
                        });
                    }
                }
            },
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// One connection, until it ends or becomes a WebSocket.
async fn converse(
    http: http1::Builder,
    connection: Connection,
    (peer, proxies): (SocketAddr, Proxies),
    service: TowerToHyperService<Router>,
    shutdown: Shutdown,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let with_peer = service_fn({
        let asked = asked.clone();
        move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let client = proxies.client(peer.ip(), request.headers());
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(client);
            service.call(request)
        }
    });
    let mut conversation = pin!(http.serve_connection(TokioIo::new(connection), with_peer).with_upgrades());
    let first = poll_fn(|cx| match conversation.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if asked.load(Ordering::Relaxed) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let first = tokio::select! {
        first = timeout(HEAD_WITHIN, first) => first,
        () = shutdown.closing.cancelled(), if !shutdown.closing.is_cancelled() => return,
    };
    let ended = match first {
        Err(_) => {
            metrics::refused("silent");
            return;
        }
        Ok(Some(ended)) => ended,
        Ok(None) => tokio::select! {
            ended = conversation.as_mut() => ended,
            () = shutdown.closing.cancelled() => {
                conversation.as_mut().graceful_shutdown();
                conversation.await
            }
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection broke off");
    }
}

/// The answer for a connection that there is no room for.
fn full() -> Arc<[u8]> {
    let detail = "As many connections are open as MAX_OPEN_CONNECTIONS allows; try again in a few seconds.";
    let problem = Problem::new(&TOO_MANY_CONNECTIONS, detail);
    // A struct of strings and numbers always serialises.
    let json = serde_json::to_string(&problem).unwrap_or_default();
    let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n\
                Retry-After: 5\r\nConnection: close";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{json}", json.len()).into_bytes().into()
}

/// Reads on after the answer: closing on top of a request that was not read would reset the connection, and the client
/// might never see the answer.
async fn turn_away(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The client went away before it was accepted.
fn is_of_the_client(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}
