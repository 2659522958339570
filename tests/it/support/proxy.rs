//! A stretch of wire that a test can cut or listen in on, before PostgreSQL or S3.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sqlx::PgPool;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What happens to bytes and to new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Whole,
    /// Connections are ended, new ones at once.
    Cut,
    /// Connections stay, nothing passes.
    Frozen,
    /// Requests arrive, answers do not.
    Mute,
}

/// States in which no answer passes.
const HELD_ANSWERS: &[Wire] = &[Wire::Frozen, Wire::Mute];

/// Where the wire leads.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// The server of a test's database.
    pub fn database(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        match options.get_socket() {
            Some(folder) => Self::Unix(folder.join(format!(".s.PGSQL.{}", options.get_port()))),
            None => Self::Tcp(format!("{}:{}", options.get_host(), options.get_port())),
        }
    }
}

/// What was said on a connection.
type Ear = Arc<Mutex<Vec<u8>>>;
/// On each connection.
type Heard = Arc<Mutex<Vec<Ear>>>;

/// What makes a connection to PostgreSQL the one that is notified.
const LISTEN: &[u8] = b"LISTEN \"";

/// How a request begins.
const METHODS: [&str; 5] = ["GET /", "HEAD /", "PUT /", "POST /", "DELETE /"];

/// A proxy on a port of its own. It ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    /// The same for connections on which LISTEN was said.
    listeners: watch::Sender<Wire>,
    heard: Option<Heard>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(target: Target) -> Self {
        Self::begin(target, None).await
    }

    /// One that keeps what clients say.
    pub async fn listening_in(target: Target) -> Self {
        Self::begin(target, Some(Heard::default())).await
    }

    async fn begin(target: Target, heard: Option<Heard>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((wire, all), (listeners, some)) = (watch::channel(Wire::Whole), watch::channel(Wire::Whole));
        let task = tokio::spawn({
            let heard = heard.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let ear = heard.as_ref().map(|heard| {
                        let ear = Ear::default();
                        heard.lock().unwrap().push(ear.clone());
                        ear
                    });
                    let lane =
                        Lane { all: all.clone(), some: some.clone(), listens: watch::channel(false).0 };
                    tokio::spawn(carry(client, target.clone(), lane, ear));
                }
            }
        });
        Self { address, wire, listeners, heard, _task: AbortOnDropHandle::new(task) }
    }

    /// The HTTP requests so far, each with its head and its body.
    pub fn requests(&self) -> Vec<String> {
        let mut requests = Vec::new();
        for ear in self.heard.as_ref().expect("a proxy that listens in").lock().unwrap().iter() {
            let said = String::from_utf8_lossy(&ear.lock().unwrap()).into_owned();
            let begins = |at| METHODS.iter().filter_map(|method| said[..at].rfind(method)).max().unwrap();
            let mut starts: Vec<_> = said.match_indices(" HTTP/1.1\r\n").map(|(at, _)| begins(at)).collect();
            starts.push(said.len());
            requests.extend(starts.windows(2).map(|pair| said[pair[0]..pair[1]].to_owned()));
        }
        requests
    }

    /// `DATABASE_URL` of a test's database over this wire.
    pub fn database_url(&self, pool: &PgPool) -> String {
        let options = pool.connect_options();
        let (user, database) = (options.get_username(), options.get_database().unwrap_or_default());
        format!("postgres://{user}@{}/{database}?sslmode=disable", self.address)
    }

    pub fn cut(&self) {
        self.wire.send_replace(Wire::Cut);
    }

    pub fn freeze(&self) {
        self.wire.send_replace(Wire::Frozen);
    }

    pub fn mute(&self) {
        self.wire.send_replace(Wire::Mute);
    }

    /// Nothing passes on connections that LISTEN, now and later.
    pub fn freeze_listeners(&self) {
        self.listeners.send_replace(Wire::Frozen);
    }

    /// Connections that LISTEN are ended, and so is every one that says so from now on.
    pub fn cut_listeners(&self) {
        self.listeners.send_replace(Wire::Cut);
    }

    pub fn mend(&self) {
        self.wire.send_replace(Wire::Whole);
        self.listeners.send_replace(Wire::Whole);
    }
}

/// What becomes of one connection.
#[derive(Clone)]
struct Lane {
    all: watch::Receiver<Wire>,
    some: watch::Receiver<Wire>,
    listens: watch::Sender<bool>,
}

impl Lane {
    fn now(&self) -> Wire {
        let (all, some) = (*self.all.borrow(), *self.some.borrow());
        if *self.listens.borrow() && some != Wire::Whole { some } else { all }
    }

    /// Waits until it is as wanted; false when the proxy is gone.
    async fn until(&mut self, wanted: impl Fn(Wire) -> bool) -> bool {
        let mut listens = self.listens.subscribe();
        while !wanted(self.now()) {
            let changed = tokio::select! {
                changed = self.all.changed() => changed,
                changed = self.some.changed() => changed,
                changed = listens.changed() => changed,
            };
            if changed.is_err() {
                return false;
            }
        }
        true
    }
}

async fn carry(client: TcpStream, target: Target, mut lane: Lane, ear: Option<Ear>) {
    if lane.now() == Wire::Cut {
        return;
    }
    let (there, back) = (lane.clone(), lane.clone());
    let (read, write) = client.into_split();
    let both = async {
        match target {
            Target::Tcp(address) => {
                let Ok(stream) = TcpStream::connect(address).await else { return };
                let (from, to) = stream.into_split();
                tokio::join!(
                    pump(read, to, there, &[Wire::Frozen], ear),
                    pump(from, write, back, HELD_ANSWERS, None)
                );
            }
            Target::Unix(path) => {
                let Ok(stream) = UnixStream::connect(path).await else { return };
                let (from, to) = stream.into_split();
                tokio::join!(
                    pump(read, to, there, &[Wire::Frozen], ear),
                    pump(from, write, back, HELD_ANSWERS, None)
                );
            }
        }
    };
    tokio::select! {
        () = both => {}
        _ = lane.until(|wire| wire == Wire::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut lane: Lane,
    held: &[Wire],
    ear: Option<Ear>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if buffer[..read].windows(LISTEN.len()).any(|said| said == LISTEN) {
            lane.listens.send_replace(true);
        }
        if !lane.until(|wire| !held.contains(&wire)).await {
            break;
        }
        if let Some(ear) = &ear {
            ear.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
