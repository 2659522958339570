//! Connections as the printers make them: TCP from a chosen local address, TLS 1.2 at most, and the WebSocket's
//! opening handshake by hand.
//!
//! The handshake is our own because tungstenite refuses a server that does not repeat the sub-protocol and lets
//! pass a `Connection` header that a printer does not understand; the printers' client does the opposite of both.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, crypto::aws_lc_rs, pki_types::ServerName},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use url::Url;

use super::{Error, options::PrinterOptions, wiretap::Socket};

pub(super) type Stream = MaybeTlsStream<TcpStream>;

/// An answer's header longer than this is no answer.
pub(super) const LONGEST_HEADER: usize = 8 * 1024;
/// Of 15,000 sockets in one process each gets a buffer of this size instead of tungstenite's 128 KB.
const READ_BUFFER: usize = 1024;

/// What the printers of a fleet share: trust anchors, and one HTTP client for each local address.
#[derive(Debug, Default)]
pub(super) struct Network {
    tls: OnceLock<Arc<ClientConfig>>,
    clients: std::sync::Mutex<Vec<(Option<IpAddr>, reqwest::Client)>>,
}

impl Network {
    fn tls(&self) -> Result<TlsConnector, Error> {
        if let Some(config) = self.tls.get() {
            return Ok(TlsConnector::from(Arc::clone(config)));
        }
        // The printers' TLS library stops at 1.2: a server that wants more must be found out here.
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(Error::Tls)?
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::clone(self.tls.get_or_init(|| Arc::new(config)))))
    }

    /// The HTTP/1.1 client of polite printers at `source`. No pool: every printer is a machine of its own.
    pub(super) fn client(&self, source: Option<IpAddr>) -> Result<reqwest::Client, Error> {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(address, _)| *address == source) {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .user_agent("PaperMinder")
            .local_address(source)
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(Error::Client)?;
        clients.push((source, client.clone()));
        Ok(client)
    }

    /// A plain or encrypted connection. With `window`, the receive buffer is small as on a microcontroller, so that
    /// a slow reader is felt by the server instead of being hidden by the kernel.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        window: Option<u32>,
    ) -> Result<Stream, Error> {
        let tcp = tcp(endpoint, source, window).await?;
        if !endpoint.tls {
            return Ok(MaybeTlsStream::Plain(tcp));
        }
        let name = ServerName::try_from(endpoint.bare_host().to_owned())
            .map_err(|_| Error::Server(endpoint.host.clone(), "its host is no name for TLS"))?;
        Ok(MaybeTlsStream::Rustls(self.tls()?.connect(name, tcp).await?))
    }

    /// Opens a printer's WebSocket, within its time.
    pub(super) async fn open(&self, endpoint: &Endpoint, options: &PrinterOptions) -> Result<Socket, Error> {
        let opening = async {
            let mut stream = self.dial(endpoint, options.source_ip, None).await?;
            let rest = upgrade(&mut stream, endpoint).await?;
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .write_buffer_size(0)
                .max_frame_size(Some(options.limits.frame))
                .max_message_size(Some(options.limits.frame));
            let socket = WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(config)).await;
            Ok(Socket::new(socket, options))
        };
        // On the heap, so that an idle printer's task does not carry the room for a TLS handshake.
        timeout(options.pace.connect, Box::pin(opening)).await.map_err(|_| Error::Timeout("connecting"))?
    }
}

async fn tcp(endpoint: &Endpoint, source: Option<IpAddr>, window: Option<u32>) -> Result<TcpStream, Error> {
    let addresses: Vec<SocketAddr> = match endpoint.bare_host().parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, endpoint.port)],
        Err(_) => lookup_host((endpoint.host.as_str(), endpoint.port)).await?.collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address of the host's family");
    for address in addresses {
        if source.is_some_and(|source| source.is_ipv4() != address.is_ipv4()) {
            continue;
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
        }
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Where to connect, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) target: String,
}

impl Endpoint {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        // Without path and query: a signed URL must not end up in a report.
        let refuse =
            |why| Error::Server(format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()), why);
        let tls = match url.scheme() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(refuse("the scheme must be ws or wss")),
        };
        let host = url.host_str().ok_or_else(|| refuse("it names no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| refuse("it names no port"))?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { tls, host, port, target: format!("{}{query}", url.path()) })
    }

    /// `/ws/{user_id}` below the server's base.
    pub(super) fn socket(server: &str, user_id: &str) -> Result<Self, Error> {
        let mut url = Url::parse(server).map_err(|_| Error::Server(server.to_owned(), "it is no URL"))?;
        url.set_query(None);
        url.path_segments_mut()
            .map_err(|()| Error::Server(server.to_owned(), "it cannot have a path"))?
            .pop_if_empty()
            .extend(["ws", user_id]);
        Self::of(&url)
    }

    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// Asks for the WebSocket and returns what came after the answer's header.
async fn upgrade(stream: &mut Stream, endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
    let key = generate_key();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: arduino\r\n\
         Origin: file://\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n",
        endpoint.target, endpoint.host, endpoint.port,
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, rest) = read_head(stream).await?;
    if head.status != 101 {
        return Err(Error::Refused(head.status));
    }
    let says =
        |name: &str, value: &str| head.get(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    if !says("connection", "upgrade") {
        return Err(Error::Handshake("the answer must say exactly `Connection: Upgrade`"));
    }
    if !says("upgrade", "websocket") {
        return Err(Error::Handshake("the answer must say `Upgrade: websocket`"));
    }
    if head.get("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Error::Handshake("Sec-WebSocket-Accept does not belong to the key"));
    }
    if head.get("sec-websocket-extensions").is_some() {
        return Err(Error::Handshake("an extension was accepted that was not asked for"));
    }
    Ok(rest)
}

/// Status and header of an HTTP answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The first value of a field, whose name is given in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let status =
            first.next().filter(|word| word.starts_with("HTTP/1.")).and(first.next())?.parse().ok()?;
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self { status, fields })
    }
}

/// Reads up to the blank line; returns the header and the bytes that came along after it.
pub(super) async fn read_head(stream: &mut Stream) -> Result<(Head, Vec<u8>), Error> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let head = Head::parse(&bytes).ok_or(Error::Handshake("the answer is no HTTP"))?;
            return Ok((head, rest));
        }
        if bytes.len() > LONGEST_HEADER {
            return Err(Error::Handshake("the answer's header is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_keeps_a_prefix_and_escapes_the_user() {
        let endpoint = Endpoint::socket("wss://ota.example/printers/", "a/b c").unwrap();
        assert_eq!(endpoint.target, "/printers/ws/a%2Fb%20c");
        assert_eq!((endpoint.tls, endpoint.port), (true, 443));
        assert_eq!(Endpoint::socket("ws://[::1]:80", "u").unwrap().bare_host(), "::1");
        assert!(Endpoint::socket("ftp://a", "u").is_err());
        assert!(Endpoint::socket("nonsense", "u").is_err());
    }

    #[test]
    fn a_header_is_read_whatever_its_case() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nContent-LENGTH: 12\r\nX: a:b\r\n\r\n").unwrap();
        assert_eq!((head.status, head.get("content-length"), head.get("x")), (200, Some("12"), Some("a:b")));
        assert!(Head::parse(b"SSH-2.0-x\r\n\r\n").is_none());
    }
}
