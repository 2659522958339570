//! A stretch of wire that a test can cut, before PostgreSQL or S3.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

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
}

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

/// A proxy on a port of its own. It ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, state) = watch::channel(Wire::Whole);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target.clone(), state.clone()));
            }
        });
        Self { address, wire, _task: AbortOnDropHandle::new(task) }
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

    pub fn mend(&self) {
        self.wire.send_replace(Wire::Whole);
    }
}

async fn carry(client: TcpStream, target: Target, mut wire: watch::Receiver<Wire>) {
    if *wire.borrow() == Wire::Cut {
        return;
    }
    let (there, back) = (wire.clone(), wire.clone());
    let (read, write) = client.into_split();
    let both = async {
        match target {
            Target::Tcp(address) => {
                let Ok(stream) = TcpStream::connect(address).await else { return };
                let (from, to) = stream.into_split();
                tokio::join!(pump(read, to, there), pump(from, write, back));
            }
            Target::Unix(path) => {
                let Ok(stream) = UnixStream::connect(path).await else { return };
                let (from, to) = stream.into_split();
                tokio::join!(pump(read, to, there), pump(from, write, back));
            }
        }
    };
    tokio::select! {
        () = both => {}
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut wire: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { break };
        if wire.wait_for(|wire| *wire != Wire::Frozen).await.is_err() {
            break;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
