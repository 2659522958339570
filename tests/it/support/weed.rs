//! SeaweedFS: an S3 server that shares no code with ours or with the SDK. `scripts/setup test` installs it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::process::Leash;

/// A cold start beside a compiler takes a while.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// One server with its data in a folder of its own; both are gone when it is dropped, or the process dies.
pub struct Weed {
    child: std::process::Child,
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    _leash: Leash,
    folder: TempDir,
}

/// Access key and secret key of an identity that may do everything.
pub const ADMIN: (&str, &str) = ("ADMINADMINADMINADMIN", "the secret of the one who may do everything");
/// The bucket whose objects everybody may read, and nobody list.
pub const PUBLIC_BUCKET: &str = "public";
/// Of one that may only read.
pub const READER: (&str, &str) = ("READERREADERREADERRE", "the secret of the one who may only read");

impl Weed {
    /// Starts it and waits until S3 answers.
    pub async fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/weed");
        assert!(program.exists(), "SeaweedFS is missing in .tools/: run scripts/setup test");
        let folder = tempfile::tempdir().unwrap();
        let identity = |name: &str, (id, secret): (&str, &str), actions: &[&str]| json!({"name": name, "credentials": [{"accessKey": id, "secretKey": secret}], "actions": actions});
        let identities = json!({"identities": [
            identity("admin", ADMIN, &["Admin", "Read", "List", "Tagging", "Write"]),
            identity("reader", READER, &["Read", "List"]),
            // Whoever shows no key: a CDN, for one.
            {"name": "anonymous", "actions": [format!("Read:{PUBLIC_BUCKET}")]},
        ]});
        let config = folder.path().join("identities.json");
        std::fs::write(&config, identities.to_string()).unwrap();
        let ports = free_ports::<8>();
        let port = |flag: &str, index: usize| format!("-{flag}={}", ports[index]);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .arg(format!("-dir={}", folder.path().display()))
            .args([port("master.port", 0), port("master.port.grpc", 1)])
            .args([port("volume.port", 2), port("volume.port.grpc", 3)])
            .args([port("filer.port", 4), port("filer.port.grpc", 5)])
            .args([port("s3.port", 6), port("s3.port.grpc", 7)])
            .args([
                "-s3",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-s3.iam=false",
                "-master.telemetry=false",
            ])
            .arg(format!("-s3.config={}", config.display()))
            // Small volumes, and enough of them: each bucket takes one of its own.
            .args(["-volume.max=100", "-master.volumeSizeLimitMB=1024", "-volume.minFreeSpace=0"])
            // Without it there is no server-side encryption.
            .env("WEED_S3_SSE_KEY", "the passphrase of the keys of all objects")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let leash = Leash::on(child.id(), Some(folder.path()));
        let mut weed =
            Self { child, endpoint: format!("http://127.0.0.1:{}", ports[6]), _leash: leash, folder };
        weed.wait_until_up().await;
        weed
    }

    async fn wait_until_up(&mut self) {
        let deadline = Instant::now() + STARTS_WITHIN;
        // Without a key it answers 403, as soon as it answers.
        while reqwest::get(&self.endpoint).await.map_or(true, |answer| answer.status().is_server_error()) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "SeaweedFS {ended:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that nobody listens on. All are held until all are found, so that they differ.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
