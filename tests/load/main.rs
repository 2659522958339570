//! `make bench`: what a replica holds and how quick it is, beside a bare WebSocket server in the same run. PostgreSQL,
//! S3 (SeaweedFS), the replica and the bare server are processes of their own; the printers are those of `simulate`, in
//! this one.
//!
//! `PRINTERS` says how many there are, 15,000 unless given: at most what the limit of open files leaves.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be measured ends in a panic"
)]

mod bare;
mod crowd;
#[path = "../it/support/process.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod process;
mod replica;
#[path = "../it/support/weed.rs"]
mod weed;

use std::time::{Duration, Instant};

use comfy_table::Table;
use crowd::Crowd;
use replica::{Replica, Usage};

/// Longest wait for anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);
/// Longest wait for what is measured.
const PATIENCE: Duration = Duration::from_secs(120);
/// Progress messages of each printer.
const PROGRESS: usize = 20;
/// How long the idle fleet is looked at.
const IDLE: Duration = Duration::from_secs(10);

/// What was measured, and what should be.
struct Row {
    name: &'static str,
    bare: Option<String>,
    found: String,
    goal: &'static str,
    met: bool,
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The bare server: connects a second, KiB a socket, seconds until the last was pushed to, its CPU in milliseconds a push.
async fn bare(printers: usize) -> (f64, f64, f64, f64) {
    let program = std::env::current_exe().unwrap();
    let server = replica::Child::start(program, &["bare"]).await;
    let said = async || server.get("/said").await.parse::<usize>().unwrap();
    let before = server.usage();
    let began = Instant::now();
    let crowd = Crowd::connect(&server.url(), printers).await;
    replica::until(async || said().await >= printers).await;
    let connects = rate(printers, began.elapsed());
    let idle = server.usage();
    let pushed = crowd.receive(async || drop(server.get("/push").await)).await;
    let cpu = (server.usage().cpu - idle.cpu).as_secs_f64() * 1e3 / printers as f64;
    let kib = (idle.resident - before.resident) as f64 / printers as f64;
    drop(pushed.0);
    (connects, kib, pushed.1.last.as_secs_f64(), cpu)
}

async fn measure(printers: usize) -> Vec<Row> {
    let (connects, kib, push, cpu) = bare(printers).await;
    let mut replica = Replica::start().await;
    let empty = replica.usage();
    let began = Instant::now();
    let crowd = Crowd::connect(&replica.url(), printers).await;
    replica.until_online(printers).await;
    let connected = rate(printers, began.elapsed());
    let mut rows = vec![Row {
        name: "connect and subscribe, until all rows stand",
        bare: Some(format!("{connects:.0}/s")),
        found: format!("{connected:.0}/s"),
        goal: "≥ 4,000/s",
        met: connected >= 4000.0,
    }];
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = replica.usage();
    let each = (idle.resident - empty.resident) as f64 / printers as f64;
    rows.push(Row {
        name: "resident per idle printer",
        bare: Some(format!("{kib:.1} KiB")),
        found: format!("{each:.1} KiB"),
        goal: "≤ 7 KiB",
        met: each <= 7.0,
    });
    let before = replica.written().await;
    tokio::time::sleep(IDLE).await;
    let writes = (replica.written().await - before) as f64 / IDLE.as_secs_f64();
    rows.push(Row {
        name: "rows written while idle",
        bare: None,
        found: format!("{writes:.1}/s"),
        goal: "≤ 1/s",
        met: writes <= 1.0,
    });
    let idle = replica.usage();
    let (crowd, received) = crowd.receive(async || replica.roll_out().await).await;
    let each = (replica.usage().cpu - idle.cpu).as_secs_f64() * 1e3 / printers as f64;
    let (last, p50, p99) =
        (received.last.as_secs_f64(), received.p50.as_secs_f64(), received.p99.as_secs_f64());
    rows.push(Row {
        name: "push to all, until the last has it (p50, p99)",
        bare: Some(format!("{push:.2} s")),
        found: format!("{last:.2} s ({p50:.2}, {p99:.2})"),
        goal: "≤ 0.6 s",
        met: last <= 0.6,
    });
    rows.push(Row {
        name: "server's CPU per push",
        bare: Some(format!("{cpu:.3} ms")),
        found: format!("{each:.3} ms"),
        goal: "≤ 0.03 ms",
        met: each <= 0.03,
    });
    let began = Instant::now();
    let crowd = crowd
        .say(PROGRESS, |percent| {
            format!(r#"{{"kind":"firmware_progress","percent":{percent},"status":"Downloading"}}"#)
        })
        .await;
    replica.until_said("firmware_progress", printers * PROGRESS).await;
    let progress = rate(printers * PROGRESS, began.elapsed());
    rows.push(Row {
        name: "progress messages taken in",
        bare: None,
        found: format!("{progress:.0}/s"),
        goal: "≥ 30,000/s",
        met: progress >= 30_000.0,
    });
    let began = Instant::now();
    let crowd = crowd.say(1, |_| r#"{"kind":"firmware_failed","error":"HTTP error 404"}"#.to_owned()).await;
    replica.until_failed(printers).await;
    let outcomes = rate(printers, began.elapsed());
    rows.push(Row {
        name: "outcomes committed",
        bare: None,
        found: format!("{outcomes:.0}/s"),
        goal: "≥ 10,000/s",
        met: outcomes >= 10_000.0,
    });
    let before: Usage = replica.usage();
    replica.restart().await;
    let began = Instant::now();
    let crowd = crowd.come_back().await;
    replica.until_online(printers).await;
    let (back, ratio) =
        (began.elapsed().as_secs_f64(), replica.usage().resident as f64 / before.resident as f64);
    rows.push(Row {
        name: "all back after a SIGKILL of the only replica (resident)",
        bare: None,
        found: format!("{back:.1} s ({ratio:.2} ×)"),
        goal: "≤ 15 s (1.3 ×)",
        met: back <= 15.0 && ratio <= 1.3,
    });
    drop(crowd);
    rows
}

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == "bare") {
        return bare::run().await;
    }
    #[expect(clippy::disallowed_methods, reason = "there is no configuration here")]
    let printers =
        std::env::var("PRINTERS").map_or(15_000, |count| count.parse().expect("PRINTERS is a number"));
    let rows = measure(printers).await;
    let mut table = Table::new();
    table.set_header(["", "bare server", "one replica", "goal"]);
    for Row { name, bare, found, goal, met } in rows {
        let goal = format!("{goal} {}", if met { "met" } else { "missed" });
        table.add_row([name.to_owned(), bare.unwrap_or_default(), found, goal]);
    }
    let cores = std::thread::available_parallelism().unwrap();
    println!("{printers} printers, {cores} cores");
    println!("{table}");
}
