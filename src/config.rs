//! Settings: read once from the environment, checked before anything starts.
//!
//! Every wrong or missing setting is reported in one go, each with a sentence that names it, what stood there (never
//! a secret) and what is accepted. [`SETTINGS`] is the list that `--help` prints and that a test compares with the
//! README.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// One line of the configuration table.
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// What holds when it is not set; empty when it must be set.
    pub default: &'static str,
    /// What it does, with its unit.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// Every variable that the server reads itself. AWS's and OpenTelemetry's keep their standard names and meanings.
pub const SETTINGS: &[Setting] = &[
    setting("DATABASE_URL", "", "PostgreSQL, as postgres://user:password@host:5432/database"),
    setting(
        "DATABASE_MAX_CONNECTIONS",
        "20",
        "connections that one replica may hold, besides one for LISTEN",
    ),
    setting("S3_BUCKET", "firmware", "bucket of the images"),
    setting(
        "S3_PUBLIC_ENDPOINT",
        "that of AWS_ENDPOINT_URL_S3",
        "S3 endpoint as printers reach it, put into presigned URLs",
    ),
    setting(
        "S3_PATH_STYLE",
        "true when an endpoint is set",
        "http://host/bucket/key instead of http://bucket.host/key",
    ),
    setting("BASE_URL", "http://localhost:8000", "this server as others reach it, put into file_url"),
    setting("LISTEN_ADDR", "0.0.0.0:8000", "address of REST and of the printers' sockets"),
    setting("INTERNAL_ADDR", "0.0.0.0:9000", "address of /livez, /readyz and /metrics; not for the public"),
    setting("AUTH", "on", "`on`: REST needs a key; `off`: it does not, allowed on loopback addresses only"),
    setting(
        "BOOTSTRAP_ADMIN_KEY_FILE",
        "",
        "file with the admin key for REST, at least 24 characters; needed while AUTH is on",
    ),
    setting(
        "CORS_ALLOWED_ORIGINS",
        "none",
        "origins of browser pages that may call REST, separated by commas, or *",
    ),
    setting("MAX_FIRMWARE_SIZE", "5242880", "largest image, in bytes"),
    setting(
        "MAX_CONCURRENT_UPLOADS",
        "24",
        "uploads that may hold a 5 MiB buffer at once; further ones wait",
    ),
    setting(
        "DELIVERY",
        "presigned",
        "how printers get images: `presigned` S3 URLs, a `cdn`, or a `link` of this server",
    ),
    setting(
        "MAX_URL_LENGTH",
        "512",
        "longest URL for a printer that does not say what it takes; beyond it it gets a link",
    ),
    setting("PRESIGN_EXPIRES_SECONDS", "3600", "life of every kind of download URL, 60 to 604800"),
    setting("CDN_BASE_URL", "", "the CDN in front of the bucket; needed for DELIVERY=cdn"),
    setting("CDN_KEY_PAIR_ID", "", "id of the CloudFront public key; URLs are signed when it is set"),
    setting(
        "CDN_PRIVATE_KEY_FILE",
        "",
        "its private key as PEM, ECDSA P-256 or RSA-2048; goes with CDN_KEY_PAIR_ID",
    ),
    setting(
        "MAX_CONCURRENT_DOWNLOADS",
        "1000",
        "downloads through links that one replica streams at once; further ones get 503",
    ),
    setting("DOWNLOADS_PER_ADDRESS", "1200", "downloads through links that one address may start a minute"),
    setting(
        "MAX_ATTEMPTS",
        "3",
        "tries of one rollout with one printer before it counts as failed, 1 to 100",
    ),
    setting(
        "RETRY_BACKOFF_SECONDS",
        "30",
        "wait before a second try; doubles with each further one, up to a day",
    ),
    setting("STUCK_AFTER_SECONDS", "1800", "silence after which an open update fails with reason `timeout`"),
    setting("MAX_CONNECTIONS", "16000", "printers' sockets that one replica holds; further ones get 503"),
    setting("DRAIN_SECONDS", "30", "time over which sockets are let go on SIGTERM"),
    setting("LOG_FORMAT", "text", "`text` for people, `json` for machines"),
    setting("RUST_LOG", "info", "log levels, as in `info,sqlx=warn`"),
];

/// Who may call REST.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Everyone; the listener is on loopback.
    Off,
    /// Whoever holds the key.
    On {
        /// The first administrator's key.
        admin_key: SecretString,
    },
}

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
    pub database_url: SecretString,
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
    /// Browser pages of other origins.
    pub cors: Cors,
    /// Largest image, in bytes.
    pub max_firmware_size: u64,
    /// Uploads that hold a buffer at once.
    pub max_concurrent_uploads: u32,
    /// Retries and time-outs of updates.
    pub attempts: Attempts,
    /// Printers' sockets at once.
    pub max_connections: u32,
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

/// Reads variables and remembers what was wrong.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    wrong: Vec<String>,
}

impl Reader<'_> {
    /// The variable under its name or, as the operator's guide writes some, in lower case. Empty counts as unset.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
            .or_else(|| (self.lookup)(&name.to_lowercase()))
            .filter(|text| !text.trim().is_empty())
    }

    fn parsed<T>(&mut self, name: &str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let Some(text) = self.text(name) else { return default };
        parse(text.trim()).unwrap_or_else(|why| {
            self.wrong.push(format!("{name}=`{text}`: {why}."));
            default
        })
    }

    fn number<T: FromStr + PartialOrd + fmt::Display>(
        &mut self,
        name: &str,
        default: T,
        least: T,
        most: T,
    ) -> T {
        self.parsed(name, default, |text| {
            text.parse()
                .ok()
                .filter(|n| (&least..=&most).contains(&n))
                .ok_or(format!("must be a whole number from {least} to {most}"))
        })
    }

    fn seconds(&mut self, name: &str, default: u64, least: u64, most: u64) -> Duration {
        Duration::from_secs(self.number(name, default, least, most))
    }

    /// The value may hold a password, so it is never repeated.
    fn database_url(&mut self) -> SecretString {
        let url = self.text("DATABASE_URL").unwrap_or_default();
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            self.wrong.push(
                "DATABASE_URL must be set to a PostgreSQL database, as in postgres://user:password@host:5432/paperminder.".into(),
            );
        }
        url.into()
    }

    fn address(&mut self, name: &str, default: SocketAddr) -> SocketAddr {
        self.parsed(name, default, |text| {
            text.parse().map_err(|_| "must be an address and a port, as in 0.0.0.0:8000".to_owned())
        })
    }

    fn url(&mut self, name: &str) -> Option<Url> {
        self.parsed(name, None, |text| match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(Some(url)),
            _ => Err("must be an http:// or https:// URL".to_owned()),
        })
    }
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// Reads `DATABASE_URL` alone, for commands that need nothing else.
    pub fn database_from_env() -> Result<SecretString, Error> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let mut read = Reader { lookup: &|name| std::env::var(name).ok(), wrong: Vec::new() };
        let url = read.database_url();
        if read.wrong.is_empty() { Ok(url) } else { Err(Error(read.wrong)) }
    }

    /// Reads settings from anything that maps names to values.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut read = Reader { lookup, wrong: Vec::new() };
        let database_url = read.database_url();
        let listen_addr = read.address("LISTEN_ADDR", SocketAddr::from(([0, 0, 0, 0], 8000)));
        let endpoint = read.url("AWS_ENDPOINT_URL_S3").or_else(|| read.url("AWS_ENDPOINT_URL"));
        let public_endpoint = read.url("S3_PUBLIC_ENDPOINT");
        let path_style =
            read.parsed("S3_PATH_STYLE", endpoint.is_some() || public_endpoint.is_some(), |text| {
                text.parse().map_err(|_| "must be `true` or `false`".to_owned())
            });
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
        let config = Self {
            database_url,
            database_max_connections: read.number("DATABASE_MAX_CONNECTIONS", 20, 2, 1000),
            storage: Storage {
                bucket: read.text("S3_BUCKET").unwrap_or_else(|| "firmware".into()),
                endpoint,
                public_endpoint,
                path_style,
                credentials: None,
                presign_expires: read.seconds("PRESIGN_EXPIRES_SECONDS", 3600, 60, 604_800),
            },
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
            },
            internal_addr: read.address("INTERNAL_ADDR", SocketAddr::from(([0, 0, 0, 0], 9000))),
            auth,
            cors,
            // 5 GiB is the largest object that S3 copies in one request.
            max_firmware_size: read.number("MAX_FIRMWARE_SIZE", 5_242_880, 1, 5 << 30),
            max_concurrent_uploads: read.number("MAX_CONCURRENT_UPLOADS", 24, 1, 10_000),
            attempts: Attempts {
                max: read.number("MAX_ATTEMPTS", 3, 1, 100),
                backoff: read.seconds("RETRY_BACKOFF_SECONDS", 30, 0, 86_400),
                stuck_after: read.seconds("STUCK_AFTER_SECONDS", 1800, 1, 30 * 86_400),
            },
            max_connections: read.number("MAX_CONNECTIONS", 16_000, 1, 1_000_000),
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

/// Downloads that one address may start a minute unless told otherwise: a house full of printers behind one router.
const PER_ADDRESS: NonZeroU32 = NonZeroU32::new(1200).unwrap();

fn read_delivery(read: &mut Reader<'_>) -> Delivery {
    let mode = read.parsed("DELIVERY", "presigned", |text| match text {
        "presigned" => Ok("presigned"),
        "cdn" => Ok("cdn"),
        "link" => Ok("link"),
        _ => Err("must be `presigned`, `cdn` or `link`".to_owned()),
    });
    let base_url = read.url("CDN_BASE_URL").map(|url| url.to_string().trim_end_matches('/').to_owned());
    let key = match (read.text("CDN_KEY_PAIR_ID"), read.text("CDN_PRIVATE_KEY_FILE")) {
        (None, None) => None,
        (Some(id), Some(path)) => match std::fs::read_to_string(&path) {
            Ok(pem) => Some((id, SecretString::from(pem))),
            Err(error) => {
                read.wrong.push(format!("CDN_PRIVATE_KEY_FILE: {path} cannot be read: {error}."));
                None
            }
        },
        _ => {
            read.wrong.push(
                "CDN_KEY_PAIR_ID and CDN_PRIVATE_KEY_FILE go together: set both, or none for unsigned URLs."
                    .into(),
            );
            None
        }
    };
    match (mode, base_url) {
        ("link", _) => Delivery::Link,
        ("cdn", Some(base_url)) => Delivery::Cdn { base_url, key },
        ("cdn", None) => {
            read.wrong.push(
                "CDN_BASE_URL must be set for DELIVERY=cdn, as in https://d111111abcdef8.cloudfront.net."
                    .into(),
            );
            Delivery::Presigned
        }
        _ => Delivery::Presigned,
    }
}

fn read_auth(read: &mut Reader<'_>, listens_on: IpAddr) -> Auth {
    let wanted = read.parsed("AUTH", true, |text| match text {
        "on" => Ok(true),
        "off" if listens_on.is_loopback() => Ok(false),
        "off" => Err(format!("is allowed on a loopback address only, and LISTEN_ADDR is on {listens_on}; set LISTEN_ADDR=127.0.0.1:8000 or AUTH=on")),
        _ => Err("must be `on` or `off`".to_owned()),
    });
    if !wanted {
        return Auth::Off;
    }
    let admin_key = match read.text("BOOTSTRAP_ADMIN_KEY_FILE").map(PathBuf::from) {
        None => Err("BOOTSTRAP_ADMIN_KEY_FILE must name a file with the admin key while AUTH is on; \
                     `head -c 32 /dev/urandom | base64 > admin.key` makes one."
            .to_owned()),
        Some(path) => match std::fs::read_to_string(&path) {
            Err(error) => {
                Err(format!("BOOTSTRAP_ADMIN_KEY_FILE: {} cannot be read: {error}.", path.display()))
            }
            Ok(text) if text.trim().len() < 24 => Err(format!(
                "BOOTSTRAP_ADMIN_KEY_FILE: the key in {} has fewer than 24 characters; make a longer one.",
                path.display()
            )),
            Ok(text) => Ok(text.trim().to_owned()),
        },
    };
    let admin_key = admin_key.unwrap_or_else(|why| {
        read.wrong.push(why);
        String::new()
    });
    Auth::On { admin_key: admin_key.into() }
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
    fn authentication_is_on_unless_told_otherwise() {
        let text = read(&LEAST[..1]).map(|_| ()).map_err(|error| error.to_string()).unwrap_err();
        assert!(text.contains("BOOTSTRAP_ADMIN_KEY_FILE must name a file"), "{text}");
    }

    #[test]
    fn debug_shows_no_secret() -> Result<(), Error> {
        assert!(!format!("{:?}", read(&LEAST)?).contains("hunter2"));
        Ok(())
    }
}
