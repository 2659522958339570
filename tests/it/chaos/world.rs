//! Replicas, what they stand on, and what is in front of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paperminder_ota::clock::Clock;
use paperminder_ota::config::Storage;
use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::printers::bucket;
use paperminder_ota::simulate::{
    Fleet, Message, Mode, Overheard, Pace, Passed, Phase, PrinterOptions, Wiretap, image::esp8266_image,
};
use reqwest::multipart::{Form, Part};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::balancer::Balancer;
use super::history::{Answer, Event, Fault, History, Micros, Sample, What};
use super::{record, rules, story};
use crate::support::process::{ServeProcess, database_url, server_url};
use crate::support::{SOON, config, embedded_s3};

/// Longest wait for a scenario to come to rest.
pub const REST: Duration = Duration::from_secs(45);
/// What no server takes for a message, and answers in its turn.
pub const MARK: &str = "this is no JSON";
/// How often printers say it, and how often REST is asked.
const OFTEN: Duration = Duration::from_millis(250);

/// What is noted while it happens.
#[derive(Default)]
struct Notes {
    answers: Vec<Answer>,
    faults: Vec<Fault>,
    samples: Vec<Sample>,
}

/// A rollout, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    pub id: Uuid,
    pub number: i64,
}

/// What the replicas share, and what they are.
pub struct World {
    pub database: String,
    servers: String,
    pub replicas: Vec<Option<ServeProcess>>,
    pub balancer: Balancer,
    pub client: reqwest::Client,
    s3: EmbeddedS3,
    _folder: TempDir,
    /// One moment by both clocks.
    epoch: (Instant, Micros),
    notes: Arc<Mutex<Notes>>,
    tap: Wiretap,
    heard: mpsc::UnboundedReceiver<Overheard>,
}

impl World {
    /// Nobody is there yet, and everything is noted from now on.
    /// `database` is its owner's, `servers` that of the replicas, which may do less there.
    pub async fn new(database: String, servers: String, replicas: usize) -> Self {
        record::install(&database).await;
        let (s3, folder) = embedded_s3().await;
        let (tap, heard) = mpsc::unbounded_channel();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self {
            database,
            servers,
            replicas: (0..replicas).map(|_| None).collect(),
            balancer: Balancer::start(replicas).await,
            client,
            s3,
            _folder: folder,
            epoch: (Instant::now(), Clock::system().now().timestamp_micros()),
            notes: Arc::default(),
            tap,
            heard,
        }
    }

    /// With as many replicas that run.
    pub async fn of(pool: &PgPool, replicas: usize, more: &[(&str, &str)]) -> Self {
        let mut world = Self::new(database_url(pool), server_url(pool).await, replicas).await;
        for replica in 0..replicas {
            world.start(replica, more).await;
        }
        world
    }

    /// Starts a replica, or starts it again.
    pub async fn start(&mut self, replica: usize, more: &[(&str, &str)]) {
        let endpoint = self.s3.endpoint();
        let mut settings = vec![
            ("DATABASE_URL", self.servers.as_str()),
            ("DATABASE_MAX_CONNECTIONS", "8"),
            ("AWS_ENDPOINT_URL_S3", &endpoint),
            ("AWS_ACCESS_KEY_ID", self.s3.access_key()),
            ("AWS_SECRET_ACCESS_KEY", self.s3.secret_key().expose_secret()),
            ("AWS_REGION", "us-east-1"),
            ("RETRY_BACKOFF_SECONDS", "1"),
            ("GC_EVERY_SECONDS", "0"),
        ];
        settings.extend(more);
        let process = ServeProcess::start(&settings).await;
        self.balancer.put(replica, process.address);
        self.replicas[replica] = Some(process);
    }

    /// The bucket, for servers inside this process.
    pub fn storage(&self, pool: &PgPool) -> Storage {
        let mut storage = config(pool, &self.s3.endpoint(), &[]).storage;
        storage.credentials = Some((self.s3.access_key().to_owned(), self.s3.secret_key().clone()));
        storage
    }

    pub fn replica(&self, replica: usize) -> &ServeProcess {
        self.replicas[replica].as_ref().unwrap()
    }

    pub fn now(&self) -> Micros {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Micros {
        let (then, micros) = self.epoch;
        micros + at.saturating_duration_since(then).as_micros() as Micros
    }

    /// Notes that something was wrong from that moment until now.
    pub fn fault(&self, what: &str, from: Micros) {
        let fault = Fault { what: what.to_owned(), from, to: self.now() };
        println!("{fault:?}");
        self.notes.lock().unwrap().faults.push(fault);
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, replica: usize, path: &str) -> Value {
        self.send(self.client.get(self.replica(replica).url(path))).await.1
    }

    /// Releases a version, of 100 KiB.
    pub async fn release(&self, base: &str, version: &str) {
        let seed = version.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        let file = Part::bytes(esp8266_image(100 << 10, seed)).file_name("firmware.bin");
        let form = Form::new().part("file", file).text("version", version.to_owned());
        let url = format!("{base}/api/firmware/upload");
        let (status, body) = self.send(self.client.post(url).multipart(form)).await;
        assert_eq!(status, 201, "{body}");
    }

    /// Makes a rollout to everyone; the changes win.
    pub async fn rollout(&self, base: &str, version: &str, changes: Value) -> Handle {
        let mut wanted =
            json!({"firmware_version": version, "target": {"all": true}, "rollout_type": "immediate"});
        wanted.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let request = self.client.post(format!("{base}/api/rollouts")).json(&wanted);
        let (status, body) = self.send(request).await;
        assert_eq!(status, 201, "{body}");
        Handle { id: body["id"].as_str().unwrap().parse().unwrap(), number: body["number"].as_i64().unwrap() }
    }

    /// Makes a rollout that ends for nobody's haste: somebody is left out until [`Self::to_the_others`].
    pub async fn rollout_to_most(
        &self,
        base: &str,
        version: &str,
        fleet: &Fleet,
        max_in_flight: u64,
    ) -> Handle {
        let buckets = fleet.printers().iter().map(|printer| bucket(&printer.id().parse().unwrap()));
        // Of whoever is in it, nobody is below.
        let highest = buckets.max().unwrap();
        let most =
            json!({"rollout_type": "gradual", "rollout_percentage": highest, "max_in_flight": max_in_flight});
        self.rollout(base, version, most).await
    }

    /// Lets a rollout have whom it left out.
    pub async fn to_the_others(&self, base: &str, rollout: Handle) {
        let request = self.client.patch(format!("{base}/api/rollouts/{}", rollout.number));
        let (status, body) = self.send(request.json(&json!({"rollout_percentage": 100}))).await;
        assert_eq!(status, 200, "{body}");
    }

    /// An operator's wish, noted with its answer. Returns how long that took.
    pub async fn ask(&self, base: &str, rollout: Handle, wanted: &'static str) -> Duration {
        let request = self.client.patch(format!("{base}/api/rollouts/{}", rollout.number));
        let (began, sent) = (Instant::now(), self.now());
        let (status, body) = self.send(request.json(&json!({"status": wanted}))).await;
        let answer = Answer { rollout: rollout.id, wanted, sent, answered: self.now(), status };
        self.notes.lock().unwrap().answers.push(answer);
        assert_eq!(status, 200, "{body}");
        began.elapsed()
    }

    /// `http://host:port` of a replica.
    pub fn base(&self, replica: usize) -> String {
        self.replica(replica).url("")
    }

    /// A quick printer behind the balancer; every other one is an unchanged device.
    pub fn printer(&self, index: u64) -> PrinterOptions {
        let pace = Pace {
            reconnect: Duration::from_millis(100),
            reboot: Duration::from_millis(100),
            ..Pace::default()
        };
        let mode = if index.is_multiple_of(2) { Mode::Polite } else { Mode::Device };
        let options = PrinterOptions::new(&format!("ws://{}", self.balancer.address), index);
        PrinterOptions { pace, mode, wiretap: Some(self.tap.clone()), ..options }
    }

    /// The printers of a fleet mark what they said, and REST is asked about a rollout, until the handle is dropped.
    pub fn watch(&self, fleet: &Fleet, base: Option<(String, Handle)>) -> AbortOnDropHandle<()> {
        let (printers, client) = (fleet.printers().to_vec(), self.client.clone());
        let (notes, (then, micros)) = (self.notes.clone(), self.epoch);
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(OFTEN).await;
                for printer in printers.iter().filter(|printer| printer.state().phase == Phase::Online) {
                    let _ = timeout(Duration::from_millis(20), printer.send_raw(MARK)).await;
                }
                let Some((base, rollout)) = &base else { continue };
                let asked = client.get(format!("{base}/api/rollouts/{}", rollout.number));
                let Ok(answer) = asked.timeout(Duration::from_secs(5)).send().await else { continue };
                let Ok(told) = answer.error_for_status() else { continue };
                let Ok(told) = told.json::<Value>().await else { continue };
                let at = micros + then.elapsed().as_micros() as Micros;
                notes.lock().unwrap().samples.push(sample(at, rollout.id, &told));
            }
        }))
    }

    /// Waits until that many printers are connected.
    pub async fn connected(&self, fleet: &Fleet, printers: u64) {
        fleet.wait_until(SOON, |fleet| fleet.online >= printers).await.unwrap();
        let deadline = Instant::now() + SOON;
        // One that gave up and came again is counted twice for a moment.
        loop {
            let connections = self.balancer.connections();
            let fewest = connections.iter().min().unwrap();
            if connections.iter().all(|n| n - fewest <= 1) {
                return;
            }
            assert!(Instant::now() < deadline, "they are not spread: {connections:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until REST says that the rollout rests, and notes what it says.
    pub async fn rests(&mut self, base: &str, rollout: Handle, confirmed: u64) -> Value {
        let deadline = Instant::now() + REST;
        loop {
            let request = self.client.get(format!("{base}/api/rollouts/{}", rollout.number));
            let (_, told) = self.send(request).await;
            if told["status"] == "completed" && told["confirmed_count"] == confirmed {
                let sample = sample(self.now(), rollout.id, &told);
                assert_eq!((sample.total, sample.parts), (confirmed as i64, [confirmed as i64, 0, 0, 0]));
                self.notes.lock().unwrap().samples.push(sample);
                return told;
            }
            if Instant::now() > deadline {
                let history = self.history().await;
                rules::check(&history);
                let told = told.as_object().unwrap().iter().filter(|(_, value)| value.is_u64());
                panic!(
                    "no rest: {:?}\n{}",
                    told.collect::<Vec<_>>(),
                    story::of_waiting(&history, rollout.id)
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that was noted until now.
    pub async fn history(&mut self) -> History {
        let mut events = Vec::new();
        while let Ok(overheard) = self.heard.try_recv() {
            let what = meaning(&overheard.what);
            let (at, printer) = (self.moment(overheard.at), overheard.printer.to_string());
            events.extend(what.map(|what| Event { at, printer, socket: overheard.socket, what }));
        }
        events.sort_by_key(|event| event.at);
        let notes = std::mem::take(&mut *self.notes.lock().unwrap());
        let Notes { answers, faults, samples } = notes;
        let history =
            History { commits: record::read(&self.database).await, events, answers, faults, samples };
        let (commits, changes) = (history.commits.len(), history.changes().count());
        println!("{} frames and ends, {commits} commits, {changes} changes", history.events.len());
        history
    }

    /// Asks every replica to end; each must say that it left nothing undone.
    pub async fn end(mut self) {
        for process in self.replicas.iter_mut().filter_map(Option::take) {
            let status = process.terminate().await;
            assert!(status.success(), "{status}");
        }
    }
}

fn sample(at: Micros, rollout: Uuid, told: &Value) -> Sample {
    let count = |name: &str| told[name].as_i64().unwrap();
    let parts = ["completed_count", "failed_count", "declined_count", "pending_count"].map(count);
    Sample { at, rollout, total: count("total_targets"), parts }
}

/// What a frame means; none: nothing that counts.
fn meaning(passed: &Passed) -> Option<What> {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    match passed {
        Passed::Opened => Some(What::Opened),
        Passed::Gone => Some(What::Gone),
        Passed::Says(Message::Close(_)) => Some(What::Closes),
        Passed::Hears(Message::Close(frame)) => {
            Some(What::Closed(frame.as_ref().map(|frame| frame.code.into())))
        }
        Passed::Says(Message::Text(text)) => {
            let Some(said) = read(text) else { return Some(What::Marks) };
            Some(match said["kind"].as_str() {
                None => What::Subscribes(said["firmware_version"].as_str()?.to_owned()),
                Some("firmware_progress") => What::Progress(said["percent"].as_i64()?),
                Some("firmware_complete") => What::Reports("completed"),
                Some("firmware_failed") => What::Reports("failed"),
                Some("firmware_declined") => What::Reports("declined"),
                Some(_) => return None,
            })
        }
        Passed::Hears(Message::Text(text)) => {
            let heard = read(text)?;
            match (heard["kind"].as_str()?, heard["code"].as_str()) {
                ("firmware_update", _) => Some(What::Offered(heard["version"].as_str()?.to_owned())),
                ("status", Some("malformed_json")) => Some(What::Marked),
                _ => None,
            }
        }
        Passed::Says(_) | Passed::Hears(_) => None,
    }
}
