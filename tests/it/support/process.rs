//! Programs that a test runs, and that never outlive it: not a panic, not a `kill -9` of the test itself.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sqlx::{ConnectOptions as _, PgPool};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;
use tokio::time::timeout;

use super::SOON;

/// Lines of a program's log that are kept for a failing test to show.
const KEPT_LINES: usize = 200;

/// Kills a process and removes a folder when we are gone, however we go: a shell waits on a pipe that the kernel
/// closes with us.
pub struct Leash(Child);

impl Leash {
    /// On this process and, when given, its folder.
    pub fn on(pid: u32, folder: Option<&std::path::Path>) -> Self {
        let folder = folder.map_or_else(String::new, |folder| folder.display().to_string());
        let shell = Command::new("sh")
            .args(["-c", r#"trap "" INT TERM HUP; read -r _ || kill -9 "$1"; [ -z "$2" ] || rm -rf "$2""#])
            .args(["leash", &pid.to_string(), &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(shell)
    }
}

impl Drop for Leash {
    /// The process has ended and its number may be somebody else's by now: only the folder goes.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = writeln!(pipe);
        }
        let _ = self.0.wait();
    }
}

/// `paperminder-ota serve` as a process of its own, on free ports.
pub struct ServeProcess {
    child: tokio::process::Child,
    /// Its number.
    pub pid: u32,
    log: Arc<Mutex<Vec<String>>>,
    /// REST and sockets.
    pub address: SocketAddr,
    /// Health and metrics.
    pub internal: SocketAddr,
    _leash: Leash,
}

impl ServeProcess {
    /// Starts it and waits until it serves. Only these settings are in its environment, besides free ports,
    /// `AUTH=off` and JSON logs, which they may replace.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"));
        command
            .arg("serve")
            .env_clear()
            .envs([("LISTEN_ADDR", "127.0.0.1:0"), ("INTERNAL_ADDR", "127.0.0.1:0"), ("AUTH", "off")])
            .envs([("LOG_FORMAT", "json"), ("DRAIN_SECONDS", "0")])
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let pid = child.id().unwrap();
        let leash = Leash::on(pid, None);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (announce, mut announced) = watch::channel(None);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn({
            let log = log.clone();
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Some(addresses) = addresses(&line) {
                        let _ = announce.send(Some(addresses));
                    }
                    let mut log = log.lock().unwrap();
                    log.push(line);
                    let surplus = log.len().saturating_sub(KEPT_LINES);
                    log.drain(..surplus);
                }
            }
        });
        let serving = timeout(SOON, announced.wait_for(Option::is_some)).await;
        let Ok(Ok(Some((address, internal)))) = serving.map(|found| found.map(|found| *found)) else {
            panic!("the server does not start:\n{}", log.lock().unwrap().join("\n"));
        };
        Self { child, pid, log, address, internal, _leash: leash }
    }

    /// `http://host:port` of REST.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its last log lines, for a failing test to show.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// `VmHWM`: the most memory that it ever held, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// `kill -9`: nothing of it runs any more when this returns.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(self) -> ExitStatus {
        self.ask_to_end();
        self.ended().await
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        signal(self.pid, "TERM");
    }

    /// Stops it where it stands, as a machine does that is short of everything. Its sockets stay.
    pub fn freeze(&self) {
        signal(self.pid, "STOP");
    }

    /// It goes on as if nothing had been.
    pub fn thaw(&self) {
        signal(self.pid, "CONT");
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> ExitStatus {
        let ended = timeout(SOON + Duration::from_secs(10), self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("the server does not end:\n{}", self.log())).unwrap()
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -$1 $2", "sh", name, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// REST's address and the internal one, when this is the line that tells them.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    if line["message"] == "serving" { Some((address("address")?, address("internal")?)) } else { None }
}

/// The role that servers of tests run as.
const ROLE: &str = "paperminder_server";

/// `DATABASE_URL` of a test's database for a server, which may do there only what it needs.
pub async fn server_url(pool: &PgPool) -> String {
    let mut tx = pool.begin().await.unwrap();
    // Roles belong to all databases, and tests run beside each other.
    sqlx::query("select pg_advisory_xact_lock(7)").execute(&mut *tx).await.unwrap();
    sqlx::query(
        "do $$ begin create role paperminder_server login; exception when duplicate_object or unique_violation then null; end $$",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    paperminder_ota::db::grant(&mut tx, ROLE).await.unwrap();
    tx.commit().await.unwrap();
    pool.connect_options().as_ref().clone().username(ROLE).to_url_lossy().to_string()
}

/// `DATABASE_URL` of a test's database, for its owner.
pub fn database_url(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}
