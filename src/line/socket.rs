//! The socket's task: frames, pings, time-outs, letting go.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::{Extension, Router};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};

use super::pace::Pace;
use super::session::{Next, Session};
use super::wire::{self, StatusMessage};
use crate::http::problem::{self, Problem};
use crate::http::{ClientIp, Connection, Segment};
use crate::ids::UserId;
use crate::push::{Out, Outside};
use crate::state::AppState;
use crate::telemetry::metrics;

/// Largest message from a printer, in bytes; beyond it the socket is closed with 1009.
const MAX_MESSAGE: usize = 4 << 10;
/// The library's default of 128 KiB a socket is the largest part of what an idle printer costs.
const READ_BUFFER: usize = 1 << 10;
/// Most that may wait to be written.
const WRITE_BUFFER: usize = 16 << 10;
/// The sub-protocol that the printers' library asks for unless told otherwise.
const PROTOCOL: &str = "arduino";
/// Time until the subscribe message must have come.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(10);
/// Proxies cut quiet sockets after 60 seconds, and the printers have no heartbeat of their own.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Pings without any answer after which the peer is gone.
const SILENT_PINGS: u32 = 2;
/// Longest time for writing one frame.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a close of ours, and with it for what the printer said before it read that.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

/// The same for a wrong key, a missing one, a blocked printer and one of another user.
const UNAUTHORIZED: &str = "The printer or its api_key is not accepted.";

type Socket = WebSocketStream<Connection>;

/// The printers' route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/ws/{user_id}", axum::routing::any(upgrade))
}

/// The handshake. axum's own says `Connection: upgrade`, which some of the printers' WebSocket clients do not take for
/// the word that they compare to the letter, and keeps the connection to itself.
async fn upgrade(
    State(app): State<AppState>,
    Segment(user): Segment<UserId>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(client): Extension<ClientIp>,
    mut request: Request,
) -> Result<Response, Problem> {
    let mut response = create_response_with_body(&request, Body::empty)
        .map_err(|error| Problem::field("Upgrade", format!("is not that of a WebSocket: {error}")))?;
    if speaks_arduino(request.headers()) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        check_origin(&app, origin)?;
    }
    let room = enter(&app, client, peer.port())?;
    let upgraded = hyper::upgrade::on(&mut request);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER);
    app.shutdown.tasks.clone().spawn(async move {
        let Some(mut socket) = open(upgraded, peer, config).await else { return };
        let mut session = Session::new(app.clone(), client.0);
        let end = serve(&app, &user, &mut socket, &mut session).await;
        tracing::debug!(%user, %peer, ?end, "a socket ended");
        drop(socket);
        Box::pin(session.end(matches!(end, End::LetGo | End::Silent))).await;
        drop(room);
    });
    Ok(response)
}

/// The printers' library says `file://` unless told otherwise. Any other origin is a page in somebody's browser, which
/// speaks with that person's network address.
fn check_origin(app: &AppState, origin: &HeaderValue) -> Result<(), Problem> {
    let listed = |origin: &[u8]| app.origins.iter().any(|one| one.as_bytes() == origin);
    if origin == "file://" || listed(origin.as_bytes()) {
        return Ok(());
    }
    metrics::refused("origin");
    let detail = "Pages of this Origin may not open a printer's socket; list it in CORS_ALLOWED_ORIGINS.";
    Err(Problem::new(&problem::ORIGIN, detail))
}

async fn open(upgraded: OnUpgrade, peer: SocketAddr, config: WebSocketConfig) -> Option<Socket> {
    // Copied and dropped: the original would keep the 8 KiB of the handshake's buffer for as long as the socket lives.
    let (stream, read) = match upgraded.await.map(|upgraded| upgraded.downcast::<TokioIo<Connection>>()) {
        Ok(Ok(parts)) => (parts.io.into_inner(), parts.read_buf.to_vec()),
        Ok(Err(_)) => {
            tracing::error!("a socket came through another listener than ours");
            return None;
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "a socket broke off in its handshake");
            return None;
        }
    };
    stream.for_messages();
    Some(WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await)
}

fn speaks_arduino(headers: &HeaderMap) -> bool {
    let named = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
    named.flat_map(|list| list.split(',')).any(|name| name.trim() == PROTOCOL)
}

/// Room for one socket. Printers are back after 500 ms whatever they are told; for whoever heeds it, the wait is spread
/// by the client's port, which is as good as dice.
fn enter(app: &AppState, client: ClientIp, port: u16) -> Result<OwnedSemaphorePermit, Problem> {
    let refused = if app.shutdown.closing.is_cancelled() {
        (&problem::SHUTTING_DOWN, "shutting_down")
    } else {
        match app.door.enter(client.household()) {
            Ok(room) => return Ok(room),
            Err(Outside::Full) => (&problem::TOO_MANY_CONNECTIONS, "full"),
            Err(Outside::Address) => (&problem::TOO_MANY_CONNECTS, "connect_rate_of_address"),
            Err(Outside::Rush) => (&problem::TOO_MANY_CONNECTS, "connect_rate"),
        }
    };
    let (kind, reason) = refused;
    metrics::refused(reason);
    let retry_after = Some(3 + u32::from(port % 5));
    Err(Problem { retry_after, ..Problem::new(kind, kind.remedy) })
}

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The printer closed it, or its connection broke.
    LetGo,
    /// It did not answer pings.
    Silent,
    /// It broke the protocol, and is told how.
    Violation(CloseCode, &'static str),
    /// It does not read.
    Stuck,
    /// It never subscribed.
    NoSubscribe,
    /// The printer, or its key, is not let in.
    Refused,
    /// A newer socket of the same printer is here, or an operator parted with it.
    Replaced,
    /// The process is ending.
    Ours,
}

/// Everything is borrowed: what an asynchronous function is given by value takes its room twice.
async fn serve(app: &AppState, user: &UserId, socket: &mut Socket, session: &mut Session) -> End {
    let _connected = metrics::Gauged::printer();
    let end = converse(app, user, socket, session).await;
    let code = match end {
        End::LetGo | End::Silent | End::Stuck => None,
        End::Violation(code, reason) => Some((code, reason)),
        End::NoSubscribe => Some((CloseCode::Policy, "no subscribe message came")),
        End::Refused => Some((CloseCode::Policy, "not let in")),
        End::Replaced => Some((CloseCode::Policy, "a newer connection of this printer is here")),
        End::Ours => Some((CloseCode::Away, "the server is going away")),
    };
    if let Some((code, reason)) = code {
        let frame = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = timeout(SEND_WITHIN, socket.send(frame)).await;
    }
    if end == End::Ours {
        let _ = timeout(LAST_WORDS_WITHIN, Box::pin(hear_out(user, socket, session))).await;
    }
    end
}

/// What happens rarely is boxed and there is one timer, because a socket that is idle holds room for all of this.
async fn converse(app: &AppState, user: &UserId, socket: &mut Socket, session: &mut Session) -> End {
    let started = Instant::now();
    let (mut offers, mut silent) = (None, 0);
    let (mut ping_at, mut leave_at) = (started + PING_EVERY, None);
    let (mut pace, mut hear_at, mut told) = (Pace::per_minute(app.messages, started), None, false);
    let mut ending = pin!(app.shutdown.soft.cancelled());
    let mut alarm = pin!(sleep_until(started + SUBSCRIBE_WITHIN));
    loop {
        let subscribe_by = (!session.is_subscribed()).then_some(started + SUBSCRIBE_WITHIN);
        let due = [subscribe_by, leave_at, hear_at].into_iter().flatten().fold(ping_at, Instant::min);
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        tokio::select! {
            frame = socket.next(), if hear_at.is_none() => {
                silent = 0;
                hear_at = pace.heard(Instant::now());
                if hear_at.is_some() {
                    metrics::message_delayed();
                    if !std::mem::replace(&mut told, true) && !Box::pin(too_fast(user, socket)).await { return End::Stuck }
                }
                let next = match frame {
                    None => return End::LetGo,
                    Some(Err(error)) => return why(&error),
                    Some(Ok(Frame::Close(_))) => {
                        // Reading on sends the answer to the close.
                        let _ = timeout(SEND_WITHIN, socket.next()).await;
                        return End::LetGo;
                    }
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => continue,
                    Some(Ok(Frame::Binary(_))) => Next::Say(StatusMessage::new("malformed_json", "Send text frames, not binary ones.")),
                    Some(Ok(Frame::Text(text))) => match wire::parse(&text, user) {
                        Ok(message) => Box::pin(session.take(message)).await,
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
                    Next::Refused => {
                        metrics::refused("printer_key");
                        let _ = say(socket, StatusMessage::new("unauthorized", UNAUTHORIZED).text()).await;
                        return End::Refused;
                    }
                    Next::Stop => return End::Ours,
                }
            }
            out = next(&mut offers) => match out {
                None | Some(Out::Replaced) => return End::Replaced,
                Some(Out::Offer(mut frame)) => {
                    let pass = app.fence.pass(frame.rollout, frame.epoch).await;
                    if pass.is_none() {
                        Box::pin(session.withdraw(&frame)).await;
                        continue;
                    }
                    if !say(socket, std::mem::take(&mut frame.text)).await { return End::Stuck }
                    session.written(&frame);
                    metrics::offers(if frame.again { "resent" } else { "sent" }, 1);
                }
            },
            () = alarm.as_mut() => {
                let now = Instant::now();
                hear_at = hear_at.filter(|at| *at > now);
                if leave_at.is_some_and(|at| at <= now) { return End::Ours }
                if subscribe_by.is_some_and(|at| at <= now) { return End::NoSubscribe }
                if ping_at > now { continue }
                if silent >= SILENT_PINGS { return End::Silent }
                (silent, ping_at) = (silent + 1, now + PING_EVERY);
                if timeout(SEND_WITHIN, socket.send(Frame::Ping(Bytes::new()))).await.is_err() { return End::Stuck }
            }
            () = ending.as_mut() => {
                if leave_at.is_some() { return End::Ours }
                leave_at = Some(app.shutdown.turn());
                ending.set(app.shutdown.hard.cancelled());
            }
        }
    }
}

/// Takes in what was on its way when we closed. A report that is not read is lost for good, and a socket that is dropped
/// with something unread in it takes along what the printer has not read yet.
async fn hear_out(user: &UserId, socket: &mut Socket, session: &mut Session) {
    while let Some(Ok(frame)) = socket.next().await {
        if let Frame::Text(text) = frame
            && let Ok(report @ wire::Message::Report(..)) = wire::parse(&text, user)
        {
            session.take(report).await;
        }
    }
}

/// The next thing to do for a printer that is subscribed.
async fn next(offers: &mut Option<mpsc::Receiver<Out>>) -> Option<Out> {
    match offers {
        Some(queue) => queue.recv().await,
        None => std::future::pending().await,
    }
}

/// The printer talks faster than it is heard from now on.
async fn too_fast(user: &UserId, socket: &mut Socket) -> bool {
    tracing::info!(%user, "a printer says more than MESSAGES_PER_PRINTER in a minute");
    let detail =
        "Messages come faster than MESSAGES_PER_PRINTER allows in a minute; they wait, and none is lost.";
    say(socket, StatusMessage::new("too_fast", detail).text()).await
}

async fn say(socket: &mut Socket, text: String) -> bool {
    matches!(timeout(SEND_WITHIN, socket.send(Frame::Text(text.into()))).await, Ok(Ok(())))
}

/// Sorts the library's errors: a peer that broke the protocol is told so, a broken connection is not.
fn why(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Violation(CloseCode::Size, "message too big"),
        Error::Utf8(_) => End::Violation(CloseCode::Invalid, "text that is not UTF-8"),
        Error::Protocol(error) if *error != ProtocolError::ResetWithoutClosingHandshake => {
            End::Violation(CloseCode::Protocol, "not as RFC 6455 has it")
        }
        _ => End::LetGo,
    }
}
