//! The socket's task: frames, pings, time-outs, letting go.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite;

use super::session::{Next, Session};
use super::wire::{self, StatusMessage};
use crate::http::Segment;
use crate::http::problem::{self, Problem};
use crate::ids::UserId;
use crate::push::Out;
use crate::state::AppState;
use crate::telemetry::metrics;

/// Largest message from a printer, in bytes; beyond it the socket is closed with 1009.
const MAX_MESSAGE: usize = 4 << 10;
/// axum's default of 128 KiB a socket is the largest part of what an idle printer costs.
const READ_BUFFER: usize = 1 << 10;
/// Most that may wait to be written.
const WRITE_BUFFER: usize = 16 << 10;
/// Time until the subscribe message must have come.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(10);
/// Proxies cut quiet sockets after 60 seconds, and the printers have no heartbeat of their own.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Pings without any answer after which the peer is gone.
const SILENT_PINGS: u32 = 2;
/// Longest time for writing one frame.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// The printers' route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/ws/{user_id}", axum::routing::any(upgrade))
}

async fn upgrade(
    State(app): State<AppState>,
    Segment(user): Segment<UserId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|error| {
        Problem::field("Upgrade", format!("is not that of a WebSocket: {}", error.body_text()))
    })?;
    let later = |kind: &'static problem::Kind, reason| {
        metrics::refused(reason);
        Problem { retry_after: Some(5), ..Problem::new(kind, kind.remedy) }
    };
    if app.shutdown.soft.is_cancelled() {
        return Err(later(&problem::SHUTTING_DOWN, "shutting_down"));
    }
    let Ok(room) = app.sockets.clone().try_acquire_owned() else {
        return Err(later(&problem::TOO_MANY_CONNECTIONS, "full"));
    };
    let upgrade = upgrade
        .protocols(["arduino"])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER);
    let tasks = app.shutdown.tasks.clone();
    let mut response =
        upgrade.on_upgrade(move |socket| tasks.track_future(serve(app, user, peer, socket, room)));
    // Some of the printers' WebSocket clients compare the word to the letter.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(response.into_response())
}

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The printer closed it, or its connection broke.
    LetGo,
    /// It did not answer pings.
    Silent,
    /// It broke the protocol.
    Violation,
    /// It does not read.
    Stuck,
    /// It never subscribed.
    NoSubscribe,
    /// A newer socket of the same printer is here.
    Replaced,
    /// The process is ending.
    Ours,
}

async fn serve(
    app: AppState,
    user: UserId,
    peer: SocketAddr,
    mut socket: WebSocket,
    _room: OwnedSemaphorePermit,
) {
    let _connected = metrics::Connected::new();
    let mut session = Session::new(app.clone(), peer.ip());
    let end = converse(&app, &user, &mut socket, &mut session).await;
    tracing::debug!(%user, %peer, ?end, "a socket ended");
    let code = match end {
        End::LetGo | End::Silent | End::Stuck => None,
        End::Violation => Some((close_code::SIZE, "message too big or malformed")),
        End::NoSubscribe => Some((close_code::POLICY, "no subscribe message came")),
        End::Replaced => Some((close_code::POLICY, "a newer connection of this printer is here")),
        End::Ours => Some((close_code::AWAY, "the server is going away")),
    };
    if let Some((code, reason)) = code {
        let frame = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = timeout(SEND_WITHIN, socket.send(frame)).await;
    }
    drop(socket);
    session.end(matches!(end, End::LetGo | End::Silent)).await;
}

async fn converse(app: &AppState, user: &UserId, socket: &mut WebSocket, session: &mut Session) -> End {
    let started = Instant::now();
    let mut offers: Option<tokio::sync::mpsc::Receiver<Out>> = None;
    let mut pings = tokio::time::interval_at(started + PING_EVERY, PING_EVERY);
    let mut silent = 0;
    let mut leave_at = None;
    loop {
        tokio::select! {
            frame = socket.recv() => {
                silent = 0;
                let next = match frame {
                    None => return End::LetGo,
                    Some(Err(error)) => return why(error),
                    Some(Ok(Frame::Close(_))) => {
                        // Reading on sends the answer to the close.
                        let _ = timeout(SEND_WITHIN, socket.recv()).await;
                        return End::LetGo;
                    }
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                    Some(Ok(Frame::Binary(_))) => Next::Say(StatusMessage::new("malformed_json", "Send text frames, not binary ones.")),
                    Some(Ok(Frame::Text(text))) => match wire::parse(&text, user) {
                        Ok(message) => session.take(message).await,
                        Err(status) => {
                            metrics::message("refused");
                            Next::Say(status)
                        }
                    },
                };
                match next {
                    Next::GoOn => {}
                    Next::Say(status) => if !say(socket, status.text()).await { return End::Stuck },
                    Next::Subscribed(queue, ignored) => {
                        offers = Some(queue);
                        if let Some(status) = ignored && !say(socket, status.text()).await { return End::Stuck }
                    }
                    Next::Outdated => return End::Replaced,
                    Next::Stop => return End::Ours,
                }
            }
            out = async { match &mut offers { Some(queue) => queue.recv().await, None => std::future::pending().await } } => match out {
                None | Some(Out::Replaced) => return End::Replaced,
                Some(Out::Offer(mut frame)) => {
                    let pass = app.fence.pass(frame.rollout, frame.epoch).await;
                    if pass.is_none() {
                        session.withdraw(&frame).await;
                        continue;
                    }
                    if !say(socket, std::mem::take(&mut frame.text)).await { return End::Stuck }
                    session.written(&frame);
                    metrics::offers(if frame.again { "resent" } else { "sent" }, 1);
                }
            },
            _ = pings.tick() => {
                if silent >= SILENT_PINGS { return End::Silent }
                silent += 1;
                if timeout(SEND_WITHIN, socket.send(Frame::Ping(Bytes::new()))).await.is_err() { return End::Stuck }
            }
            () = tokio::time::sleep_until(started + SUBSCRIBE_WITHIN), if !session.is_subscribed() => return End::NoSubscribe,
            () = app.shutdown.soft.cancelled(), if leave_at.is_none() => leave_at = Some(Instant::now() + turn(app.drain)),
            () = async { match leave_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => return End::Ours,
            () = app.shutdown.hard.cancelled() => return End::Ours,
        }
    }
}

async fn say(socket: &mut WebSocket, text: String) -> bool {
    matches!(timeout(SEND_WITHIN, socket.send(Frame::Text(text.into()))).await, Ok(Ok(())))
}

/// When it is this socket's turn to be let go: evenly spread over the drain, so that printers, who are back after
/// 500 ms, do not all come at once.
fn turn(drain: Duration) -> Duration {
    drain.mul_f64(f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX))
}

/// Sorts the library's errors: a peer that broke the protocol is told so, a broken connection is not.
fn why(error: axum::Error) -> End {
    match error.into_inner().downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_) | tungstenite::Error::Utf8(_)) => End::Violation,
        Some(tungstenite::Error::Protocol(error))
            if *error != tungstenite::error::ProtocolError::ResetWithoutClosingHandshake =>
        {
            End::Violation
        }
        _ => End::LetGo,
    }
}
