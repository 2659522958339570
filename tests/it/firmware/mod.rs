//! Releases: uploaded, refused, broken off, listed, downloaded, deleted; and the parts that they stand on taken away.

mod away;
mod direct;
mod download;
mod garbage;
mod gc;
mod memory;
mod read;
mod refused;
mod releases;
mod size;
mod upload;
mod vanish;

use std::time::{Duration, Instant};

use paperminder_ota::simulate::image::esp8266_image;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use crate::support::{Answer, SOON, Server, raw};

/// A small image of its own.
fn image(seed: u64) -> Vec<u8> {
    esp8266_image(12 << 10, seed)
}

/// Uploads a form that is already put together.
async fn upload(server: &Server, form: Form) -> Answer {
    server.send(server.request(Method::POST, "/api/firmware/upload").multipart(form)).await
}

/// The file's field.
fn file(bytes: Vec<u8>) -> Part {
    Part::bytes(bytes).file_name("firmware.bin")
}

async fn rows(server: &Server) -> i64 {
    sqlx::query_scalar("select count(*) from firmware_versions").fetch_one(&server.pool).await.unwrap()
}

/// Neither row nor object nor open multipart upload.
#[track_caller]
fn nothing(rows: i64, objects: &[String]) {
    assert!(rows == 0 && objects.is_empty(), "{rows} rows and {objects:#?}");
}

/// How many tasks a server has that nobody asks anything: an upload is one more, until it has cleaned up.
struct Idle(usize);

impl Idle {
    fn of(server: &Server) -> Self {
        Self(server.app().state.shutdown.tasks.len())
    }

    async fn until_busy(&self, server: &Server) {
        wait(|| server.app().state.shutdown.tasks.len() > self.0).await;
    }

    async fn until_idle(&self, server: &Server) {
        wait(|| server.app().state.shutdown.tasks.len() <= self.0).await;
    }
}

/// Waits until this holds.
#[track_caller]
fn wait(holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "never held: {caller}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Names of the fields that the answer complains about.
fn complaints(answer: &Value) -> Vec<&str> {
    let errors = answer["errors"].as_array();
    errors.into_iter().flatten().map(|error| error["field"].as_str().unwrap()).collect()
}

/// An upload with a raw client, sent whole.
async fn upload_raw(server: &Server, fields: &[(&str, &str)], bytes: &[u8]) -> raw::Reply {
    let (head, tail) = raw::form(&[], fields);
    let mut wire = raw::Wire::open(server.app().address).await;
    let length = head.len() + bytes.len() + tail.len();
    wire.send(raw::upload_head(server.app().address, Some(length), "").as_bytes()).await;
    for piece in [&head[..], bytes, &tail[..]] {
        wire.send(piece).await;
    }
    wire.reply(false).await
}
