//! A connection of a client, which keeps its room for as long as it lives, also as a WebSocket. A client that takes
//! nothing of what it asked for is let go.

use std::future::Future as _;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use crate::telemetry::metrics::Gauged;

/// Bytes that the system may hold for a socket that only short messages go through.
const MESSAGES_BUFFER: usize = 16 << 10;
/// Time after which the system gives up on what the other side does not acknowledge.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Longest time in which a client takes nothing of an answer.
const TAKES_WITHIN: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(60) };

/// A TCP connection of one of our listeners.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Runs while something waits to be written.
    stuck: Option<Pin<Box<Sleep>>>,
    _room: OwnedSemaphorePermit,
    _open: Gauged,
}

/// The bytes under HTTP.
#[derive(Debug)]
pub(super) enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// The same call on whichever stream it is.
macro_rules! on {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match &mut $stream {
            Stream::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl Connection {
    pub(super) fn new(stream: Stream, room: OwnedSemaphorePermit, listener: &'static str) -> Self {
        // The end of an answer must not wait until the client has acknowledged what came before.
        if let Err(error) = stream.tcp().set_nodelay(true) {
            tracing::debug!(%error, "answers on a connection may be held back");
        }
        Self { stream, stuck: None, _room: room, _open: Gauged::connection(listener) }
    }

    /// What the stream said about a write, or an end to the wait.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        ready!(self.stuck.get_or_insert_with(|| Box::pin(sleep(TAKES_WITHIN))).as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client takes nothing")))
    }

    /// From now on only short messages go over it, to a client that may vanish without a word. (Uploads and downloads
    /// need the buffers that the system gives them.)
    pub fn for_messages(&self) {
        let socket = SockRef::from(self.stream.tcp());
        let set = socket
            .set_send_buffer_size(MESSAGES_BUFFER)
            .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
        if let Err(error) = set {
            tracing::debug!(%error, "a socket keeps the system's own limits");
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        on!(self.stream, poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = on!(self.stream, poll_write(cx, bytes));
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = on!(self.stream, poll_write_vectored(cx, slices));
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = on!(self.stream, poll_flush(cx));
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        on!(self.stream, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_let_go_and_who_is_slow_is_not() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
        let (mut client, (stream, _)) = (client?, server?);
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut connection = Connection::new(Stream::Plain(stream), room, "test");
        connection.for_messages();
        let reads = tokio::spawn(async move {
            let mut piece = vec![0; 256 << 10];
            for _ in 0..8 {
                sleep(TAKES_WITHIN / 2).await;
                tokio::io::AsyncReadExt::read_exact(&mut client, &mut piece).await.unwrap();
            }
            client
        });
        let (bytes, mut written) = (vec![0; 64 << 10], 0);
        let writes = async {
            loop {
                match tokio::io::AsyncWriteExt::write_all(&mut connection, &bytes).await {
                    Ok(()) => written += bytes.len(),
                    Err(error) => break error,
                }
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(20), writes).await?;
        let _client = reads.await?;
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(written >= 2 << 20, "cut off after {written} bytes, while it was slow only");
        Ok(())
    }

    #[tokio::test]
    async fn only_a_socket_for_messages_gets_a_small_buffer() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
        let (_client, (stream, _)) = (client?, server?);
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let connection = Connection::new(Stream::Plain(stream), room, "test");
        let limits = || {
            let socket = SockRef::from(connection.stream.tcp());
            Ok::<_, std::io::Error>((socket.send_buffer_size()?, socket.tcp_user_timeout()?))
        };
        let usual = limits()?;
        // Linux takes twice what it is told, for its own book-keeping.
        assert!(
            usual.0 > 2 * MESSAGES_BUFFER && usual.1.is_none_or(|timeout| timeout.is_zero()),
            "{usual:?}"
        );
        connection.for_messages();
        assert_eq!(limits()?, (2 * MESSAGES_BUFFER, Some(UNACKNOWLEDGED)));
        Ok(())
    }
}
