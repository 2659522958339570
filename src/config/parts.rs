//! The parts of the configuration that several variables decide together.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use aws_sdk_s3::types::{ChecksumAlgorithm, ServerSideEncryption};
use secrecy::SecretString;

use super::reader::Reader;
use super::{Auth, Delivery, Encryption, Storage};

/// Downloads that one address may start a minute unless told otherwise: a house full of printers behind one router.
pub(super) const PER_ADDRESS: NonZeroU32 = NonZeroU32::new(1200).unwrap();

/// Wrong keys a minute and address: a house full of printers with an old one makes two a second each.
pub(super) const WRONG_KEYS: NonZeroU32 = NonZeroU32::new(600).unwrap();

/// Sockets that may come a second: as many printers can be written down.
const CONNECTS: NonZeroU32 = NonZeroU32::new(2000).unwrap();
/// Sockets that one address may open a minute: it may be a proxy's.
const CONNECTS_PER_ADDRESS: NonZeroU32 = NonZeroU32::new(60_000).unwrap();
/// Connections beside the printers' sockets: of REST, downloads, and those that are about to be refused.
const BESIDE_SOCKETS: u32 = 4000;

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Of every kind at once.
    pub open: u32,
    /// Printers' sockets at once.
    pub sockets: u32,
    /// New sockets a second.
    pub per_second: NonZeroU32,
    /// New sockets a minute and address.
    pub per_address: NonZeroU32,
}

pub(super) fn read_connections(read: &mut Reader<'_>) -> Connections {
    let sockets = read.number("MAX_CONNECTIONS", 16_000, 1, 1_000_000);
    Connections {
        open: read.number("MAX_OPEN_CONNECTIONS", sockets + BESIDE_SOCKETS, 1, 2_000_000),
        sockets,
        per_second: read.number("CONNECTS_PER_SECOND", CONNECTS, NonZeroU32::MIN, NonZeroU32::MAX),
        per_address: read.number(
            "CONNECTS_PER_ADDRESS",
            CONNECTS_PER_ADDRESS,
            NonZeroU32::MIN,
            NonZeroU32::MAX,
        ),
    }
}

pub(super) fn read_storage(read: &mut Reader<'_>) -> Storage {
    let endpoint = read.url("AWS_ENDPOINT_URL_S3").or_else(|| read.url("AWS_ENDPOINT_URL"));
    let public_endpoint = read.url("S3_PUBLIC_ENDPOINT");
    let path_style = read.parsed("S3_PATH_STYLE", endpoint.is_some() || public_endpoint.is_some(), |text| {
        text.parse().map_err(|_| "must be `true` or `false`".to_owned())
    });
    Storage {
        bucket: read.text("S3_BUCKET").unwrap_or_else(|| "firmware".into()),
        endpoint,
        public_endpoint,
        path_style,
        credentials: None,
        presign_expires: read.seconds("PRESIGN_EXPIRES_SECONDS", 3600, 60, 604_800),
        encryption: read_encryption(read),
        checksum: read.parsed("S3_CHECKSUM", Some(ChecksumAlgorithm::Crc32), |text| match text {
            "none" => Ok(None),
            "crc32" => Ok(Some(ChecksumAlgorithm::Crc32)),
            "crc32c" => Ok(Some(ChecksumAlgorithm::Crc32C)),
            "crc64nvme" => Ok(Some(ChecksumAlgorithm::Crc64Nvme)),
            "sha1" => Ok(Some(ChecksumAlgorithm::Sha1)),
            "sha256" => Ok(Some(ChecksumAlgorithm::Sha256)),
            _ => Err("must be `none`, `crc32`, `crc32c`, `crc64nvme`, `sha1` or `sha256`".to_owned()),
        }),
    }
}

fn read_encryption(read: &mut Reader<'_>) -> Option<Encryption> {
    let kind = read.parsed("S3_SERVER_SIDE_ENCRYPTION", None, |text| match text {
        "AES256" => Ok(Some(ServerSideEncryption::Aes256)),
        "aws:kms" => Ok(Some(ServerSideEncryption::AwsKms)),
        "aws:kms:dsse" => Ok(Some(ServerSideEncryption::AwsKmsDsse)),
        _ => Err("must be `AES256`, `aws:kms` or `aws:kms:dsse`".to_owned()),
    });
    let kms_key = read.text("S3_SSE_KMS_KEY_ID");
    if kms_key.is_some() && matches!(kind, None | Some(ServerSideEncryption::Aes256)) {
        let text = "S3_SSE_KMS_KEY_ID goes with S3_SERVER_SIDE_ENCRYPTION=aws:kms or aws:kms:dsse: set that too, or no key.";
        read.wrong.push(text.into());
    }
    kind.map(|kind| Encryption { kind, kms_key })
}

pub(super) fn read_delivery(read: &mut Reader<'_>) -> Delivery {
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

pub(super) fn read_auth(read: &mut Reader<'_>, listens_on: IpAddr) -> Auth {
    let sure = read.parsed("OPEN_TO_EVERYBODY_WHO_REACHES_IT", false, |text| match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("must be `yes` or `no`".to_owned()),
    });
    let wanted = read.parsed("AUTH", true, |text| match text {
        "on" => Ok(true),
        "off" if sure || listens_on.is_loopback() => Ok(false),
        "off" => Err(format!("is allowed on a loopback address only, and LISTEN_ADDR is on {listens_on}; set LISTEN_ADDR=127.0.0.1:8000 or AUTH=on, or OPEN_TO_EVERYBODY_WHO_REACHES_IT=yes if whoever reaches it may install anything on every printer")),
        _ => Err("must be `on` or `off`".to_owned()),
    });
    if !wanted {
        return Auth::Off;
    }
    let admin_key = read.text("BOOTSTRAP_ADMIN_KEY_FILE").map(PathBuf::from).and_then(|path| {
        let why = match std::fs::read_to_string(&path) {
            Err(error) => format!("cannot be read: {error}"),
            Ok(text) if text.trim().len() < 24 => {
                "holds a key of fewer than 24 characters; `head -c 32 /dev/urandom | base64` makes a good one"
                    .into()
            }
            Ok(text) => return Some(text.trim().to_owned()),
        };
        read.wrong.push(format!("BOOTSTRAP_ADMIN_KEY_FILE: {} {why}.", path.display()));
        None
    });
    Auth::On { admin_key: admin_key.map(Into::into) }
}
