//! The limit of this machine and these libraries: a server that takes WebSockets in with the product's own settings,
//! counts what they say, and sends every one of them the same message. It stores nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::{any, get};
use tokio::sync::broadcast;

/// About as long as a `firmware_update` with a presigned URL.
const FRAME: usize = 500;

#[derive(Clone)]
struct Bare {
    said: Arc<AtomicUsize>,
    push: broadcast::Sender<()>,
}

/// Serves until it is killed. The address goes to standard output.
pub async fn run() {
    let bare = Bare { said: Arc::default(), push: broadcast::channel(4).0 };
    let router = Router::new()
        .route("/ws/{user}", any(upgrade))
        .route("/said", get(async |State(bare): State<Bare>| bare.said.load(Relaxed).to_string()))
        .route("/push", get(async |State(bare): State<Bare>| drop(bare.push.send(()))))
        .with_state(bare);
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, router).await.unwrap();
}

async fn upgrade(State(bare): State<Bare>, upgrade: WebSocketUpgrade) -> axum::response::Response {
    let upgrade = upgrade.protocols(["arduino"]).read_buffer_size(1024).write_buffer_size(0);
    upgrade.max_write_buffer_size(16 << 10).on_upgrade(async move |mut socket| {
        let mut pushes = bare.push.subscribe();
        loop {
            tokio::select! {
                said = socket.recv() => match said {
                    Some(Ok(_)) => drop(bare.said.fetch_add(1, Relaxed)),
                    _ => return,
                },
                Ok(()) = pushes.recv() => {
                    let text = format!(r#"{{"kind":"firmware_update","version":"1.5.0","url":"{}"}}"#, "u".repeat(FRAME));
                    if socket.send(Message::text(text)).await.is_err() { return }
                }
            }
        }
    })
}
