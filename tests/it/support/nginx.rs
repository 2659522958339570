//! nginx: as a caching proxy before a bucket, which is what a CDN is to a printer, or as it is configured.
//! `scripts/setup test` installs it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::process::Leash;
use super::weed::free_ports;
use super::{SOON, raw};

/// One process with its configuration and its cache in a folder of its own, as whoever runs the test; both are gone
/// when it is dropped, or the process dies.
pub struct Nginx {
    child: std::process::Child,
    /// `http://127.0.0.1:port`.
    pub url: String,
    _leash: Leash,
    folder: TempDir,
}

/// A download as nginx saw it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// `HIT`, or `MISS` when the bucket was asked.
    pub cache: String,
    pub status: u16,
    pub bytes: u64,
    /// With its query.
    pub uri: String,
}

/// A single process, so that its end is the end of it. What the cache knows an object by is its path alone: the query
/// is a printer's signature, and the bucket is asked without one.
const CONFIG: &str = r#"
daemon off;
master_process off;
pid pid;
error_log log;
events {}
http {
  default_type application/octet-stream;
  client_body_temp_path body;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  proxy_temp_path proxy;
  proxy_cache_path cache keys_zone=images:1m inactive=1d;
  log_format served "$upstream_cache_status $status $body_bytes_sent $request_uri";
  access_log served served;
  map $request_uri $object { "~^(?<path>[^?]+)" $path; }
  server {
    listen 127.0.0.1:PORT;
    location /firmware/ {
      proxy_pass ORIGIN$object;
      proxy_http_version 1.1;
      proxy_cache images;
      proxy_cache_key $object;
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
      add_header X-Cache-Status $upstream_cache_status always;
    }
  }
}
"#;

impl Nginx {
    /// Starts it before the bucket at `origin`, as in `http://host:port/bucket`, and waits until it answers.
    pub async fn before(origin: &str) -> Self {
        Self::start(&CONFIG.replace("ORIGIN", origin)).await
    }

    /// Starts it on a free port, which stands in the configuration as `PORT`, and waits until it answers.
    pub async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let config = config.replace("PORT", &port.to_string());
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let child = Command::new(program())
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf", "-e", "log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let leash = Leash::on(child.id(), Some(folder.path()));
        let mut nginx = Self { child, url: format!("http://127.0.0.1:{port}"), _leash: leash, folder };
        let deadline = Instant::now() + SOON;
        while reqwest::get(&nginx.url).await.is_err() {
            let ended = nginx.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "nginx {ended:?}: {}", nginx.file("log"));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        nginx
    }

    /// GET as the ESP8266's updater does it.
    pub async fn fetch(&self, url: &str) -> raw::Reply {
        let path = url.strip_prefix(&self.url).unwrap();
        let address = self.url.strip_prefix("http://").unwrap().parse().unwrap();
        raw::ask(address, "GET", path, "HTTP/1.0", "User-Agent: ESP8266-http-Update\r\nConnection: close\r\n")
            .await
    }

    /// The downloads so far, sorted.
    pub fn served(&self) -> Vec<Served> {
        let log = self.file("served");
        let line = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            let [cache, status, bytes, uri] = words[..] else { panic!("{line}") };
            let (status, bytes) = (status.parse().unwrap(), bytes.parse().unwrap());
            Served { cache: cache.into(), status, bytes, uri: uri.into() }
        };
        let mut served: Vec<_> =
            log.lines().map(line).filter(|served| served.uri.starts_with("/firmware/")).collect();
        served.sort();
        served
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian keeps it where only root looks.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut programs = folders.map(|folder| folder.join("nginx"));
    programs.find(|program| program.exists()).expect("nginx is missing: run scripts/setup test")
}
