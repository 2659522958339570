//! A bucket on one of the two servers, and what can be seen of it from outside.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::ChecksumAlgorithm;
use paperminder_ota::config;
use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::storage::{ObjectKey, ObjectWriter, Store};
use paperminder_ota::words::Channel;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::weed::{self, Weed};
use crate::support::{embedded_s3, objects_in, raw};

/// One SeaweedFS for all tests of this process, because it takes seconds to start. Its leash ends it.
static SEAWEEDFS: OnceCell<Weed> = OnceCell::const_new();

pub const BUCKET: &str = "firmware";
pub const LIFE: Duration = Duration::from_secs(600);

pub struct Ground {
    pub endpoint: String,
    pub keys: (String, String),
    /// Only SeaweedFS has identities with fewer rights.
    pub reader: Option<(String, String)>,
    pub client: Client,
    embedded: Option<(EmbeddedS3, TempDir)>,
}

impl Ground {
    pub async fn embedded() -> Self {
        let (s3, folder) = embedded_s3().await;
        let keys = (s3.access_key().to_owned(), s3.secret_key().expose_secret().to_owned());
        let endpoint = s3.endpoint();
        Self { client: client(&endpoint, &keys), endpoint, keys, reader: None, embedded: Some((s3, folder)) }
    }

    pub async fn seaweedfs() -> Self {
        let owned = |(id, secret): (&str, &str)| (id.to_owned(), secret.to_owned());
        let weed = SEAWEEDFS
            .get_or_init(async || {
                let weed = Weed::start().await;
                client(&weed.endpoint, &owned(weed::ADMIN))
                    .create_bucket()
                    .bucket(BUCKET)
                    .send()
                    .await
                    .unwrap();
                weed
            })
            .await;
        let (endpoint, keys) = (weed.endpoint.clone(), owned(weed::ADMIN));
        Self {
            client: client(&endpoint, &keys),
            endpoint,
            keys,
            reader: Some(owned(weed::READER)),
            embedded: None,
        }
    }

    pub fn settings(&self) -> config::Storage {
        config::Storage {
            bucket: BUCKET.into(),
            endpoint: self.endpoint.parse().ok(),
            public_endpoint: None,
            path_style: true,
            credentials: Some((self.keys.0.clone(), self.keys.1.clone().into())),
            presign_expires: LIFE,
            encryption: None,
            checksum: Some(ChecksumAlgorithm::Crc32),
        }
    }

    pub async fn store(&self) -> Store {
        Store::connect(&self.settings()).await
    }

    /// All that is left of an upload: its staging object, its open multipart upload, its parts.
    pub async fn remains(&self, id: FirmwareId) -> Vec<String> {
        if let Some((_, folder)) = &self.embedded {
            // It lists no multipart uploads, but its folder tells.
            return objects_in(folder)
                .into_iter()
                .filter(|path| path.contains(".upload") || path.contains("staging/"))
                .collect();
        }
        let staging = ObjectKey::staging(id);
        let objects = self.client.list_objects_v2().bucket(BUCKET).prefix(staging.as_str());
        let objects = objects.send().await.unwrap();
        let uploads = self.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
        let objects = objects.contents().iter().filter_map(|object| object.key());
        let uploads = uploads.uploads().iter().filter_map(|upload| upload.key());
        objects.chain(uploads.filter(|key| *key == staging.as_str())).map(str::to_owned).collect()
    }

    /// Whether the object is there, asked without our code.
    pub async fn has(&self, key: &ObjectKey) -> bool {
        self.client.head_object().bucket(BUCKET).key(key.as_str()).send().await.is_ok()
    }

    /// A server that is there no longer.
    pub async fn close(self) {
        if let Some((s3, _folder)) = self.embedded {
            s3.stop().await;
        }
    }
}

fn client(endpoint: &str, (id, secret): &(String, String)) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(id, secret, None, None, "test"))
        .force_path_style(true);
    Client::from_conf(config.build())
}

/// A key of its own.
pub fn key(id: FirmwareId, version: &str) -> ObjectKey {
    ObjectKey::firmware(id, &version.to_owned().into(), Channel::Stable)
}

/// The whole object.
pub async fn read(store: &Store, key: &ObjectKey) -> Vec<u8> {
    let object = store.get(key).await.unwrap();
    let bytes = axum::body::to_bytes(object.body, usize::MAX).await.unwrap();
    assert_eq!(bytes.len() as u64, object.length);
    bytes.to_vec()
}

/// Writes so many bytes of noise in chunks of an odd size, and returns them.
pub async fn fill(writer: &mut ObjectWriter, length: usize) -> Vec<u8> {
    let bytes = raw::noise(length, length as u64);
    for chunk in bytes.chunks(70_001) {
        writer.write(chunk).await.unwrap();
    }
    bytes
}
