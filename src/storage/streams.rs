//! HTTP clients for bytes on their way out.
//!
//! The SDK's own lets hyper read ahead up to 408 KiB a connection, and offers no way to say less: a thousand images on
//! their way to slow printers would take hundreds of MiB. So most streams read no more than [`NARROW`] ahead. That
//! wakes a task for every few packets, which a fast reader notices: while few streams run, they read up to [`WIDE`].

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::{self, connect};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::rustls::crypto::aws_lc_rs;

/// Bytes that a connection may hold before somebody takes them. A head of S3's answers is below 2 KiB.
const NARROW: usize = 32 << 10;
/// The same, for the first [`MOST_WIDE`] at once.
const WIDE: usize = 256 << 10;
const MOST_WIDE: usize = 32;
/// Idle connections are let go before S3 does it.
const IDLE: Duration = Duration::from_secs(15);

type Client = legacy::Client<hyper_rustls::HttpsConnector<connect::HttpConnector>, SdkBody>;

#[derive(Clone, Debug)]
struct Bounded(Client);

/// The clients; none on a system without certificates, where the SDK's own has to do.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    narrow: Option<SharedHttpClient>,
    wide: Option<SharedHttpClient>,
    room: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(connect_within: Duration) -> Self {
        let client = |buffer| client(connect_within, buffer);
        Self { narrow: client(NARROW), wide: client(WIDE), room: Arc::new(Semaphore::new(MOST_WIDE)) }
    }

    /// The client for one more stream, and its room among the wide ones, to be held while the stream runs.
    pub(super) fn client(&self) -> (Option<SharedHttpClient>, Option<OwnedSemaphorePermit>) {
        match self.room.clone().try_acquire_owned() {
            Ok(room) => (self.wide.clone(), Some(room)),
            Err(_) => (self.narrow.clone(), None),
        }
    }
}

fn client(connect_within: Duration, buffer: usize) -> Option<SharedHttpClient> {
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_within));
    let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(aws_lc_rs::default_provider());
    let tls = tls.map_err(|error| tracing::warn!(%error, "downloads use the SDK's own HTTP client")).ok()?;
    let client = legacy::Client::builder(TokioExecutor::new())
        .http1_max_buf_size(buffer)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(tls.https_or_http().enable_http1().wrap_connector(tcp));
    let connector = SharedHttpConnector::new(Bounded(client));
    // Time-outs are the SDK's business: those of a try and of a call hold here as well.
    Some(http_client_fn(move |_, _| connector.clone()))
}

impl HttpConnector for Bounded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let answer = client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_streams_are_wide_and_one_that_ends_makes_room() {
        let streams = Streams::new(Duration::from_secs(1));
        let mut wide: Vec<_> = (0..MOST_WIDE).map(|_| streams.client().1).collect();
        assert!(wide.iter().all(Option::is_some));
        assert!(streams.client().1.is_none(), "the next one is narrow");
        wide.pop();
        assert!(streams.client().1.is_some());
    }
}
