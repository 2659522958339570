//! S3: every right that the server needs, tried on an object of our own; and the URLs that printers are given.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use reqwest::StatusCode;

use super::public::{Download, download};
use super::{Report, presigned};
use crate::clock::{Clock, Time};
use crate::config::Config;
use crate::ids::FirmwareId;
use crate::storage::{Buffers, Error, Folder, ObjectKey, ObjectWriter, PART_SIZE, Store};

const AREA: &str = "bucket";
/// Clocks further apart than this make S3 refuse every signature (S3, "RequestTimeTooSkewed").
const REFUSED: TimeDelta = TimeDelta::minutes(15);
/// Clocks further apart than this make signatures that end too soon.
const SKEWED: TimeDelta = TimeDelta::seconds(30);
const CONTENT: &[u8] = b"paperminder-ota doctor";

/// True when images can be stored and read.
pub(super) async fn check(config: &Config, store: &Store, clock: &Clock, report: &mut Report) -> bool {
    let name = &config.storage.bucket;
    if let Err(error) = store.check().await {
        report.error(
            AREA,
            format!(
                "`{name}` cannot be used: {error}. Check S3_BUCKET, AWS_ENDPOINT_URL_S3 and the credentials."
            ),
        );
        return false;
    }
    let key = ObjectKey::staging(FirmwareId::generate());
    let written = simple(store, &key).await;
    if let Err((what, error)) = written {
        report.error(
            AREA,
            format!("`{name}`: {what} failed: {error}. SECURITY.md lists the rights that it needs."),
        );
        return false;
    }
    report.ok(AREA, format!("`{name}` takes an object and gives it back"));
    if presigned(config) {
        urls(config, store, &key, clock, report).await;
    }
    tidy(store, &key, report).await;
    parts(store, report).await;
    listing(store, report).await;
    true
}

async fn simple(store: &Store, key: &ObjectKey) -> Result<(), (&'static str, Error)> {
    store.put(key, Bytes::from_static(CONTENT)).await.map_err(|error| ("writing an object", error))?;
    let object = store.get(key).await.map_err(|error| ("reading it back", error))?;
    let bytes = axum::body::to_bytes(object.body, 1 << 20).await;
    match bytes {
        Ok(bytes) if bytes == CONTENT => Ok(()),
        _ => Err(("reading it back", Error::Other("the bytes are others".into()))),
    }
}

async fn tidy(store: &Store, key: &ObjectKey, report: &mut Report) {
    if let Err(error) = store.delete(key).await {
        report
            .error(AREA, format!("removing an object failed: {error}; what uploads leave behind will stay"));
    }
}

async fn parts(store: &Store, report: &mut Report) {
    let (id, key) = (FirmwareId::generate(), ObjectKey::staging(FirmwareId::generate()));
    let outcome = async {
        let Some(mut writer) = ObjectWriter::open(store.clone(), &Buffers::new(1), id).await else {
            return Ok(());
        };
        writer.write(&vec![0xE9; PART_SIZE + 1]).await?;
        writer.finish(&key).await.map_err(|(error, _)| error)?;
        let length = store.get(&key).await?.length;
        if length == PART_SIZE as u64 + 1 {
            Ok(())
        } else {
            Err(Error::Other(format!("{length} bytes arrived")))
        }
    };
    match outcome.await {
        Ok(()) => report.ok(AREA, "it takes large objects in parts"),
        Err(error) => report.error(
            AREA,
            format!("an upload in parts failed: {error}; images above 5 MiB cannot be released"),
        ),
    }
    tidy(store, &key, report).await;
}

async fn listing(store: &Store, report: &mut Report) {
    match store.list(Folder::Staging, None).await {
        Err(error) => report.warning(AREA, format!("it cannot be listed: {error}; garbage will stay")),
        Ok(_) => match store.list_multipart(Folder::Staging, None).await {
            Err(Error::Unsupported(_)) => {
                report.warning(
                    AREA,
                    "it does not list open multipart uploads: expire them by a rule of the bucket",
                );
            }
            Err(error) => report
                .warning(AREA, format!("open multipart uploads cannot be listed: {error}; they will stay")),
            Ok(_) => report.ok(AREA, "garbage can be found"),
        },
    }
}

/// As printers will use them: HTTP/1.0, no redirect, a length.
async fn urls(config: &Config, store: &Store, key: &ObjectKey, clock: &Clock, report: &mut Report) {
    let area = "downloads";
    let now = clock.now();
    let (url, over) = match (store.presign(key, now).await, store.presign(key, long_ago(store, now)).await) {
        (Ok(url), Ok(over)) => (url, over),
        (Err(error), _) | (_, Err(error)) => {
            return report.error(area, format!("URLs cannot be signed: {error}"));
        }
    };
    let host =
        reqwest::Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    match download(&url).await {
        Err(error) => {
            return report.error(area, format!("{host} is not reached from here: {error}. S3_PUBLIC_ENDPOINT must be what printers reach, and this machine should too."));
        }
        Ok(Download { status: StatusCode::OK, length: Some(length), date, .. }) if length == CONTENT.len() as u64 => {
            report.ok(area, format!("a presigned URL of {host} serves HTTP/1.0 with its length"));
            skew(date, now, report);
        }
        Ok(found) => report.error(area, format!("a presigned URL of {host} answers HTTP/1.0 with {found}: printers want 200 and a Content-Length; see to the proxy in between, or set DELIVERY=link")),
    }
    match download(&over).await {
        Ok(Download { status: StatusCode::OK, .. }) => report.warning(
            area,
            format!("{host} serves a URL that has expired: whoever ever saw one can download for ever"),
        ),
        Ok(_) => report.ok(area, "a URL that has expired is refused"),
        Err(_) => {}
    }
    // A release's key is longer than this one by its version and channel.
    let longer = url.len() + "firmware//paperminder-1.10.12-stable.bin".len() - "staging/".len();
    let fits = config.downloads.max_url_length as usize;
    if longer > fits {
        report.warning(
            area,
            format!("URLs have about {longer} characters, beyond MAX_URL_LENGTH={fits}: printers get short links, and images stream through this server. Credentials with a session token do that; a CDN does not."),
        );
    } else {
        report.ok(area, format!("URLs have about {longer} characters, and printers take {fits}"));
    }
}

/// So long ago that what was signed then is over by some minutes.
fn long_ago(store: &Store, now: Time) -> Time {
    now - TimeDelta::from_std(store.expires() + Duration::from_secs(300)).unwrap_or(TimeDelta::days(8))
}

fn skew(date: Option<String>, now: Time, report: &mut Report) {
    let Some(theirs) = date.and_then(|date| DateTime::parse_from_rfc2822(&date).ok()) else { return };
    let apart = (theirs.to_utc() - now).abs();
    let text = format!("S3's clock and ours are {} s apart", apart.num_seconds());
    if apart > REFUSED {
        report.error(AREA, format!("{text}: it will refuse every signature; see to NTP"));
    } else if apart > SKEWED {
        report.warning(AREA, format!("{text}, and URLs live that much shorter or longer; see to NTP"));
    } else {
        report.ok(AREA, text);
    }
}
