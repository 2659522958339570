//! A private PostgreSQL server that lives exactly as long as the [`Postgres`] that started it.
//!
//! The server runs under `supervise.sh`, which waits for the end of a pipe that we hold. However this process ends,
//! the kernel closes the pipe, and the supervisor shuts the server down in the orderly way and removes its socket.
//! `initdb` works in a folder beside the final one, which is renamed at the end, so an interrupted one leaves nothing
//! that could be taken for a database. A second run on the same folder is refused; a run right after a killed one
//! waits for the old server to finish.

mod binaries;
mod error;
mod folder;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

pub use error::Error;

use binaries::Binaries;
use folder::Folder;

/// Role and database carry the name of the product.
const NAME: &str = "paperminder";
/// Part of the socket's file name only; nothing listens on it.
const PORT: u16 = 5432;
/// Crash recovery of a database left by a power cut is inside this.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
const SUPERVISOR: &str = include_str!("supervise.sh");

/// A running server. Dropping it shuts the server down too, without waiting.
#[derive(Debug)]
pub struct Postgres {
    supervisor: Child,
    /// The supervisor sees its end; nothing is ever written to it.
    lease: Option<ChildStdin>,
    sockets: TempDir,
    folder: Folder,
}

impl Postgres {
    /// Starts a server on the data in `data_dir`, which is created when there is none, and waits until it answers.
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        let wanted = data_dir.to_path_buf();
        // Locks, checks and `initdb` take their time and block.
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(&wanted)).await??;
        let mut server = prepared.spawn()?;
        match server.ready().await {
            Ok(()) => Ok(server),
            Err(error) => {
                // The reason is what counts; a stop that takes too long is finished by the supervisor.
                let _ = server.stop().await;
                Err(error)
            }
        }
    }

    /// What `DATABASE_URL` takes: understood by sqlx and by `psql` alike.
    #[must_use]
    pub fn url(&self) -> String {
        // The port is spelt out because both would otherwise take it from PGPORT.
        format!("postgres://{NAME}@localhost:{PORT}/{NAME}?host={}", self.sockets.path().display())
    }

    /// What the server has to say, of this run only.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// Waits until the server goes away without being asked to, and says why.
    pub async fn died(&mut self) -> Error {
        // An error here means that it cannot be waited for any more, which is the same news.
        let _ = self.supervisor.wait().await;
        Error::Died { log: self.log(), tail: tail(&self.log()) }
    }

    /// Shuts down in the fast way: open transactions are rolled back, the data is left clean.
    pub async fn stop(mut self) -> Result<(), Error> {
        drop(self.lease.take());
        match timeout(STOP, self.supervisor.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Stop { seconds: STOP.as_secs(), log: self.log() }),
        }
    }

    /// Polls until the server lets us in, then makes sure that the database exists.
    async fn ready(&mut self) -> Result<(), Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(self.sockets.path())
            .port(PORT)
            .username(NAME)
            .database("postgres")
            .disable_statement_logging();
        let deadline = Instant::now() + START;
        let mut connection = loop {
            if let Ok(Some(_)) = self.supervisor.try_wait() {
                return Err(Error::Start { log: self.log(), tail: tail(&self.log()) });
            }
            match PgConnection::connect_with(&options).await {
                Ok(connection) => break connection,
                Err(source) if Instant::now() > deadline => return Err(self.no_entry(source)),
                // No socket yet, or "the database system is starting up".
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let found: Option<i32> = sqlx::query_scalar("select 1 from pg_database where datname = $1")
            .bind(NAME)
            .fetch_optional(&mut connection)
            .await
            .map_err(|source| self.no_entry(source))?;
        if found.is_none() {
            sqlx::raw_sql("create database paperminder")
                .execute(&mut connection)
                .await
                .map_err(|source| self.no_entry(source))?;
        }
        connection.close().await.map_err(|source| self.no_entry(source))
    }

    fn no_entry(&self, source: sqlx::Error) -> Error {
        Error::Connect { log: self.log(), source }
    }
}

/// Everything that a server needs to be spawned.
struct Prepared {
    binaries: Binaries,
    folder: Folder,
    sockets: TempDir,
    log: File,
}

impl Prepared {
    fn new(wanted: &Path) -> Result<Self, Error> {
        let sockets = socket_folder()?;
        // What we create is ours, which tells who we are without a system call that only `unsafe` code can make.
        let me =
            std::fs::metadata(sockets.path()).map_err(|e| Error::io("look at", sockets.path(), e))?.uid();
        let folder = Folder::open(wanted, me)?;
        let binaries = Binaries::find(folder.data_major()?)?;
        let log = folder.open_log()?;
        if folder.data_major()?.is_none() {
            initdb(&binaries, &folder)?;
        }
        if let Some(account) = folder.account {
            chown(sockets.path(), Some(account.uid), Some(account.gid))
                .map_err(|e| Error::io("give away", sockets.path(), e))?;
        }
        Ok(Self { binaries, folder, sockets, log })
    }

    fn spawn(self) -> Result<Postgres, Error> {
        let Self { binaries, folder, sockets, log } = self;
        let failed = |e| Error::io("run", Path::new("/bin/sh"), e);
        let output = log.try_clone().map_err(failed)?;
        let mut command = Command::from(folder.command(Path::new("/bin/sh")));
        command.args(["-c", SUPERVISOR, "sh"]).arg(sockets.path());
        command.arg(binaries.postgres()).arg("-D").arg(folder.data());
        let settings = [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", sockets.path().display()),
            format!("port={PORT}"),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            // Ours is the only log, wherever the installation's defaults would send it.
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
        ];
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        let mut supervisor = command
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let lease = supervisor.stdin.take();
        Ok(Postgres { supervisor, lease, sockets, folder })
    }
}

/// In /tmp and not in `TMPDIR`: a socket's path is limited to some 100 bytes, and macOS' TMPDIR takes half of them.
fn socket_folder() -> Result<TempDir, Error> {
    let sockets = tempfile::Builder::new()
        .prefix("pm-pg-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in("/tmp")
        .map_err(|e| Error::io("create a folder for the socket in", Path::new("/tmp"), e))?;
    Ok(sockets)
}

/// Creates the database in `data.new` and renames it, so that `data` is always a complete one.
fn initdb(binaries: &Binaries, folder: &Folder) -> Result<(), Error> {
    let data = folder.data();
    let fresh = folder.path.join("data.new");
    match std::fs::remove_dir_all(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &fresh, e)),
        _ => {}
    }
    let output = folder
        .command(&binaries.initdb())
        .arg("--pgdata")
        .arg(&fresh)
        .args(["--username", NAME, "--encoding=UTF8", "--locale=C"])
        // The socket's folder is private, and nothing listens anywhere else.
        .args(["--auth-local=trust", "--auth-host=reject", "--no-instructions"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::io("run", &binaries.initdb(), e))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Initdb { data, output });
    }
    std::fs::rename(&fresh, &data).map_err(|e| Error::io("rename the new database to", &data, e))
}

/// The last lines of a log, for an error that people can act on.
fn tail(log: &Path) -> String {
    const BYTES: u64 = 8192;
    const LINES: usize = 12;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
