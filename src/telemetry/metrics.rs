//! Every metric, in one place: its name, its labels, its unit. Served as Prometheus text on the internal address.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::Method;
use metrics::{Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::clock::Time;
use crate::version::COMMIT;

/// Seconds; from a look-up to a slow upload.
const DURATIONS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Installs the recorder, once a process, and returns the handle that renders it.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(start).clone()
}

fn start() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let builder =
        builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), DURATIONS).unwrap_or_default();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // Fails when another recorder is installed already, which only a test could do.
    let _ = metrics::set_global_recorder(recorder);
    describe_histogram!("http_server_request_duration_seconds", "Time to answer a request");
    describe_gauge!("paperminder_printers_connected", "Printers whose socket this replica holds");
    describe_gauge!(
        "paperminder_connections_open",
        "Connections of every kind, sockets included, by listener"
    );
    describe_counter!(
        "paperminder_connections_refused_total",
        "Connections, sockets, downloads and requests refused, by reason"
    );
    describe_counter!("paperminder_messages_total", "Messages from printers, by kind");
    describe_counter!(
        "paperminder_messages_delayed_total",
        "Messages after which a printer was not heard for a while, as it said too many"
    );
    describe_counter!(
        "paperminder_offers_total",
        "Offers, by what became of them: sent, resent or withdrawn"
    );
    describe_counter!("paperminder_updates_total", "Attempts that ended, by status and reason");
    describe_counter!("paperminder_link_downloads_total", "Downloads that streamed through a short link");
    describe_counter!("paperminder_firmware_uploads_total", "Uploads, by outcome");
    describe_counter!(
        "paperminder_garbage_turns_total",
        "Turns of collecting garbage, by outcome: done, elsewhere, unfinished or failed"
    );
    describe_counter!("paperminder_garbage_removed_total", "Garbage removed from the bucket, by kind");
    describe_histogram!("paperminder_claim_duration_seconds", "Time of one batch of claims in the database");
    describe_counter!("paperminder_engine_scans_total", "Scans over all connected printers");
    describe_counter!(
        "paperminder_engine_errors_total",
        "Turns of the engine that failed and will be repeated"
    );
    describe_histogram!("paperminder_batch_size", "Writes that one transaction carried, by kind");
    describe_gauge!("paperminder_rollouts_offering", "Rollouts that may make offers now");
    describe_gauge!("paperminder_database_connections", "Connections of the pool, by state");
    describe_gauge!("paperminder_database_connections_max", "Connections that the pool may hold");
    describe_gauge!(
        "paperminder_engine_last_turn_timestamp_seconds",
        "When the engine's last turn ended that did not fail"
    );
    describe_gauge!("paperminder_migrations_pending", "Migrations that the database lacks");
    describe_gauge!("paperminder_build_info", "1, for the version and the commit of this program");
    gauge!("paperminder_build_info", "version" => env!("CARGO_PKG_VERSION"), "commit" => COMMIT.unwrap_or("unknown"))
        .set(1.0);
    handle
}

/// Why connections, sockets, downloads and requests are refused.
const REFUSALS: [&str; 15] = [
    "connect_rate",
    "connect_rate_of_address",
    "connections",
    "download_rate",
    "downloads",
    "event_streams",
    "full",
    "origin",
    "printer_key",
    "request_rate_of_address",
    "request_rate_of_key",
    "shutting_down",
    "silent",
    "tls_handshake",
    "wrong_keys",
];

/// Counts nothing yet, of everything that may happen: a series that begins with its first event looks to Prometheus as if
/// nothing had been added then. Updates end in these ways, each a status and a reason.
pub fn begin(ends: impl Iterator<Item = (&'static str, &'static str)>) {
    for reason in REFUSALS {
        counter!("paperminder_connections_refused_total", "reason" => reason).increment(0);
    }
    for (status, reason) in ends {
        counter!("paperminder_updates_total", "status" => status, "reason" => reason).increment(0);
    }
    for outcome in ["done", "elsewhere", "failed", "unfinished"] {
        counter!("paperminder_garbage_turns_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["resent", "sent", "withdrawn"] {
        counter!("paperminder_offers_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["refused", "released"] {
        counter!("paperminder_firmware_uploads_total", "outcome" => outcome).increment(0);
    }
    counter!("paperminder_engine_errors_total").increment(0);
    counter!("paperminder_link_downloads_total").increment(0);
    counter!("paperminder_messages_delayed_total").increment(0);
}

/// So many writes went into one transaction.
pub fn batch(kind: &'static str, size: usize) {
    histogram!("paperminder_batch_size", "kind" => kind).record(size as f64);
}

/// A client may send any word as a method, and each would be a time series of its own (semantic conventions, HTTP).
pub fn known(method: &Method) -> &'static str {
    let all = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    all.iter().position(|known| known == method).map_or("_OTHER", |index| names[index])
}

/// A request was answered.
pub fn request(method: &Method, route: &str, status: u16, elapsed: Duration) {
    histogram!("http_server_request_duration_seconds", "method" => known(method), "route" => route.to_owned(),
        "status" => status.to_string())
    .record(elapsed.as_secs_f64());
}

/// Counts in a gauge for as long as it lives.
pub struct Gauged(Gauge);

impl Gauged {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }

    /// A connected printer.
    pub fn printer() -> Self {
        Self::new(gauge!("paperminder_printers_connected"))
    }

    /// An open connection.
    pub fn connection(listener: &'static str) -> Self {
        Self::new(gauge!("paperminder_connections_open", "listener" => listener))
    }
}

impl std::fmt::Debug for Gauged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauged")
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A connection, a socket or a download was refused.
pub fn refused(reason: &'static str) {
    counter!("paperminder_connections_refused_total", "reason" => reason).increment(1);
}

/// A printer said something.
pub fn message(kind: &'static str) {
    counter!("paperminder_messages_total", "kind" => kind).increment(1);
}

/// A printer said so much that it is not heard for a while.
pub fn message_delayed() {
    counter!("paperminder_messages_delayed_total").increment(1);
}

/// Offers went out, or were taken back before they did.
pub fn offers(outcome: &'static str, count: usize) {
    counter!("paperminder_offers_total", "outcome" => outcome).increment(count as u64);
}

/// An attempt ended.
pub fn ended(status: &'static str, reason: &'static str) {
    counter!("paperminder_updates_total", "status" => status, "reason" => reason).increment(1);
}

/// An upload ended.
pub fn upload(outcome: &'static str) {
    counter!("paperminder_firmware_uploads_total", "outcome" => outcome).increment(1);
}

/// It was time to collect the garbage.
pub fn garbage_turn(outcome: &'static str) {
    counter!("paperminder_garbage_turns_total", "outcome" => outcome).increment(1);
}

/// A piece of garbage is gone.
pub fn garbage_removed(kind: &'static str) {
    counter!("paperminder_garbage_removed_total", "kind" => kind).increment(1);
}

/// A download began to stream through a short link.
pub fn link_download() {
    counter!("paperminder_link_downloads_total").increment(1);
}

/// A batch of claims was made.
pub fn claimed(elapsed: Duration) {
    histogram!("paperminder_claim_duration_seconds").record(elapsed.as_secs_f64());
}

/// The engine looked at every connected printer.
pub fn scanned(offering: usize) {
    counter!("paperminder_engine_scans_total").increment(1);
    gauge!("paperminder_rollouts_offering").set(offering as f64);
}

/// A turn of the engine ended well.
pub fn turned(now: Time) {
    gauge!("paperminder_engine_last_turn_timestamp_seconds").set(now.timestamp() as f64);
}

/// How the database's schema stood when it was looked at last.
pub fn migrations_pending(count: usize) {
    gauge!("paperminder_migrations_pending").set(count as f64);
}

/// A turn of the engine failed.
pub fn engine_error() {
    counter!("paperminder_engine_errors_total").increment(1);
}

/// The pool's state, set when metrics are read.
pub fn pool(size: u32, idle: usize, most: u32) {
    gauge!("paperminder_database_connections_max").set(f64::from(most));
    gauge!("paperminder_database_connections", "state" => "idle").set(idle as f64);
    gauge!("paperminder_database_connections", "state" => "used").set(f64::from(size) - idle as f64);
}
