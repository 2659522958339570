//! The two ways to fetch an image: HTTP/1.1 by a real client, and what the ESP8266's updater does.

use std::time::Duration;

use md5::{Digest, Md5};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use url::Url;

use super::{
    Error,
    intake::{DownloadError, Downloaded, Intake, Plan},
    net::{Endpoint, Network, read_head},
    options::PrinterOptions,
    wire::Offer,
};

/// The receive buffer of a slow device: about what lwIP offers, as far as the kernel goes down.
const SMALL_WINDOW: u32 = 4096;

/// A polite download: any HTTP/1.1 answer with status 200 whose length and MD5 hold.
pub(super) async fn polite(
    network: &Network,
    options: &PrinterOptions,
    offer: &Offer,
    plan: Plan,
) -> Result<Downloaded, DownloadError> {
    let silence = options.pace.silence;
    let client = network.client(options.source_ip)?;
    let request = client.get(&offer.url).send();
    let mut answer = unless_silent(silence, request).await?.map_err(|error| transport(&error))?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(DownloadError::Status(answer.status().as_u16()));
    }
    let length = answer.content_length();
    let x_md5 = answer.headers().get("x-md5").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut intake = Intake::new(plan, length, false);
    while let Some(chunk) =
        unless_silent(silence, answer.chunk()).await?.map_err(|error| transport(&error))?
    {
        intake.take(&chunk).await?;
    }
    intake.finish(offer.md5.as_deref().or(x_md5.as_deref()))
}

/// The updater of the ESP8266: HTTP/1.0, 200 or nothing, a length or nothing, no redirect, no second try.
pub(super) async fn device(
    network: &Network,
    options: &PrinterOptions,
    running: &Running,
    offer: &Offer,
    plan: Plan,
) -> Result<Downloaded, DownloadError> {
    let pace = options.pace;
    let url = Url::parse(&offer.url).map_err(|error| DownloadError::Url(error.to_string()))?;
    let endpoint = match url.scheme() {
        "http" | "https" => Endpoint::of(&url)?,
        other => return Err(DownloadError::Url(format!("scheme {other}"))),
    };
    let window = plan.rate.map(|_| SMALL_WINDOW);
    let dialled = timeout(pace.connect, network.dial(&endpoint, options.source_ip, window)).await;
    let mut stream = dialled.map_err(|_| Error::Timeout("connecting"))??;
    let request = request(&endpoint, &url, options, running);
    timeout(pace.connect, stream.write_all(request.as_bytes()))
        .await
        .map_err(|_| Error::Timeout("asking"))??;
    stream.flush().await?;

    let (head, rest) = unless_silent(pace.silence, read_head(&mut stream)).await??;
    match head.status {
        200 => {}
        304 => return Err(DownloadError::NotModified),
        other => return Err(DownloadError::Status(other)),
    }
    for field in ["transfer-encoding", "content-encoding"] {
        if let Some(value) = head.get(field).filter(|value| !value.eq_ignore_ascii_case("identity")) {
            return Err(DownloadError::Encoded(value.to_owned()));
        }
    }
    let length = head.get("content-length").and_then(|length| length.parse::<u64>().ok());
    let length = length.filter(|length| *length > 0).ok_or(DownloadError::NoLength)?;
    let free = options.limits.free_space;
    if length > free {
        return Err(DownloadError::TooBig { length, free });
    }

    let mut intake = Intake::new(plan, Some(length), true);
    let mut left = length;
    let mut buffer = rest;
    loop {
        // The updater stops at the announced length and never looks at what may follow.
        let usable = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        intake.take(&buffer[..usable]).await?;
        left -= usable as u64;
        if left == 0 {
            break;
        }
        buffer.clear();
        buffer.reserve(4096);
        if unless_silent(pace.silence, stream.read_buf(&mut buffer)).await?? == 0 {
            break;
        }
    }
    intake.finish(offer.md5.as_deref().or(head.get("x-md5")))
}

/// What the updater says about the sketch that is running.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) version: String,
    pub(super) md5: String,
    pub(super) size: u64,
}

impl Running {
    /// Of the image installed last; before the first one, figures made up from the version.
    pub(super) fn of(version: &str, image: Option<&Downloaded>) -> Self {
        let (md5, size) = match image {
            Some(image) => (image.md5.clone(), image.bytes),
            None => (hex::encode(Md5::digest(version)), 400_000),
        };
        Self { version: version.to_owned(), md5, size }
    }
}

fn request(endpoint: &Endpoint, url: &Url, options: &PrinterOptions, running: &Running) -> String {
    // The port only where it is not the scheme's own, as the core's HTTP client does: a presigned URL's signature
    // covers this field.
    let host = match url.port() {
        Some(port) => format!("{}:{port}", endpoint.host),
        None => endpoint.host.clone(),
    };
    let mac = options.seed.to_be_bytes();
    let mac = format!("5C:CF:7F:{:02X}:{:02X}:{:02X}", mac[5], mac[6], mac[7]);
    format!(
        "GET {target} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: ESP8266-http-Update\r\nConnection: close\r\n\
         x-ESP8266-Chip-ID: {chip}\r\nx-ESP8266-STA-MAC: {mac}\r\nx-ESP8266-AP-MAC: {mac}\r\n\
         x-ESP8266-free-space: {free}\r\nx-ESP8266-sketch-size: {size}\r\nx-ESP8266-sketch-md5: {md5}\r\n\
         x-ESP8266-chip-size: 4194304\r\nx-ESP8266-sdk-version: 2.2.2-dev(38a443e)\r\nx-ESP8266-mode: sketch\r\n\
         x-ESP8266-version: {version}\r\n\r\n",
        target = endpoint.target,
        chip = options.seed & 0xFF_FFFF,
        free = options.limits.free_space,
        size = running.size,
        md5 = running.md5,
        version = running.version,
    )
}

async fn unless_silent<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, DownloadError> {
    timeout(limit, work).await.map_err(|_| DownloadError::Silence(limit))
}

/// The innermost cause, without the URL: it is signed and would end up in a report.
fn transport(error: &reqwest::Error) -> DownloadError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_body() || error.is_connect() || error.is_request() {
        DownloadError::Io(std::io::Error::other(cause.to_string()))
    } else {
        DownloadError::Transport(cause.to_string())
    }
}
