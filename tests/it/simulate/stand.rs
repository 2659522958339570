//! A server for the printers to talk to: a real socket and real HTTP, with nothing of the product in it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{
        ConnectInfo, Request, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::{HeaderMap, StatusCode, Version, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::broadcast,
    time::{Instant, sleep},
};

/// What the stand saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Opened { connection: usize, headers: HeaderMap, ip: String },
    Said { connection: usize, message: Value },
    Gone { connection: usize, politely: bool },
    Fetched { version: Version, headers: HeaderMap },
}

/// What it answers to a subscribe message.
type Script = Box<dyn FnMut(&Value) -> Vec<Value> + Send>;

struct Inner {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Script>,
    kick: broadcast::Sender<Option<u16>>,
    image: Vec<u8>,
    connections: Mutex<usize>,
    trickle: Mutex<Duration>,
}

pub struct Stand {
    pub ws: String,
    pub http: String,
    inner: Arc<Inner>,
}

impl Stand {
    /// Serves `image` at `/image` and answers each subscribe message as `script` says.
    pub async fn start(image: Vec<u8>, script: impl FnMut(&Value) -> Vec<Value> + Send + 'static) -> Self {
        let inner = Arc::new(Inner {
            seen: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            kick: broadcast::Sender::new(16),
            image,
            connections: Mutex::default(),
            trickle: Mutex::default(),
        });
        let app = Router::new()
            .route("/ws/{user}", any(upgrade))
            .route("/image", get(fetch))
            .with_state(Arc::clone(&inner))
            .into_make_service_with_connect_info::<std::net::SocketAddr>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { ws: format!("ws://{address}"), http: format!("http://{address}"), inner }
    }

    /// A stand that offers `version` to whoever runs another one; `md5` is right unless given.
    pub async fn offering(version: &'static str, image: Vec<u8>, md5: Option<&str>) -> Self {
        let md5 = md5.map_or_else(|| hex::encode(Md5::digest(&image)), str::to_owned);
        let url = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&url);
        let stand = Self::start(image, move |subscribe| {
            let url = known.lock().unwrap().clone();
            let update = json!({"kind": "firmware_update", "version": version, "url": url, "md5": md5});
            if subscribe["firmware_version"] == version { vec![] } else { vec![update] }
        })
        .await;
        *url.lock().unwrap() = format!("{}/image", stand.http);
        stand
    }

    /// Sends the image in pieces with this pause between them.
    pub fn trickle(&self, pause: Duration) {
        *self.inner.trickle.lock().unwrap() = pause;
    }

    /// Ends all sockets: with this close code, or without a word.
    pub fn kick(&self, code: Option<u16>) {
        let _ = self.inner.kick.send(code);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// All messages in the order they came.
    pub fn said(&self) -> Vec<Value> {
        let said = |seen| match seen {
            Seen::Said { message, .. } => Some(message),
            _ => None,
        };
        self.seen().into_iter().filter_map(said).collect()
    }

    /// The `kind`s of all messages, subscribe messages as their version.
    pub fn kinds(&self) -> Vec<String> {
        let name = |message: &Value| match message["kind"].as_str() {
            Some(kind) => kind.trim_start_matches("firmware_").to_owned(),
            None => message["firmware_version"].as_str().unwrap().to_owned(),
        };
        self.said().iter().map(name).collect()
    }

    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&[Seen]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !wanted(&self.seen()) {
            assert!(Instant::now() < deadline, "never {what}: {:#?}", self.seen());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until this version was subscribed with.
    pub async fn until_subscribed(&self, version: &str) {
        let is = |seen: &Seen| matches!(seen, Seen::Said { message, .. } if message["firmware_version"] == version);
        self.until(&format!("a subscribe with {version}"), |seen| seen.iter().any(is)).await;
    }
}

async fn upgrade(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>,
    headers: HeaderMap,
    socket: WebSocketUpgrade,
) -> Response {
    let connection = {
        let mut connections = inner.connections.lock().unwrap();
        *connections += 1;
        *connections
    };
    inner.seen.lock().unwrap().push(Seen::Opened { connection, headers, ip: peer.ip().to_string() });
    // The sub-protocol is not repeated on purpose: printers do not insist.
    socket.on_upgrade(move |socket| serve(inner, socket, connection))
}

async fn serve(inner: Arc<Inner>, mut socket: WebSocket, connection: usize) {
    let mut kick = inner.kick.subscribe();
    let mut politely = false;
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            Ok(code) = kick.recv() => {
                if let Some(code) = code {
                    let frame = CloseFrame { code, reason: "kicked".into() };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    while let Some(Ok(_)) = socket.recv().await {}
                }
                break;
            }
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                inner.seen.lock().unwrap().push(Seen::Said { connection, message: message.clone() });
                if message.get("kind").is_some() {
                    continue;
                }
                let answers = (inner.script.lock().unwrap())(&message);
                for answer in answers {
                    let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
                    let _ = socket.send(Message::text(text)).await;
                }
            }
            Some(Ok(Message::Close(_))) => politely = true,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    inner.seen.lock().unwrap().push(Seen::Gone { connection, politely });
}

async fn fetch(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (version, headers) = (request.version(), request.headers().clone());
    inner.seen.lock().unwrap().push(Seen::Fetched { version, headers });
    let pause = *inner.trickle.lock().unwrap();
    let length = inner.image.len();
    let pieces: Vec<_> = inner.image.chunks(length.div_ceil(20).max(1)).map(<[u8]>::to_vec).collect();
    let stream = futures_util::stream::unfold(pieces.into_iter(), move |mut pieces| async move {
        let piece = pieces.next()?;
        sleep(pause).await;
        Some((Ok::<_, std::io::Error>(piece), pieces))
    });
    (StatusCode::OK, [(header::CONTENT_LENGTH, length)], Body::from_stream(stream)).into_response()
}

/// A server that answers every request with these bytes and then says nothing for `hold`.
pub async fn answering(answer: Vec<u8>, hold: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(&answer).await;
                sleep(hold).await;
            });
        }
    });
    address.to_string()
}
