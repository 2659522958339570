//! Bytes that no library would send. Whatever comes, the answer is no 5xx, no panic and no silence, and everybody else is
//! served meanwhile.

mod http;
mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Silence after all that was expected, which means that no more comes.
const QUIET: Duration = Duration::from_millis(700);

/// What came back, and whether the connection ended.
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

impl Heard {
    /// An answer that is the last to its request has begun.
    fn is_answered(&self) -> bool {
        self.statuses().iter().any(|status| *status >= 200)
    }

    /// The status of every answer.
    fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.bytes);
        let heads = text.split("HTTP/1.").skip(1);
        heads.filter_map(|head| head.get(2..5)?.parse().ok()).collect()
    }
}

/// Sends and listens until the other side ends it, or has said enough and says no more.
async fn exchange(
    to: SocketAddr,
    bytes: &[u8],
    within: Duration,
    is_enough: impl Fn(&Heard) -> bool,
) -> Heard {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // Half of it may be refused by an end of the connection.
    let _ = timeout(within, stream.write_all(bytes)).await;
    listen(&mut stream, within, is_enough).await
}

async fn listen(stream: &mut TcpStream, within: Duration, is_enough: impl Fn(&Heard) -> bool) -> Heard {
    let deadline = Instant::now() + within;
    let mut heard = Heard { bytes: Vec::new(), ended: false };
    loop {
        let until = if is_enough(&heard) { deadline.min(Instant::now() + QUIET) } else { deadline };
        match timeout_at(until, stream.read_buf(&mut heard.bytes)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => {
                heard.ended = true;
                return heard;
            }
            Err(_) => return heard,
        }
    }
}
