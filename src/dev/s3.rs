//! An S3 endpoint over a folder, inside this process.
//!
//! It is `s3s-fs` behind real HTTP with real SigV4, so that the server under development signs, streams and fetches
//! exactly as it does in production. Its keys are made once and kept beside the folder: presigned URLs handed to
//! printers stay good over a restart.
//!
//! Known gaps of `s3s-fs`, harmless to development: `ListMultipartUploads` is not implemented, deleting an object
//! leaves its small metadata file behind, and a PUT whose checksum does not match is refused but stored.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

/// How long a download that has begun may take to end once we stop.
const DRAIN: Duration = Duration::from_secs(5);
/// A client that connects and says nothing is sent away after this.
const SILENCE: Duration = Duration::from_secs(30);
/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;

/// Why there is no S3 endpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the address {addr} for the embedded S3 is taken: stop what listens there, or choose another address (port 0 takes any free one)"
    )]
    Taken { addr: SocketAddr },
    #[error("the embedded S3 cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("another run already serves {}: stop that one first, or give this one a folder of its own", root.display())]
    InUse { root: PathBuf },
    #[error("{} does not hold an access key and a secret key: delete it to have new ones made", file.display())]
    Credentials { file: PathBuf },
    #[error(
        "`{bucket}` cannot be a bucket: 3 to 63 lower-case letters, digits, dots and hyphens make a name"
    )]
    Bucket { bucket: String },
    #[error("could not {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the embedded S3 cannot serve {}: {reason}", root.display())]
    Root { root: PathBuf, reason: String },
}

impl Error {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }
}

/// A running endpoint. Dropping it cuts its connections; [`EmbeddedS3::stop`] lets them finish.
#[derive(Debug)]
pub struct EmbeddedS3 {
    addr: SocketAddr,
    credentials: Credentials,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl EmbeddedS3 {
    /// Serves `root`, one folder a bucket, and creates the `buckets` that are missing. Port 0 takes any free port.
    pub async fn start(root: &Path, addr: SocketAddr, buckets: &[&str]) -> Result<Self, Error> {
        let listener = TcpListener::bind(addr).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::Taken { addr },
            _ => Error::Listen { addr, source },
        })?;
        let addr = listener.local_addr().map_err(|source| Error::Listen { addr, source })?;
        // From here on only a few small files are touched, once: not worth a blocking thread.
        std::fs::create_dir_all(root).map_err(|e| Error::io("create", root, e))?;
        let credentials = Credentials::load_or_create(root)?;
        for &bucket in buckets {
            if !s3s::path::check_bucket_name(bucket) {
                return Err(Error::Bucket { bucket: bucket.to_owned() });
            }
            let folder = root.join(bucket);
            std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        }
        // Only now: opening the file system removes the temporary files that it takes for its own.
        let files = s3s_fs::FileSystem::new(root)
            .map_err(|e| Error::Root { root: root.to_path_buf(), reason: format!("{e:?}") })?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(
            credentials.access_key.as_str(),
            credentials.secret_key.expose_secret(),
        ));
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, service.build(), stopped));
        Ok(Self { addr, credentials, stop: Some(stop), server })
    }

    /// What `AWS_ENDPOINT_URL_S3` takes. An endpoint that listens on all interfaces is named by the loopback one.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.addr.port()))
    }

    /// Where it really listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.credentials.access_key
    }

    #[must_use]
    pub fn secret_key(&self) -> &SecretString {
        &self.credentials.secret_key
    }

    /// Takes no new connections, lets requests that have begun end for a few seconds, then cuts them.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // It ends by itself within `DRAIN`; a panic in it has been reported by the panic hook already.
        let _ = (&mut self.server).await;
    }
}

impl Drop for EmbeddedS3 {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Accepts until told to stop. All connections are tasks of one set, which takes them down with itself.
async fn serve(listener: TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(SILENCE);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A dropped sender is a stop as well.
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service.clone());
                    let connection = graceful.watch(connection);
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a connection to the embedded S3 broke off");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "the embedded S3 could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::debug!("the embedded S3 cuts the connections that are still busy");
    }
}

/// The one pair of keys, and the lock on its file that makes this the only run on its root.
#[derive(Debug)]
struct Credentials {
    access_key: String,
    secret_key: SecretString,
    _lock: File,
}

impl Credentials {
    const ACCESS: &str = "AWS_ACCESS_KEY_ID=";
    const SECRET: &str = "AWS_SECRET_ACCESS_KEY=";

    /// From `<root>.credentials`, in the form that a shell can source for the AWS command line.
    fn load_or_create(root: &Path) -> Result<Self, Error> {
        let mut name = root.file_name().unwrap_or_default().to_owned();
        name.push(".credentials");
        let path = root.with_file_name(name);
        if !path.exists() {
            Self::create(&path).map_err(|e| Error::io("write", &path, e))?;
        }
        let lock = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { root: root.to_path_buf() }),
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let value = |name: &str| {
            let value = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        match (value(Self::ACCESS), value(Self::SECRET)) {
            (Some(access_key), Some(secret_key)) => {
                Ok(Self { access_key, secret_key: secret_key.into(), _lock: lock })
            }
            _ => Err(Error::Credentials { file: path }),
        }
    }

    /// Readable by the owner alone from the first byte on, and complete or not there.
    fn create(path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // `tempfile` makes files with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        // Random UUIDs come from the kernel's generator, 122 bits each.
        let access_key = format!("DEV{}", &Uuid::new_v4().simple().to_string()[..17].to_uppercase());
        let secret_key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        writeln!(file, "{}{access_key}\n{}{secret_key}", Self::ACCESS, Self::SECRET)?;
        match file.persist_noclobber(path) {
            // Another run was faster; its keys are as good, and the lock decides which of us goes on.
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e.error),
            Ok(_) => Ok(()),
        }
    }
}
