//! The blast radius: how far a bad release gets before its rollout stops by itself, on a fleet of 10,000 printers and a
//! clock that the test moves. The printers are lines of a replica of their own without the wires: everything but TCP is
//! the real thing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt as _, stream};
use paperminder_ota::clock::{Clock, Time};
use paperminder_ota::ids::{PrinterRef, ReplicaId, UpdateId};
use paperminder_ota::printers::{self, Arrival, Cohort, Downloads, Facts, Subscription};
use paperminder_ota::push::{Fence, Hub, Line, Out};
use paperminder_ota::rollouts::plan::Template;
use paperminder_ota::rollouts::{Depth, Engine, Known, Parts, Steward, look};
use paperminder_ota::storage::{Delivery, Mode};
use paperminder_ota::updates::{self, Back, Remembered};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::path;
use crate::support::Server;

const PRINTERS: usize = 10_000;
/// From one look to the next.
const TICK: Duration = Duration::from_secs(30);
/// From the offer to the reconnect: a download of some 20 s, a reboot, and the next tick.
const INSTALLS: TimeDelta = TimeDelta::seconds(45);

type Queue = mpsc::Receiver<Out>;

/// What the release does.
#[derive(Clone, Copy, Debug)]
struct Bricks {
    /// One of so many printers never comes back; 0: none.
    one_of: usize,
}

struct Fleet {
    pool: PgPool,
    clock: Clock,
    replica: ReplicaId,
    hub: Arc<Hub<Known>>,
    engine: Arc<Engine>,
    queues: HashMap<usize, Queue>,
    refs: HashMap<PrinterRef, usize>,
    /// Who comes back when.
    installing: Vec<(Time, usize)>,
    bricked: HashSet<usize>,
}

fn arrives(index: usize, version: &str) -> Arrival {
    Arrival { said: says(index, version), connection: None, ip: [127, 0, 0, 1].into(), shared_key: false }
}

fn says(index: usize, version: &str) -> Subscription {
    Subscription {
        printer_id: format!("printer-{index}").parse().unwrap(),
        user_id: "user".parse().unwrap(),
        name: None,
        platform: Default::default(),
        version: version.to_owned().into(),
        auto_update: true,
        channel: Default::default(),
        downloads: Downloads::default(),
        time_zone: None,
        credential: None,
    }
}

impl Fleet {
    async fn start(server: &Server, clock: &Clock) -> Self {
        let state = &server.app().state;
        let hub = Arc::new(Hub::default());
        let (engine, _) = Engine::new(Parts {
            pool: state.pool.clone(),
            replica: state.replica,
            hub: hub.clone(),
            fence: Fence::default(),
            delivery: Delivery::new(state.uploads.store.clone(), Mode::Presigned, clock.clone()),
            base_url: state.base_url.clone(),
            max_url_length: 4096,
            steward: Arc::new(Steward::default()),
            clock: clock.clone(),
            backoff: Duration::from_secs(30),
        });
        let mut fleet = Self {
            pool: server.pool.clone(),
            clock: clock.clone(),
            replica: state.replica,
            hub,
            engine,
            queues: HashMap::new(),
            refs: HashMap::new(),
            installing: Vec::new(),
            bricked: HashSet::new(),
        };
        fleet.appear().await;
        fleet
    }

    /// All printers, as if they had subscribed before: 10,000 rows at once.
    async fn appear(&mut self) {
        let says: Vec<_> = (0..PRINTERS).map(|index| says(index, "1.4.0")).collect();
        let ids: Vec<_> = says.iter().map(|_| PrinterRef::generate()).collect();
        let buckets: Vec<_> = says.iter().map(|said| printers::bucket(&said.printer_id)).collect();
        let connections: Vec<i64> = sqlx::query_scalar(
            "with known as ( \
                 insert into printers (id, printer_id, user_id, bucket, firmware_version, version_key) \
                 select id, printer_id, 'user', bucket, '1.4.0', $4 \
                 from unnest($1::uuid[], $2::text[], $3::smallint[]) as p (id, printer_id, bucket) returning id, number) \
             insert into presence (printer, number, connection, replica) \
             select id, number, nextval('printer_connections'), $5 from known returning connection",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(says.iter().map(|said| said.printer_id.to_string()).collect::<Vec<_>>())
        .bind(buckets.iter().copied().map(i16::from).collect::<Vec<_>>())
        .bind(says[0].version.key())
        .bind(self.replica.0)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        for (index, said) in says.into_iter().enumerate() {
            let facts = Facts {
                printer: ids[index],
                printer_id: said.printer_id,
                user_id: said.user_id,
                bucket: buckets[index],
                cohort: Cohort {
                    platform: said.platform,
                    version: said.version,
                    auto_update: said.auto_update,
                    channel: said.channel,
                    installed: None,
                },
                previous: None,
                downloads: said.downloads,
                time_zone: None,
                shared_key: false,
            };
            self.hold(index, connections[index], Known::new(facts, Remembered::default()));
        }
    }

    /// A line, as a socket that subscribed has one.
    fn hold(&mut self, index: usize, connection: i64, known: Known) {
        let printer = known.facts.printer;
        let (line, queue) = Line::new(printer, connection, known);
        self.refs.insert(printer, index);
        assert!(self.hub.insert(line));
        self.queues.insert(index, queue);
    }

    /// Printers subscribe, and what they run settles their update.
    async fn connect(&mut self, printers: Vec<usize>, version: &str) {
        let (pool, replica, now) = (&self.pool, self.replica, self.clock.now());
        let chunks: Vec<_> = printers.chunks(100).map(<[_]>::to_vec).collect();
        let lines = stream::iter(chunks).map(async |chunk| {
            let mut tx = pool.begin().await.unwrap();
            let arrivals: Vec<_> = chunk.iter().map(|index| arrives(*index, version)).collect();
            let printers = printers::subscribe(&mut tx, &arrivals, replica, now).await.unwrap();
            let printers: Vec<_> = printers.into_iter().map(Option::unwrap).collect();
            let back = printers.iter().zip(&arrivals).map(|(printer, arrival)| Back {
                printer: printer.facts.printer,
                runs: &arrival.said.version,
                same_socket: false,
            });
            let settled = updates::settle(&mut tx, &back.collect::<Vec<_>>(), now).await.unwrap();
            tx.commit().await.unwrap();
            let remembered = settled.into_iter().map(|settled| settled.remembered);
            chunk
                .into_iter()
                .zip(printers)
                .zip(remembered)
                .map(|((index, printer), it)| (index, printer, it))
                .collect()
        });
        let lines: Vec<Vec<(usize, printers::Subscribed, Remembered)>> =
            lines.buffer_unordered(4).collect().await;
        for (index, printer, remembered) in lines.into_iter().flatten() {
            self.hold(index, printer.connection, Known::new(printer.facts, remembered));
        }
    }

    /// What was offered since: a bad release kills some of those that take it, and the others install it.
    async fn take_offers(&mut self, bricks: Bricks) {
        let (now, mut dead) = (self.clock.now(), Vec::new());
        for line in self.hub.all() {
            let index = self.refs[&line.printer];
            let Some(queue) = self.queues.get_mut(&index) else { continue };
            while let Ok(out) = queue.try_recv() {
                let Out::Offer(frame) = out else { continue };
                line.state().written(UpdateId(frame.update));
                if bricks.one_of > 0 && index.is_multiple_of(bricks.one_of) {
                    dead.push((line.clone(), UpdateId(frame.update)));
                    self.bricked.insert(index);
                } else {
                    self.installing.push((now + INSTALLS, index));
                }
            }
        }
        let mut conn = self.pool.acquire().await.unwrap();
        for (line, update) in dead {
            self.hub.remove(&line);
            printers::disconnected(&mut conn, &[(line.printer, line.connection)], now).await.unwrap();
            updates::socket_lost(&mut conn, &[update], now).await.unwrap();
        }
    }

    async fn tick(&mut self, bricks: Bricks) {
        self.engine.scan().await.unwrap();
        self.take_offers(bricks).await;
        self.clock.advance(TICK);
        let now = self.clock.now();
        let back = self.installing.extract_if(.., |(at, _)| *at <= now).map(|(_, index)| index).collect();
        self.connect(back, "1.5.0").await;
        updates::expire(&mut self.pool.acquire().await.unwrap(), 1800, now).await.unwrap();
        look(&self.pool, &HashSet::new(), Depth::All, now).await.unwrap();
    }
}

/// How it ended.
#[derive(Debug)]
struct End {
    reached: i64,
    bricked: usize,
    after: TimeDelta,
    rollout: Value,
}

async fn run(pool: PgPool, template: Template, bricks: Bricks, longest: TimeDelta) -> End {
    let clock = Clock::manual(Clock::system().now());
    let server = Server::on_clock(pool.clone(), clock.clone(), &[]).await;
    server.release("1.5.0", "stable").await;
    let mut fleet = Fleet::start(&server, &clock).await;
    let wanted = json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "gradual", "template": template});
    let rollout = path(&server.rollout(wanted).await);
    let began = clock.now();
    let mut end = server.get(&rollout).await.body;
    while clock.now() - began < longest && end["status"] == "active" {
        fleet.tick(bricks).await;
        end = server.get(&rollout).await.body;
    }
    let reached = sqlx::query_scalar("select count(distinct printer) from update_history");
    let end = End {
        reached: reached.fetch_one(&pool).await.unwrap(),
        bricked: fleet.bricked.len(),
        after: clock.now() - began,
        rollout: end,
    };
    let (reached, bricked) = (end.reached, end.bricked);
    let minutes = end.after.num_minutes();
    let (status, detail) = (&end.rollout["status"], &end.rollout["status_detail"]);
    println!(
        "{template} one of {}: {reached} reached, {bricked} bricked, {status} after {minutes} min: {detail}",
        bricks.one_of
    );
    server.stop().await;
    end
}

#[track_caller]
fn paused_itself(end: &End) {
    let rollout = &end.rollout;
    assert_eq!(
        (&rollout["status"], &rollout["status_reason"]),
        (&json!("paused"), &json!("failures")),
        "{end:?}"
    );
    assert!(rollout["status_detail"].as_str().unwrap().contains("by their silence"), "{end:?}");
}

async fn everyone(pool: PgPool, template: Template, most: i64) {
    let end = run(pool, template, Bricks { one_of: 1 }, TimeDelta::hours(2)).await;
    paused_itself(&end);
    assert!(end.reached <= most, "{end:?}");
    assert!(end.after < TimeDelta::minutes(15), "{end:?}");
}

async fn some(pool: PgPool, template: Template, longest: TimeDelta) {
    let end = run(pool, template, Bricks { one_of: 20 }, longest).await;
    paused_itself(&end);
    assert!(end.reached <= PRINTERS as i64 / 5, "{end:?}");
}

#[sqlx::test]
async fn canary_stops_a_release_that_bricks_everyone(pool: PgPool) {
    everyone(pool, Template::Canary, 20).await;
}

#[sqlx::test]
async fn careful_stops_a_release_that_bricks_everyone(pool: PgPool) {
    everyone(pool, Template::Careful, 100).await;
}

#[sqlx::test]
async fn fast_stops_a_release_that_bricks_everyone(pool: PgPool) {
    everyone(pool, Template::Fast, 500).await;
}

#[sqlx::test]
async fn canary_stops_a_release_that_bricks_one_of_twenty(pool: PgPool) {
    some(pool, Template::Canary, TimeDelta::hours(26)).await;
}

#[sqlx::test]
async fn careful_stops_a_release_that_bricks_one_of_twenty(pool: PgPool) {
    some(pool, Template::Careful, TimeDelta::hours(4)).await;
}

#[sqlx::test]
async fn fast_stops_a_release_that_bricks_one_of_twenty(pool: PgPool) {
    some(pool, Template::Fast, TimeDelta::hours(2)).await;
}

#[sqlx::test]
async fn fast_brings_a_good_release_to_everyone_within_two_hours(pool: PgPool) {
    let end = run(pool, Template::Fast, Bricks { one_of: 0 }, TimeDelta::hours(2)).await;
    assert_eq!(
        (&end.rollout["status"], &end.rollout["confirmed_count"]),
        (&json!("completed"), &json!(PRINTERS)),
        "{end:?}"
    );
}
