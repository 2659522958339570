//! `make bench`: what replicas hold and how quick they are, beside a bare WebSocket server in the same run. PostgreSQL,
//! S3 (SeaweedFS), the replicas, nginx in front of three of them, the bare server and the printers, which are those of
//! `simulate`, are processes of their own.
//!
//! `PRINTERS` says how many there are on a replica, 15,000 unless given: at most what the limit of open files leaves.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be measured ends in a panic"
)]

mod bare;
mod client;
mod crowd;
mod front;
#[path = "../it/support/nginx.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod nginx;
#[path = "../it/support/process.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod process;
#[path = "../it/support/raw.rs"]
#[expect(dead_code, reason = "nginx of the tests uses it")]
mod raw;
mod replica;
#[path = "../it/support/weed.rs"]
mod weed;

use std::time::{Duration, Instant};

use comfy_table::Table;
use crowd::Crowd;
use replica::Replicas;

/// Longest wait for anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);
/// Longest wait for what is measured.
const PATIENCE: Duration = Duration::from_secs(180);
/// Progress messages of each printer.
const PROGRESS: usize = 20;
/// Until memory that was freed is given back, and PostgreSQL's sessions have said what they wrote: after 10 s of rest.
const SETTLED: Duration = Duration::from_secs(15);
/// How long the idle fleet is looked at.
const IDLE: Duration = Duration::from_secs(20);
/// Replicas behind nginx.
const REPLICAS: usize = 3;

const FAILED: &str = r#"{"kind":"firmware_failed","error":"HTTP error 404"}"#;

/// One row of the table.
struct Row {
    name: &'static str,
    bare: Option<String>,
    one: Option<String>,
    three: Option<String>,
    /// What one replica should reach, and whether it does; of three where one has no such figure.
    goal: &'static str,
    met: Option<bool>,
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// What the bare server does.
struct Bare {
    connects: f64,
    /// KiB a socket.
    kib: f64,
    push: Duration,
    /// Of the server, in milliseconds a push.
    cpu: f64,
}

async fn bare(printers: usize) -> Bare {
    let program = std::env::current_exe().unwrap();
    let server = replica::Child::start(program, &["bare"]).await;
    let said = async || server.get("/said").await.parse::<usize>().unwrap();
    let before = server.usage();
    let began = Instant::now();
    let mut crowd = Crowd::connect(&[server.url()], printers).await;
    replica::until(async || said().await >= printers).await;
    let connects = rate(printers, began.elapsed());
    let idle = server.usage();
    let pushed = crowd.receive(async || drop(server.get("/push").await)).await;
    let cpu = (server.usage().cpu - idle.cpu).as_secs_f64() * 1e3 / printers as f64;
    let kib = (idle.resident - before.resident) as f64 / printers as f64;
    Bare { connects, kib, push: pushed.last, cpu }
}

/// What replicas do.
struct Found {
    connects: f64,
    kib: f64,
    idle: Vec<(String, f64)>,
    push: crowd::Received,
    cpu: f64,
    progress: f64,
    outcomes: f64,
    /// Time until all were back, or had an offer, after the end of one replica.
    back: Duration,
    /// When they had their offer of the rollout that the end of a replica interrupted.
    after: Option<crowd::Received>,
    /// KiB then, of those before.
    ratio: f64,
    offers: usize,
}

/// Printers come before each of these servers, are offered a release, tell how it goes, and say no; then one replica is
/// killed.
async fn measure(mut replicas: Replicas, servers: &[String], each: usize) -> Found {
    let printers = servers.len() * each;
    replicas.upload("1.5.0").await;
    replicas.upload("1.6.0").await;
    let empty = replicas.usage();
    let began = Instant::now();
    let mut crowd = Crowd::connect(servers, each).await;
    replicas.until_online(printers).await;
    let connects = rate(printers, began.elapsed());
    say(&format!("  {printers} are connected, {connects:.0}/s"));
    tokio::time::sleep(SETTLED).await;
    let kib = (replicas.usage().resident - empty.resident) as f64 / printers as f64;
    let before = replicas.written().await;
    tokio::time::sleep(IDLE).await;
    let per_second = |(table, written): (String, i64)| {
        let more = written - before.get(&table).unwrap_or(&0);
        (table, more as f64 / IDLE.as_secs_f64())
    };
    let mut idle: Vec<_> = replicas.written().await.into_iter().map(per_second).collect();
    idle.retain(|(_, rate)| *rate > 0.0);

    say(&format!("  idle, {kib:.1} KiB each"));
    let resting = replicas.usage();
    let push = crowd.receive(async || replicas.roll_out("1.5.0").await).await;
    let cpu = (replicas.usage().cpu - resting.cpu).as_secs_f64() * 1e3 / printers as f64;
    let offers = replicas.count("select count(*) from update_history where sends = 1").await;
    assert_eq!((offers, push.twice), (printers, 0), "every printer gets exactly one offer");
    say(&format!("  all have an offer after {}, {cpu:.3} ms of the servers each", pushed(&push)));

    let began = Instant::now();
    crowd.say(PROGRESS, r#"{"kind":"firmware_progress","percent":{n},"status":"Downloading"}"#).await;
    replicas.until_said("firmware_progress", printers * PROGRESS).await;
    let progress = rate(printers * PROGRESS, began.elapsed());
    say(&format!("  progress, {progress:.0}/s"));
    let began = Instant::now();
    crowd.say(1, FAILED).await;
    replicas.until_failed(printers).await;
    let outcomes = rate(printers, began.elapsed());

    say(&format!("  outcomes, {outcomes:.0}/s"));
    let before = replicas.usage();
    let alone = replicas.addresses().len() == 1;
    let (mut began, mut after) = (Instant::now(), None);
    if alone {
        replicas.restart(0).await;
        began = Instant::now();
        replicas.until_online(printers).await;
    } else {
        let offered = "select count(*) from update_history where firmware_version = '1.6.0'";
        let killed = crowd.receive(async || {
            replicas.roll_out("1.6.0").await;
            replica::until(async || replicas.count(offered).await > printers / 10).await;
            began = Instant::now();
            replicas.restart(1).await;
        });
        let killed = killed.await;
        say(&format!(
            "  half of them had their offer after {}, 99 of 100 after {}",
            seconds(killed.p50),
            seconds(killed.p99)
        ));
        after = Some(killed);
        let twice = "select count(*) from (select 1 from update_history where firmware_version = '1.6.0' group by printer having count(*) > 1) t";
        assert_eq!(replicas.count(twice).await, 0, "nobody gets two offers");
    }
    let back = began.elapsed();
    let ratio = replicas.usage().resident as f64 / before.resident as f64;
    say(&format!("  after the end of a replica all is well in {}", seconds(back)));
    Found { connects, kib, idle, push, cpu, progress, outcomes, back, after, ratio, offers }
}

/// What happens, for whoever waits.
fn say(what: &str) {
    eprintln!("… {what}");
}

/// Three replicas, with nginx in front of them.
async fn three(printers: usize) -> Found {
    say("three replicas behind nginx");
    let three = Replicas::start(REPLICAS).await;
    let all = REPLICAS * printers;
    let mut fronts = Vec::new();
    for index in 0..all.div_ceil(front::ROOM) {
        fronts.push(front::before(&three.addresses(), index).await);
    }
    let urls: Vec<_> = fronts.iter().map(|front| front.url.clone()).collect();
    measure(three, &urls, all / urls.len()).await
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn pushed(push: &crowd::Received) -> String {
    format!("{} (p50 {}, p99 {})", seconds(push.last), seconds(push.p50), seconds(push.p99))
}

fn rows(bare: &Bare, one: &Found, three: &Found) -> Vec<Row> {
    let idle = |found: &Found| found.idle.iter().map(|(_, rate)| rate).sum::<f64>();
    let each = |found: &Found| found.push.last.as_secs_f64() / found.offers as f64;
    vec![
        Row {
            name: "connect and subscribe, until all rows stand",
            bare: Some(format!("{:.0}/s", bare.connects)),
            one: Some(format!("{:.0}/s", one.connects)),
            three: Some(format!("{:.0}/s", three.connects)),
            goal: "≥ 4,000/s",
            met: Some(one.connects >= 4000.0),
        },
        Row {
            name: "resident per idle printer",
            bare: Some(format!("{:.1} KiB", bare.kib)),
            one: Some(format!("{:.1} KiB", one.kib)),
            three: Some(format!("{:.1} KiB", three.kib)),
            goal: "≤ 7 KiB",
            met: Some(one.kib <= 7.0),
        },
        Row {
            name: "rows written while idle",
            bare: None,
            one: Some(format!("{:.2}/s", idle(one))),
            three: Some(format!("{:.2}/s", idle(three))),
            goal: "≤ 1/s a replica",
            met: Some(idle(one) <= 1.0),
        },
        Row {
            name: "push to all, each claimed, until the last has it",
            bare: Some(seconds(bare.push)),
            one: Some(pushed(&one.push)),
            three: Some(pushed(&three.push)),
            goal: "≤ 0.6 s",
            met: Some(one.push.last.as_secs_f64() <= 0.6),
        },
        Row {
            name: "the same a printer",
            bare: None,
            one: Some(format!("{:.3} ms", each(one) * 1e3)),
            three: Some(format!("{:.3} ms", each(three) * 1e3)),
            goal: "three ≤ 1.5 × one",
            met: Some(each(three) <= 1.5 * each(one)),
        },
        Row {
            name: "servers' CPU per push",
            bare: Some(format!("{:.3} ms", bare.cpu)),
            one: Some(format!("{:.3} ms", one.cpu)),
            three: Some(format!("{:.3} ms", three.cpu)),
            goal: "≤ 0.03 ms",
            met: Some(one.cpu <= 0.03),
        },
        Row {
            name: "progress messages taken in",
            bare: None,
            one: Some(format!("{:.0}/s", one.progress)),
            three: Some(format!("{:.0}/s", three.progress)),
            goal: "≥ 30,000/s",
            met: Some(one.progress >= 30_000.0),
        },
        Row {
            name: "outcomes committed",
            bare: None,
            one: Some(format!("{:.0}/s", one.outcomes)),
            three: Some(format!("{:.0}/s", three.outcomes)),
            goal: "≥ 10,000/s",
            met: Some(one.outcomes >= 10_000.0),
        },
        Row {
            name: "all back after a SIGKILL and restart of the only replica (resident)",
            bare: None,
            one: Some(format!("{} ({:.2} ×)", seconds(one.back), one.ratio)),
            three: None,
            goal: "≤ 15 s (1.3 ×)",
            met: Some(one.back.as_secs() < 15 && one.ratio <= 1.3),
        },
        Row {
            name: "SIGKILL and restart of one of three in the middle of a rollout, until the last has its offer",
            bare: None,
            one: None,
            three: three.after.as_ref().map(pushed),
            goal: "",
            met: None,
        },
    ]
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => return bare::run().await,
        Some("client") => return client::run(&arguments[1..]).await,
        _ => {}
    }
    #[expect(clippy::disallowed_methods, reason = "there is no configuration here")]
    let printers =
        std::env::var("PRINTERS").map_or(15_000, |count| count.parse().expect("PRINTERS is a number"));
    say("a bare server");
    let bare = bare(printers).await;
    say("one replica");
    let one = Replicas::start(1).await;
    let url = format!("http://{}", one.addresses()[0]);
    let one = measure(one, &[url], printers).await;
    let three = three(printers).await;

    let mut table = Table::new();
    table.set_header(["", "bare server", "one replica", "three behind nginx", "goal"]);
    for row in rows(&bare, &one, &three) {
        let verdict = match row.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let goal = format!("{} {verdict}", row.goal);
        let cell = Option::unwrap_or_default;
        table.add_row([row.name.to_owned(), cell(row.bare), cell(row.one), cell(row.three), goal]);
    }
    let cores = std::thread::available_parallelism().unwrap();
    println!("{printers} printers a replica, {cores} cores; written while idle: {:?}", one.idle);
    println!("{table}");
}
