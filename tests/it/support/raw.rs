//! HTTP as bytes on a socket: for clients that are older, slower or ruder than a library allows.

use std::net::SocketAddr;

use md5::{Digest as _, Md5};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

/// Separates the fields of [`form`].
const BOUNDARY: &str = "b0undary-of-the-tests";

/// An answer, as it came over the wire.
#[derive(Debug)]
pub struct Reply {
    pub version: String,
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header, which is there once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = found.next();
        assert_eq!(found.next(), None, "{name} twice");
        first
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A connection.
pub struct Wire(pub TcpStream);

impl Wire {
    pub async fn open(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads one answer. The body ends as Content-Length says, or with the connection.
    pub async fn reply(&mut self, to_head: bool) -> Reply {
        timeout(SOON, self.read_reply(to_head)).await.expect("an answer in time")
    }

    async fn read_reply(&mut self, to_head: bool) -> Reply {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            let read = self.0.read_buf(&mut bytes).await.unwrap();
            assert!(read > 0, "the connection ended before an answer: {:?}", String::from_utf8_lossy(&bytes));
        };
        let mut body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let (version, status) = lines.next().unwrap().split_once(' ').unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply {
            version: version.into(),
            status: status[..3].parse().unwrap(),
            headers,
            body: Vec::new(),
        };
        let length = reply.header("content-length").map(|length| length.parse::<usize>().unwrap());
        let length = if to_head || matches!(reply.status, 101 | 204 | 304) { Some(0) } else { length };
        while length.is_none_or(|length| body.len() < length) && self.0.read_buf(&mut body).await.unwrap() > 0
        {
        }
        assert!(length.is_none_or(|length| body.len() <= length), "more than Content-Length says");
        reply.body = body;
        reply
    }

    /// Ends the connection as a device does that lost its power: no farewell, a reset at the next packet.
    pub fn vanish(self) {
        self.0.set_zero_linger().unwrap();
    }
}

/// One request without a body on a connection of its own.
pub async fn ask(to: SocketAddr, method: &str, path: &str, version: &str, headers: &str) -> Reply {
    let mut wire = Wire::open(to).await;
    wire.send(format!("{method} {path} {version}\r\nHost: {to}\r\n{headers}\r\n").as_bytes()).await;
    wire.reply(method == "HEAD").await
}

/// A form in the order given: what stands before the file's bytes and what stands after them.
pub fn form(before: &[(&str, &str)], after: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
    let text = |(name, value): &(&str, &str)| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let head = before.iter().map(text).collect::<String>()
        + &format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"firmware.bin\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
    let tail =
        "\r\n".to_owned() + &after.iter().map(text).collect::<String>() + &format!("--{BOUNDARY}--\r\n");
    (head.into_bytes(), tail.into_bytes())
}

/// The head of an upload: with a Content-Length, or in chunks.
pub fn upload_head(to: SocketAddr, length: Option<usize>, more: &str) -> String {
    let framing = match length {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".to_owned(),
    };
    format!(
        "POST /api/firmware/upload HTTP/1.1\r\nHost: {to}\r\n{framing}\r\n\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{more}\r\n"
    )
}

/// Bytes as one HTTP chunk.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// MD5 and SHA-256 in hex.
pub fn checksums(bytes: &[u8]) -> (String, String) {
    (hex::encode(Md5::digest(bytes)), hex::encode(Sha256::digest(bytes)))
}

/// Bytes that nothing can compress; the same seed gives the same.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
