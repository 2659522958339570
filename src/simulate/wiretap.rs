//! What passes a printer's sockets, told to whoever records it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message},
};

use super::{net::Stream as Connection, options::PrinterOptions};

/// Where it is told. Nothing is dropped, so whoever listens has to read.
pub type Wiretap = mpsc::UnboundedSender<Overheard>;

/// Numbers the sockets of this process.
static SOCKETS: AtomicU64 = AtomicU64::new(0);

/// Something that passed. It has no `Debug`: an offer's URL is a secret.
#[derive(Clone)]
pub struct Overheard {
    /// The printer's `printer_id`, or `user/name`.
    pub printer: Arc<str>,
    /// Which of its sockets, by a number that no other has.
    pub socket: u64,
    /// When.
    pub at: Instant,
    /// What.
    pub what: Passed,
}

/// What passed.
#[derive(Clone)]
pub enum Passed {
    /// The WebSocket is open.
    Opened,
    /// The printer is about to write this.
    Says(Message),
    /// The printer read this.
    Hears(Message),
    /// The socket is gone.
    Gone,
}

/// A printer's socket, with whoever listens in.
pub(super) struct Socket {
    inner: WebSocketStream<Connection>,
    tap: Option<Tap>,
}

struct Tap {
    tell: Wiretap,
    printer: Arc<str>,
    socket: u64,
}

impl Tap {
    fn tell(&self, what: Passed) {
        let (printer, socket) = (Arc::clone(&self.printer), self.socket);
        let _ = self.tell.send(Overheard { printer, socket, at: Instant::now(), what });
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.tell(Passed::Gone);
    }
}

impl Socket {
    pub(super) fn new(inner: WebSocketStream<Connection>, options: &PrinterOptions) -> Self {
        let tap = options.wiretap.as_ref().map(|tell| {
            let printer = options.identity.label();
            let tap = Tap { tell: tell.clone(), printer, socket: SOCKETS.fetch_add(1, Relaxed) };
            tap.tell(Passed::Opened);
            tap
        });
        Self { inner, tap }
    }

    fn tell(&self, what: impl FnOnce() -> Passed) {
        if let Some(tap) = &self.tap {
            tap.tell(what());
        }
    }

    /// Sends a close frame.
    pub(super) async fn send_close(&mut self) -> tungstenite::Result<()> {
        self.send(Message::Close(None)).await
    }
}

impl Stream for Socket {
    type Item = tungstenite::Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = ready!(self.inner.poll_next_unpin(cx));
        if let Some(Ok(message)) = &message {
            self.tell(|| Passed::Hears(message.clone()));
        }
        Poll::Ready(message)
    }
}

impl Sink<Message> for Socket {
    type Error = tungstenite::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<tungstenite::Result<()>> {
        self.inner.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> tungstenite::Result<()> {
        self.tell(|| Passed::Says(message.clone()));
        self.inner.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<tungstenite::Result<()>> {
        self.inner.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<tungstenite::Result<()>> {
        self.inner.poll_close_unpin(cx)
    }
}
