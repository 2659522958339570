//! The server's public address, as printers use it: HTTP/1.0 downloads and a WebSocket, through whatever stands in between.

use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Version};
use tokio::time::timeout;

use super::Report;
use crate::config::{Config, Delivery};
use crate::simulate::{Error, Printer, PrinterOptions};

const AREA: &str = "public";
/// A printer gives up after 8 s without a byte (ESP8266HTTPClient's own time-out).
const PATIENCE: Duration = Duration::from_secs(8);

/// What proxies say for a server that is not there.
const NOBODY_BEHIND: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// What a printer would see.
pub(super) struct Download {
    pub(super) status: StatusCode,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) date: Option<String>,
}

impl fmt::Display for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.length.map_or_else(|| "no length".to_owned(), |length| format!("{length} bytes"));
        write!(f, "{} and {length}{}", self.status, if self.chunked { ", in chunks" } else { "" })
    }
}

/// Asks for a URL as a printer does.
pub(super) async fn download(url: &str) -> Result<Download, String> {
    let client = reqwest::Client::builder()
        .http1_only()
        .redirect(Policy::none())
        .timeout(PATIENCE)
        .user_agent("ESP8266-http-Update")
        .build()
        .map_err(|error| error.to_string())?;
    let request = client.get(url).version(Version::HTTP_10);
    // Its Display would tell the URL, which is signed.
    let answer = request.send().await.map_err(|error| causes(&error.without_url()))?;
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    Ok(Download {
        status: answer.status(),
        length: text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        chunked: text(TRANSFER_ENCODING).is_some(),
        date: text(DATE).map(str::to_owned),
    })
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

pub(super) async fn check(config: &Config, report: &mut Report) {
    let base = &config.base_url;
    // Printers are sent here for links only.
    let url = format!("{base}/api/openapi.json");
    match download(&url).await {
        Err(error) => {
            return report.warning(AREA, format!("BASE_URL={base} is not reached from here: {error}. Start the server, or see to DNS and the load balancer."));
        }
        Ok(Download { status, .. }) if NOBODY_BEHIND.contains(&status) => {
            return report.warning(AREA, format!("{base} answers {status}: the proxy has no replica behind it, so nothing else can be said. Start the server."));
        }
        Ok(Download { status: StatusCode::UPGRADE_REQUIRED, .. }) => {
            report.error(AREA, format!("{base} answers HTTP/1.0 with 426: tell the proxy to accept HTTP/1.0 (Envoy: http1.http10), or no printer can download by a link"));
        }
        Ok(Download { status: StatusCode::OK, length: Some(_), chunked: false, .. }) => {
            report.ok(AREA, format!("{base} answers HTTP/1.0 with a length"));
        }
        Ok(found) => report.error(AREA, format!("{base} answers HTTP/1.0 with {found}: printers want 200 and a Content-Length, uncompressed and without a redirect")),
    }
    socket(base, report).await;
    if let Delivery::Cdn { base_url, .. } = &config.delivery {
        cdn(base_url, report).await;
    }
}

/// The handshake alone, as a printer makes it: TLS 1.2 at most. Who says nothing is no printer.
async fn socket(base: &str, report: &mut Report) {
    let options = PrinterOptions::new(&base.replacen("http", "ws", 1), 0);
    match timeout(PATIENCE, Printer::connect(options)).await {
        Ok(Ok(_)) => report.ok(AREA, "WebSockets pass"),
        Ok(Err(Error::Refused(status))) => {
            report.error(
                AREA,
                format!("a WebSocket is answered with {status}: tell the proxy to pass upgrades on at /ws/"),
            );
        }
        Ok(Err(error)) => report.error(AREA, format!("a WebSocket fails: {error}")),
        Err(_) => {
            report.error(AREA, "a WebSocket gets no answer: tell the proxy to pass upgrades on at /ws/")
        }
    }
}

/// Without a release of which the URL is known: whether it answers HTTP/1.0, and refuses what is not signed or not there.
async fn cdn(base: &str, report: &mut Report) {
    match download(&format!("{base}/firmware/00000000-0000-0000-0000-000000000000/none.bin")).await {
        Err(error) => {
            report.error("downloads", format!("CDN_BASE_URL={base} is not reached from here: {error}"))
        }
        Ok(Download { status, .. }) if status.is_client_error() && status != StatusCode::UPGRADE_REQUIRED => {
            report.ok(
                "downloads",
                format!("the CDN at {base} answers HTTP/1.0, and {status} for what is not there"),
            );
        }
        Ok(found) => report.error(
            "downloads",
            format!("the CDN at {base} answers {found} for what is not there and not signed"),
        ),
    }
}
