//! Logs, traces and metrics.
//!
//! Every request has a trace id, with or without a collector: the OpenTelemetry SDK makes them, and exports spans by
//! OTLP over HTTP when `OTEL_EXPORTER_OTLP_ENDPOINT` (or its traces-only sibling) is set. The standard
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and so on are the SDK's business.

pub mod metrics;

use std::io::IsTerminal as _;

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::LogFormat;

/// Why logging or tracing could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RUST_LOG` is no filter.
    #[error("RUST_LOG=`{0}` is not a log filter such as `info` or `info,sqlx=warn`: {1}")]
    Filter(String, tracing_subscriber::filter::ParseError),
    /// The OTLP variables are wrong.
    #[error("the OTLP exporter cannot start, look at the OTEL_EXPORTER_OTLP_* variables: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Keeps the exporter alive; flush it last.
pub struct Telemetry(SdkTracerProvider);

/// Starts logging and tracing for the process. A second call in one process changes nothing.
pub fn init(format: LogFormat, filter: &str) -> Result<Telemetry, Error> {
    let filter =
        EnvFilter::builder().parse(filter).map_err(|error| Error::Filter(filter.to_owned(), error))?;
    let mut provider = SdkTracerProvider::builder().with_resource(resource());
    if exports() {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
        provider = provider.with_batch_exporter(exporter);
    }
    let provider = provider.build();
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("paperminder-ota"));
    let lines = match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_current_span(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    // At this level libraries write out whole frames and requests, presigned URLs and all.
    let no_secrets =
        filter_fn(|line| *line.level() != Level::TRACE || line.target().starts_with("paperminder_ota"));
    let _ = tracing_subscriber::registry().with(filter).with(no_secrets).with(lines).with(traces).try_init();
    Ok(Telemetry(provider))
}

fn resource() -> Resource {
    let mut builder = Resource::builder();
    if !is_set("OTEL_SERVICE_NAME") {
        builder = builder.with_service_name("paperminder-ota");
    }
    builder.with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build()
}

fn exports() -> bool {
    (is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        && !variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "OpenTelemetry's variables are the SDK's, not settings of ours"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn is_set(name: &str) -> bool {
    variable(name).is_some_and(|text| !text.is_empty())
}

impl Telemetry {
    /// Sends what is still in hand. Blocks for a few seconds at most.
    pub fn flush(self) {
        let _ = self.0.shutdown();
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Makes the span a child of the caller's (W3C `traceparent`) and returns its trace id, which is random when nothing
/// records spans.
pub fn adopt(span: &tracing::Span, headers: &HeaderMap) -> String {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    let caller = parent.span().span_context().clone();
    let _ = span.set_parent(parent);
    let own = span.context().span().span_context().clone();
    let context = if own.is_valid() { own } else { caller };
    if context.is_valid() {
        context.trace_id().to_string()
    } else {
        uuid::Uuid::new_v4().simple().to_string()
    }
}
