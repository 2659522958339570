//! Traces leave by OTLP when the standard variables say so, and every request has its wide line.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use paperminder_ota::dev::EmbeddedS3;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::support::SOON;
use crate::support::process::{ServeProcess, server_url};

#[sqlx::test]
async fn a_request_becomes_a_span_of_its_callers_trace_and_one_wide_line(pool: PgPool) {
    let (spans, mut received) = mpsc::channel(16);
    let collect = async move |headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let _ = spans.send(body).await;
    };
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    tokio::spawn(async { axum::serve(collector, Router::new().route("/v1/traces", post(collect))).await });

    let folder = tempfile::tempdir().unwrap();
    let s3 = EmbeddedS3::start(folder.path(), ([127, 0, 0, 1], 0).into(), &["firmware"]).await.unwrap();
    let database = server_url(&pool).await;
    let server = ServeProcess::start(&[
        ("DATABASE_URL", &database),
        ("AWS_ENDPOINT_URL_S3", &s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", s3.access_key()),
        ("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ])
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = reqwest::Client::new()
        .get(server.url("/api/rollouts?limit=5"))
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(request.send().await.unwrap().status(), 200);

    let wanted = (0..trace.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&trace[at..at + 2], 16).unwrap())
        .collect::<Vec<_>>();
    let found = async {
        while let Some(body) = received.recv().await {
            let holds = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
            if holds(&wanted) && holds(b"GET /api/rollouts") && holds(b"paperminder-ota") {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, found).await.unwrap();

    let logged = async {
        loop {
            let log = server.log();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(line) = lines.find(|line| line["route"] == "/api/rollouts") {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let line = tokio::time::timeout(SOON, logged).await.expect("a line about the request");
    for field in ["method", "status", "ms", "actor", "rows", "trace_id"] {
        assert!(!line[field].is_null(), "{field} is missing in {line}");
    }
    assert_eq!(line["trace_id"], trace);
    server.terminate().await;
    s3.stop().await;
}
