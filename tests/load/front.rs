//! nginx in front of the replicas.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::nginx::Nginx;

/// Printers before one nginx: each takes two files of it, and there may be 20,000.
pub const ROOM: usize = 9000;

const CONFIG: &str = "
daemon off;
master_process off;
pid pid;
error_log log;
events { worker_connections 19000; }
http {
  access_log off;
  client_body_temp_path body;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  proxy_temp_path proxy;
  upstream replicas { least_conn; REPLICAS }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    location / {
      proxy_pass http://replicas;
      proxy_bind SOURCE;
      proxy_connect_timeout 2s;
      proxy_next_upstream error timeout http_503;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_read_timeout 1h;
      proxy_buffer_size 4k;
      proxy_buffers 2 4k;
      proxy_busy_buffers_size 4k;
    }
  }
}
";

/// One process, which gives each printer to the replica with the fewest, as far as it knows: one that is full refuses at
/// once, so it seems to have room, and what it refuses goes to the next. Each has a local address of its own: it is slow to
/// find the last free ports of one.
pub async fn before(replicas: &[SocketAddr], index: usize) -> Nginx {
    let mut upstream = String::new();
    for replica in replicas {
        write!(upstream, "server {replica} max_fails=1 fail_timeout=2s; ").unwrap();
    }
    let source = format!("127.0.2.{}", 1 + index);
    Nginx::start(&CONFIG.replace("REPLICAS", &upstream).replace("SOURCE", &source)).await
}
