//! Settings: read once from the environment, checked before anything starts.
//!
//! Every wrong or missing setting is reported in one go, each with a sentence that names it, what stood there (never
//! a secret) and what is accepted. [`SETTINGS`] is the list that `--help` prints and that a test compares with the
//! README.

mod database;
mod edge;
mod parts;
mod people;
mod reader;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use aws_sdk_s3::types::{ChecksumAlgorithm, ServerSideEncryption};
use secrecy::SecretString;
use url::Url;

pub use self::database::Database;
use self::database::read_database;
use self::edge::read_edge;
pub use self::edge::{Edge, RestQuotas, TlsFiles};
pub use self::parts::Connections;
use self::parts::{PER_ADDRESS, WRONG_KEYS, read_auth, read_connections, read_delivery, read_storage};
use self::people::read_people;
pub use self::people::{Client, Oidc, People, ROLES, is_private};
use self::reader::Reader;
pub use self::settings::{SETTINGS, Setting};
use crate::words::vocabulary;

/// Who may call REST.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Everyone who reaches the listener, which is on loopback unless it was asked for twice.
    Off,
    /// Whoever holds a key.
    On {
        /// The first administrator's, until keys are made with it.
        admin_key: Option<SecretString>,
    },
}

vocabulary!(
    /// Which printers are let in.
    PrinterAuth {
        /// Whoever shows the key that it showed first, or one that was made for it or its user.
        #[default]
        Enroll = "enroll",
        /// Whoever shows a key that was made for it or its user.
        Registered = "registered",
        /// Everybody.
        Open = "open",
    }
);

/// Which pages of other origins may call REST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// `*`.
    Any,
    /// These origins, none when empty.
    Only(Vec<String>),
}

/// Where the images are.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Bucket of the images.
    pub bucket: String,
    /// Endpoint for the server itself; AWS's own when absent.
    pub endpoint: Option<Url>,
    /// Endpoint for printers; the server's when absent.
    pub public_endpoint: Option<Url>,
    /// `http://host/bucket/key` instead of `http://bucket.host/key`.
    pub path_style: bool,
    /// Fixed credentials, for the embedded endpoint; the SDK's own chain when absent.
    pub credentials: Option<(String, SecretString)>,
    /// Life of a presigned URL.
    pub presign_expires: Duration,
    /// How objects are encrypted; as the bucket says when absent.
    pub encryption: Option<Encryption>,
    /// Checksum that goes along with the bytes of an upload, for S3 to check and keep.
    pub checksum: Option<ChecksumAlgorithm>,
}

/// Server-side encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// Whose keys.
    pub kind: ServerSideEncryption,
    /// Id or ARN of the KMS key; AWS's own when absent.
    pub kms_key: Option<String>,
}

/// How printers get images.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// S3 presigned GET.
    Presigned,
    /// A CDN in front of the bucket.
    Cdn {
        /// Its URL, without a trailing slash.
        base_url: String,
        /// Id and PEM private key for signed URLs.
        key: Option<(String, SecretString)>,
    },
    /// Links of our own, always.
    Link,
}

/// Bounds on downloads.
#[derive(Clone, Copy, Debug)]
pub struct Downloads {
    /// Longest URL for a printer that does not say what it takes, in characters.
    pub max_url_length: u32,
    /// Streams at once.
    pub concurrent: u32,
    /// Starts a minute and address.
    pub per_address: NonZeroU32,
    /// Bytes of images in memory.
    pub cache: u64,
}

/// Bounds on what reports to people.
#[derive(Clone, Copy, Debug)]
pub struct Reporting {
    /// Clients that watch events at once.
    pub event_streams: u32,
    /// How long events are kept.
    pub event_retention: Duration,
    /// Exports at once.
    pub exports: u32,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How often and how patiently printers are tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// Tries of one rollout with one printer.
    pub max: u32,
    /// Wait before the second try; doubles from there.
    pub backoff: Duration,
    /// Silence after which an open update has failed.
    pub stuck_after: Duration,
}

/// All settings of `serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// PostgreSQL.
    pub database: Database,
    /// Connections in the pool.
    pub database_max_connections: u32,
    /// S3.
    pub storage: Storage,
    /// This server as others reach it, without a trailing slash.
    pub base_url: String,
    /// REST and sockets.
    pub listen_addr: SocketAddr,
    /// Health and metrics.
    pub internal_addr: SocketAddr,
    /// How printers get images.
    pub delivery: Delivery,
    /// Bounds on downloads.
    pub downloads: Downloads,
    /// Who may call REST.
    pub auth: Auth,
    /// Which printers are let in.
    pub printer_auth: PrinterAuth,
    /// Wrong keys a minute and address, before printers from there that are not known are not heard.
    pub wrong_keys: NonZeroU32,
    /// How people are known.
    pub people: People,
    /// Browser pages of other origins.
    pub cors: Cors,
    /// Largest image, in bytes.
    pub max_firmware_size: u64,
    /// Longest time for one upload.
    pub upload_timeout: Duration,
    /// Uploads that hold a buffer at once.
    pub max_concurrent_uploads: u32,
    /// How often the garbage is collected; never when none.
    pub gc_every: Option<Duration>,
    /// Retries and time-outs of updates.
    pub attempts: Attempts,
    /// Bounds on events and exports.
    pub reporting: Reporting,
    /// Bounds on connections.
    pub connections: Connections,
    /// The edge to the outside.
    pub edge: Edge,
    /// Time over which sockets are let go.
    pub drain: Duration,
    /// How logs look.
    pub log_format: LogFormat,
    /// Log levels.
    pub log_filter: String,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error(Vec<String>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Reads some of the settings from the process's environment.
fn part_from_env<T>(part: impl Fn(&mut Reader<'_>) -> T) -> Result<T, Error> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let mut read = Reader { lookup: &|name| std::env::var(name).ok(), wrong: Vec::new() };
    let value = part(&mut read);
    if read.wrong.is_empty() { Ok(value) } else { Err(Error(read.wrong)) }
}

fn read_internal(read: &mut Reader<'_>) -> SocketAddr {
    read.address("INTERNAL_ADDR", SocketAddr::from(([0, 0, 0, 0], 9000)))
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// Reads where the database is, for commands that need nothing else.
    pub fn database_from_env() -> Result<Database, Error> {
        part_from_env(read_database)
    }

    /// Reads the database and S3, for commands on the data.
    pub fn data_from_env() -> Result<(Database, Storage), Error> {
        part_from_env(|read| (read_database(read), read_storage(read)))
    }

    /// Reads where health is asked for.
    pub fn internal_from_env() -> Result<SocketAddr, Error> {
        part_from_env(read_internal)
    }

    /// Reads settings from anything that maps names to values.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut read = Reader { lookup, wrong: Vec::new() };
        let database = read_database(&mut read);
        let listen_addr = read.address("LISTEN_ADDR", SocketAddr::from(([0, 0, 0, 0], 8000)));
        let storage = read_storage(&mut read);
        let base_url =
            read.url("BASE_URL").map_or_else(|| "http://localhost:8000".into(), |url| url.to_string());
        let auth = read_auth(&mut read, listen_addr.ip());
        let delivery = read_delivery(&mut read);
        let cors = match read.text("CORS_ALLOWED_ORIGINS").as_deref().map(str::trim) {
            None => Cors::Only(Vec::new()),
            Some("*") => Cors::Any,
            Some(list) => Cors::Only(
                list.split(',').map(|origin| origin.trim().trim_end_matches('/').to_owned()).collect(),
            ),
        };
        if let Cors::Only(origins) = &cors {
            for origin in origins.iter().filter(|origin| {
                Url::parse(origin).is_ok_and(|url| url.path().len() > 1) || Url::parse(origin).is_err()
            }) {
                read.wrong.push(format!("CORS_ALLOWED_ORIGINS: `{origin}` must be an origin such as https://console.example.com, or *."));
            }
        }
        let people = read_people(&mut read, base_url.trim_end_matches('/'), matches!(auth, Auth::On { .. }));
        let config = Self {
            database,
            database_max_connections: read.number("DATABASE_MAX_CONNECTIONS", 20, 2, 1000),
            storage,
            base_url: base_url.trim_end_matches('/').to_owned(),
            listen_addr,
            delivery,
            downloads: Downloads {
                max_url_length: read.number("MAX_URL_LENGTH", 512, 1, 100_000),
                concurrent: read.number("MAX_CONCURRENT_DOWNLOADS", 1000, 1, 100_000),
                per_address: read.number(
                    "DOWNLOADS_PER_ADDRESS",
                    PER_ADDRESS,
                    NonZeroU32::MIN,
                    NonZeroU32::MAX,
                ),
                cache: read.number("DOWNLOAD_CACHE_BYTES", 32 << 20, 0, 4 << 30),
            },
            internal_addr: read_internal(&mut read),
            auth,
            printer_auth: read.parsed("PRINTER_AUTH", PrinterAuth::default(), |text| {
                text.parse().map_err(|_| "must be `enroll`, `registered` or `open`".to_owned())
            }),
            wrong_keys: read.number(
                "WRONG_PRINTER_KEYS_PER_ADDRESS",
                WRONG_KEYS,
                NonZeroU32::MIN,
                NonZeroU32::MAX,
            ),
            people,
            cors,
            // 5 GiB is the largest object that S3 copies in one request.
            max_firmware_size: read.number("MAX_FIRMWARE_SIZE", 5_242_880, 1, 5 << 30),
            // Half as long as it takes until what an upload left is garbage.
            upload_timeout: read.seconds("UPLOAD_TIMEOUT_SECONDS", 900, 10, 43_200),
            max_concurrent_uploads: read.number("MAX_CONCURRENT_UPLOADS", 24, 1, 10_000),
            gc_every: Some(read.seconds("GC_EVERY_SECONDS", 3600, 0, 604_800))
                .filter(|every| !every.is_zero()),
            attempts: Attempts {
                max: read.number("MAX_ATTEMPTS", 3, 1, 100),
                backoff: read.seconds("RETRY_BACKOFF_SECONDS", 30, 0, 86_400),
                stuck_after: read.seconds("STUCK_AFTER_SECONDS", 1800, 1, 30 * 86_400),
            },
            reporting: Reporting {
                event_streams: read.number("MAX_EVENT_STREAMS", 100, 1, 100_000),
                event_retention: Duration::from_secs(
                    3600 * read.number::<u64>("EVENTS_RETENTION_HOURS", 24, 1, 24 * 366),
                ),
                exports: read.number("MAX_CONCURRENT_EXPORTS", 2, 1, 100),
            },
            connections: read_connections(&mut read),
            edge: read_edge(&mut read),
            drain: read.seconds("DRAIN_SECONDS", 30, 0, 3600),
            log_format: read.parsed("LOG_FORMAT", LogFormat::Text, |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("must be `text` or `json`".to_owned()),
            }),
            log_filter: read.text("RUST_LOG").unwrap_or_else(|| "info".into()),
        };
        if read.wrong.is_empty() { Ok(config) } else { Err(Error(read.wrong)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::from_lookup(&|name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    const LEAST: [(&str, &str); 3] =
        [("DATABASE_URL", "postgres://u:hunter2@db/pm"), ("AUTH", "off"), ("LISTEN_ADDR", "127.0.0.1:8000")];

    #[test]
    fn defaults_are_the_documented_ones() -> Result<(), Error> {
        let config = read(&LEAST)?;
        assert_eq!(config.max_firmware_size, 5_242_880);
        assert_eq!(config.base_url, "http://localhost:8000");
        assert_eq!(config.internal_addr.port(), 9000);
        assert_eq!(config.storage.presign_expires, Duration::from_secs(3600));
        Ok(())
    }

    #[test]
    fn the_guides_lower_case_names_are_understood() -> Result<(), Error> {
        let mut pairs = LEAST.to_vec();
        pairs.extend([("max_firmware_size", "9"), ("base_url", "https://ota.example.com/")]);
        let config = read(&pairs)?;
        assert_eq!((config.max_firmware_size, config.base_url.as_str()), (9, "https://ota.example.com"));
        Ok(())
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_no_secret_with_it() {
        let text = read(&[
            ("DATABASE_URL", "mysql://u:hunter2@db/pm"),
            ("AUTH", "off"),
            ("MAX_ATTEMPTS", "0"),
            ("LOG_FORMAT", "xml"),
            ("S3_PUBLIC_ENDPOINT", "cdn.example.com"),
        ])
        .map(|_| ())
        .map_err(|error| error.to_string())
        .unwrap_err();
        for part in [
            "DATABASE_URL must",
            "AUTH=`off`: is allowed on a loopback",
            "MAX_ATTEMPTS=`0`: must be a whole number from 1 to 100",
            "LOG_FORMAT",
            "S3_PUBLIC_ENDPOINT=`cdn",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn encryption_and_checksums_are_asked_for_by_name() -> Result<(), Error> {
        let storage = |more: &[(&str, &str)]| read(&[&LEAST, more].concat()).map(|config| config.storage);
        let usual = storage(&[])?;
        assert_eq!((usual.encryption, usual.checksum), (None, Some(ChecksumAlgorithm::Crc32)));
        let kms = storage(&[
            ("S3_SERVER_SIDE_ENCRYPTION", "aws:kms:dsse"),
            ("S3_SSE_KMS_KEY_ID", "alias/firmware"),
            ("S3_CHECKSUM", "none"),
        ])?;
        let wanted =
            Encryption { kind: ServerSideEncryption::AwsKmsDsse, kms_key: Some("alias/firmware".into()) };
        assert_eq!((kms.encryption, kms.checksum), (Some(wanted), None));
        for (wrong, part) in [
            (("S3_SERVER_SIDE_ENCRYPTION", "aes"), "must be `AES256`, `aws:kms` or `aws:kms:dsse`"),
            (("S3_SSE_KMS_KEY_ID", "alias/firmware"), "goes with S3_SERVER_SIDE_ENCRYPTION=aws:kms"),
            (("S3_CHECKSUM", "md5"), "S3_CHECKSUM=`md5`: must be `none`, `crc32`,"),
        ] {
            let text = storage(&[wrong]).map(|_| ()).map_err(|error| error.to_string()).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
        Ok(())
    }

    #[test]
    fn authentication_is_on_unless_told_otherwise() -> Result<(), Error> {
        assert!(matches!(read(&LEAST[..1])?.auth, Auth::On { admin_key: None }));
        Ok(())
    }

    #[test]
    fn a_bootstrap_key_that_is_no_key_stops_the_start() -> std::io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "too short\n")?;
        for (path, part) in
            [(file.path().to_str().unwrap_or_default(), "fewer than 24"), ("/nowhere/key", "cannot be read")]
        {
            let text = read(&[LEAST[0], ("BOOTSTRAP_ADMIN_KEY_FILE", path)])
                .map(|_| ())
                .map_err(|error| error.to_string());
            assert!(text.as_ref().is_err_and(|text| text.contains(part) && text.contains(path)), "{text:?}");
        }
        Ok(())
    }

    #[test]
    fn debug_shows_no_secret() -> Result<(), Error> {
        assert!(!format!("{:?}", read(&LEAST)?).contains("hunter2"));
        Ok(())
    }
}
