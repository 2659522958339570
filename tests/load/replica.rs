//! The servers that are measured, each a process, and what they use.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use paperminder_ota::db;
use paperminder_ota::simulate::image::esp8266_image;
use reqwest::multipart::{Form, Part};
use serde_json::json;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::PATIENCE;
use super::process::ServeProcess;
use super::weed::{self, Weed};

/// What a process used so far.
#[derive(Clone, Copy)]
pub struct Usage {
    /// KiB that it holds.
    pub resident: u64,
    /// Time that it kept a core busy, in steps of a hundredth of a second.
    pub cpu: Duration,
}

fn usage(pid: u32) -> Usage {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = line.trim().trim_end_matches(" kB").parse().unwrap();
    let stat = read("stat");
    // Behind the name, which may hold anything: `utime` and `stime` are fields 14 and 15 of the line.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    let cpu = Duration::from_millis(10 * fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>());
    Usage { resident, cpu }
}

/// Looks until it is so.
pub async fn until(so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < PATIENCE, "it is not so within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A program that says its address on its first line.
pub struct Child {
    address: String,
    pid: u32,
    _child: tokio::process::Child,
}

impl Child {
    pub async fn start(program: PathBuf, arguments: &[&str]) -> Self {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next_line().await.unwrap().unwrap();
        Self { address, pid: child.id().unwrap(), _child: child }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn get(&self, path: &str) -> String {
        reqwest::get(format!("{}{path}", self.url())).await.unwrap().text().await.unwrap()
    }

    pub fn usage(&self) -> Usage {
        usage(self.pid)
    }
}

/// Replicas on PostgreSQL and S3.
pub struct Replicas {
    servers: Vec<Option<ServeProcess>>,
    settings: Vec<(&'static str, String)>,
    pool: PgPool,
    client: reqwest::Client,
    _weed: Weed,
}

impl Replicas {
    /// So many, on an empty database.
    pub async fn start(count: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "there is no configuration here")]
        let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set by `make bench`");
        let pool = PgPool::connect(&url).await.unwrap();
        sqlx::raw_sql("drop schema public cascade; create schema public").execute(&pool).await.unwrap();
        db::migrate(&pool).await.unwrap();
        let weed = Weed::start().await;
        let (id, secret) = weed::ADMIN;
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(id, secret, None, None, "bench"))
            .endpoint_url(&weed.endpoint)
            .force_path_style(true);
        Client::from_conf(config.build()).create_bucket().bucket("firmware").send().await.unwrap();
        let settings = vec![
            ("DATABASE_URL", url),
            ("AWS_ENDPOINT_URL_S3", weed.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            // All printers are this machine, and nothing else holds them back.
            ("CONNECTS_PER_SECOND", "1000000".to_owned()),
            ("CONNECTS_PER_ADDRESS", "1000000".to_owned()),
            ("MAX_ATTEMPTS", "1".to_owned()),
        ];
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(Some(ServeProcess::start(&borrowed(&settings)).await));
        }
        Self { servers, settings, pool, client: reqwest::Client::new(), _weed: weed }
    }

    fn alive(&self) -> impl Iterator<Item = &ServeProcess> {
        self.servers.iter().flatten()
    }

    fn url(&self, path: &str) -> String {
        self.alive().next().expect("one of them lives").url(path)
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.alive().map(|server| server.address).collect()
    }

    /// Of all together.
    pub fn usage(&self) -> Usage {
        let sum =
            |all: Usage, one: Usage| Usage { resident: all.resident + one.resident, cpu: all.cpu + one.cpu };
        self.alive().map(|server| usage(server.pid)).reduce(sum).expect("one of them lives")
    }

    pub async fn upload(&self, version: &'static str) {
        let file = Part::bytes(esp8266_image(512 << 10, 1)).file_name("firmware.bin");
        let form = Form::new().text("version", version).part("file", file);
        let answer = self.client.post(self.url("/api/firmware/upload")).multipart(form);
        assert_eq!(answer.send().await.unwrap().status(), 201);
    }

    /// Offers a release to everyone at once.
    pub async fn roll_out(&self, version: &str) {
        let body = json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "immediate"});
        let answer = self.client.post(self.url("/api/rollouts")).json(&body);
        assert_eq!(answer.send().await.unwrap().status(), 201);
    }

    /// A number that the database knows.
    pub async fn count(&self, sql: &'static str) -> usize {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool).await.unwrap() as usize
    }

    /// Until so many are connected to a replica that lives.
    pub async fn until_online(&self, printers: usize) {
        let alive: Vec<_> = self.alive().map(|server| server.address.to_string()).collect();
        assert!(!alive.is_empty());
        // Those that were killed have their lease for a while.
        let sql = "select count(*) from presence p join \
             (select id from replicas order by lease_until desc limit $1) r on r.id = p.replica";
        let online = async || {
            let count =
                sqlx::query_scalar::<_, i64>(sql).bind(alive.len() as i64).fetch_one(&self.pool).await;
            count.unwrap() as usize
        };
        until(async || online().await >= printers).await;
    }

    pub async fn until_failed(&self, printers: usize) {
        let sql = "select count(*) from update_history where status = 'failed'";
        until(async || self.count(sql).await >= printers).await;
    }

    /// Until so many messages of a kind were taken in.
    pub async fn until_said(&self, kind: &str, count: usize) {
        let name = format!("paperminder_messages_total{{kind=\"{kind}\"}} ");
        until(async || {
            let mut said = 0;
            for server in self.alive() {
                let url = format!("http://{}/metrics", server.internal);
                let metrics = self.client.get(&url).send().await.unwrap().text().await.unwrap();
                let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
                said += line.map_or(0, |said| said.parse::<usize>().unwrap());
            }
            said >= count
        })
        .await;
    }

    /// Rows written so far, by table.
    pub async fn written(&self) -> HashMap<String, i64> {
        let mut conn = self.pool.acquire().await.unwrap();
        // What sessions have counted reaches the views within a second of their rest.
        sqlx::query("select pg_stat_clear_snapshot()").execute(&mut *conn).await.unwrap();
        let sql = "select relname::text, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables";
        sqlx::query_as(sql).fetch_all(&mut *conn).await.unwrap().into_iter().collect()
    }

    /// SIGKILL to one, and another starts in its place, as Kubernetes would do it.
    pub async fn restart(&mut self, index: usize) {
        let server = self.servers[index].take().expect("it lives");
        let address = server.address.to_string();
        server.kill().await;
        let settings = [borrowed(&self.settings), vec![("LISTEN_ADDR", address.as_str())]].concat();
        self.servers[index] = Some(ServeProcess::start(&settings).await);
    }
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
