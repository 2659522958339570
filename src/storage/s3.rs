//! The S3 client: one for ourselves, one that signs for the host that printers reach.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use axum::body::Body;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use secrecy::ExposeSecret;

use super::signed::{Signed, sha256};
use super::streams::Streams;
use super::{Error, ObjectKey};
use crate::clock::Time;
use crate::config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One try of a call that carries no bytes. The SDK tries three times, within [`CALL_TIMEOUT`].
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// All tries of such a call: a request that needs S3 is answered within it, even when packets vanish.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes a second that a line to S3 carries at least, or it counts as broken: a part may take 20 seconds longer than a
/// call without bytes.
const SLOWEST: u64 = 256 << 10;
/// Time without a byte after which an object on its way out counts as broken. A printer gives up after 8 seconds (the ESP8266 core's
/// updater), and the SDK's own 5 would break downloads that it still waits for.
const STALLED: Duration = Duration::from_secs(30);
/// Copies and the end of multipart uploads move up to 5 GiB inside S3.
const MOVE_TIMEOUT: Duration = Duration::from_secs(120);

/// The bucket.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) client: Client,
    pub(super) public: Client,
    pub(super) bucket: String,
    /// For bytes on their way out.
    streams: Streams,
    expires: Duration,
    encryption: Option<ServerSideEncryption>,
    kms_key: Option<String>,
    checksum: Option<ChecksumAlgorithm>,
}

/// An object on its way out.
pub struct Object {
    /// Bytes.
    pub length: u64,
    /// The bytes, as they arrive.
    pub body: Body,
}

impl Store {
    /// Makes the clients; nothing is sent yet. Credentials come from the SDK's own chain (environment, web identity,
    /// pod identity, instance profile) unless fixed ones are given.
    pub async fn connect(config: &config::Storage) -> Self {
        let timeouts = within(ATTEMPT_TIMEOUT, CALL_TIMEOUT);
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts);
        if let Some((id, secret)) = &config.credentials {
            loader = loader
                .credentials_provider(Credentials::new(
                    id,
                    secret.expose_secret(),
                    None,
                    None,
                    "configuration",
                ))
                .region(Region::new("us-east-1"));
        }
        let shared = loader.load().await;
        let client = |endpoint: Option<&url::Url>| {
            let mut builder = aws_sdk_s3::config::Builder::from(&shared).force_path_style(config.path_style);
            if shared.region().is_none() && config.endpoint.is_some() {
                // Look-alikes do not care which, but a signature needs one.
                builder = builder.region(Region::new("us-east-1"));
            }
            if config.checksum.is_none() {
                builder = builder.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
            }
            if let Some(url) = endpoint {
                builder = builder.endpoint_url(url.as_str().trim_end_matches('/'));
            }
            Client::from_conf(builder.build())
        };
        let endpoint = config.endpoint.as_ref();
        Self {
            client: client(endpoint),
            public: client(config.public_endpoint.as_ref().or(endpoint)),
            streams: Streams::new(CONNECT_TIMEOUT),
            bucket: config.bucket.clone(),
            expires: config.presign_expires,
            encryption: config.encryption.as_ref().map(|encryption| encryption.kind.clone()),
            kms_key: config.encryption.as_ref().and_then(|encryption| encryption.kms_key.clone()),
            checksum: config.checksum.clone(),
        }
    }

    /// Life of a presigned URL.
    pub fn expires(&self) -> Duration {
        self.expires
    }

    /// Writes a whole object.
    pub async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), Error> {
        self.put_hashed(key, bytes, None).await
    }

    /// Writes a whole object whose SHA-256 in hex may be known.
    pub(super) async fn put_hashed(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        hash: Option<String>,
    ) -> Result<(), Error> {
        let signed = Signed(hash.unwrap_or_else(|| sha256(&bytes)));
        let patience = carrying(bytes.len());
        let call = self.client.put_object().bucket(&self.bucket).key(key.as_str());
        let call = call
            .content_type("application/octet-stream")
            .set_server_side_encryption(self.encryption.clone())
            .set_ssekms_key_id(self.kms_key.clone())
            .set_checksum_algorithm(self.checksum.clone())
            .body(ByteStream::from(bytes));
        call.customize().config_override(patience).interceptor(signed).send().await.map_err(typed)?;
        Ok(())
    }

    /// Opens an object for reading.
    pub async fn get(&self, key: &ObjectKey) -> Result<Object, Error> {
        self.get_range(key, None).await
    }

    /// Opens an object, or its bytes from the first to the last of a range, both included.
    pub async fn get_range(&self, key: &ObjectKey, range: Option<(u64, u64)>) -> Result<Object, Error> {
        let (http, room) = self.streams.client();
        let stalled = StalledStreamProtectionConfig::enabled().grace_period(STALLED).build();
        let mut streams = aws_sdk_s3::Config::builder().stalled_stream_protection(stalled);
        streams.set_http_client(http);
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .set_range(range.map(|(first, last)| format!("bytes={first}-{last}")))
            .customize()
            .config_override(streams)
            .send()
            .await
            .map_err(typed)?;
        let length = answer.content_length.and_then(|length| u64::try_from(length).ok());
        let length = length.ok_or_else(|| Error::Other(format!("no Content-Length for {key}")))?;
        let bytes = Body::new(answer.body.into_inner()).into_data_stream();
        // The stream has its room until it is dropped.
        let body = Body::from_stream(bytes.inspect_ok(move |_| _ = &room));
        Ok(Object { length, body })
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.client.delete_object().bucket(&self.bucket).key(key.as_str()).send().await.map_err(typed)?;
        Ok(())
    }

    /// Copies within the bucket, without the bytes passing through here.
    pub async fn copy(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), Error> {
        let call = self.client.copy_object().bucket(&self.bucket).key(to.as_str());
        // A copy is encrypted anew, and does not inherit how; S3 computes the checksum from the bytes that it has.
        let call = call
            .copy_source(copy_source(&self.bucket, from))
            .set_server_side_encryption(self.encryption.clone())
            .set_ssekms_key_id(self.kms_key.clone())
            .set_checksum_algorithm(self.checksum.clone());
        call.customize().config_override(moving()).send().await.map_err(typed)?;
        Ok(())
    }

    /// A URL that downloads the object for `PRESIGN_EXPIRES_SECONDS` from `now`, at the host that printers reach.
    pub async fn presign(&self, key: &ObjectKey, now: Time) -> Result<String, Error> {
        let config = PresigningConfig::builder().expires_in(self.expires).start_time(now.into()).build();
        let config = config.map_err(|error| Error::Other(error.to_string()))?;
        let request = self.public.get_object().bucket(&self.bucket).key(key.as_str());
        Ok(request.presigned(config).await.map_err(typed)?.uri().to_owned())
    }

    /// Begins a multipart upload whose parts come with our checksum, or without any.
    pub(super) async fn multipart_create(&self, key: &ObjectKey, checked: bool) -> Result<String, Error> {
        let call = self.client.create_multipart_upload().bucket(&self.bucket).key(key.as_str());
        let call = call
            .content_type("application/octet-stream")
            .set_server_side_encryption(self.encryption.clone())
            .set_ssekms_key_id(self.kms_key.clone())
            .set_checksum_algorithm(self.checksum.clone().filter(|_| checked));
        let answer = if checked {
            call.send().await
        } else {
            call.customize().config_override(unchecked()).send().await
        };
        let upload = answer.map_err(typed)?.upload_id;
        upload.ok_or_else(|| Error::Other("a multipart upload without an id".into()))
    }

    pub(super) async fn multipart_part(
        &self,
        key: &ObjectKey,
        upload: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<CompletedPart, Error> {
        let (patience, signed) = (carrying(bytes.len()), Signed(sha256(&bytes)));
        let call = self.client.upload_part().bucket(&self.bucket).key(key.as_str()).upload_id(upload);
        let call = call.part_number(number).set_checksum_algorithm(self.checksum.clone());
        let call = call.body(ByteStream::from(bytes)).customize().config_override(patience);
        let answer = call.interceptor(signed).send().await.map_err(typed)?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .set_checksum_crc32_c(answer.checksum_crc32_c)
            .set_checksum_crc64_nvme(answer.checksum_crc64_nvme)
            .set_checksum_sha1(answer.checksum_sha1)
            .set_checksum_sha256(answer.checksum_sha256);
        Ok(part.build())
    }

    pub(super) async fn multipart_complete(
        &self,
        key: &ObjectKey,
        upload: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), Error> {
        let call =
            self.client.complete_multipart_upload().bucket(&self.bucket).key(key.as_str()).upload_id(upload);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let call = call.multipart_upload(parts).customize().config_override(moving());
        call.send().await.map_err(typed)?;
        Ok(())
    }

    pub(super) async fn multipart_abort(&self, key: &ObjectKey, upload: &str) -> Result<(), Error> {
        let call =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(key.as_str()).upload_id(upload);
        call.send().await.map_err(typed)?;
        Ok(())
    }
}

/// `x-amz-copy-source`, which must be URL-encoded: S3 reads a bare `+` as a space, though look-alikes do not. Nothing
/// else in our keys needs it.
fn copy_source(bucket: &str, key: &ObjectKey) -> String {
    format!("{bucket}/{}", key.as_str().replace('+', "%2B"))
}

fn within(attempt: Duration, all: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(all)
        .build()
}

/// Time-outs of a call that carries this many bytes.
fn carrying(bytes: usize) -> aws_sdk_s3::config::Builder {
    let longer = Duration::from_secs(bytes as u64 / SLOWEST);
    let timeouts = within(ATTEMPT_TIMEOUT + longer, CALL_TIMEOUT + 2 * longer);
    aws_sdk_s3::Config::builder().timeout_config(timeouts)
}

/// Time-outs of a call that makes S3 itself move bytes.
fn moving() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().timeout_config(within(MOVE_TIMEOUT / 2, MOVE_TIMEOUT))
}

/// A call about bytes that somebody else sends: there is no checksum that it could promise.
pub(super) fn unchecked() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
}

/// An error in a sentence: S3's own code, words and status, or what happened to the connection. The SDK's Debug would
/// add whole requests.
fn told<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(service) = error {
        let meta = service.err().meta();
        let words = [meta.code(), meta.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let status = service.raw().status().as_u16();
        return if words.is_empty() {
            format!("HTTP status {status}")
        } else {
            format!("{words} (HTTP status {status})")
        };
    }
    let mut texts = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup();
    texts.join(": ")
}

/// Sorts the SDK's errors into ours.
pub(super) fn typed<E>(error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let text = told(&error);
    match &error {
        SdkError::TimeoutError(_) => Error::Timeout(text),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Error::Timeout(text),
        SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Error::Unavailable(text),
        SdkError::ServiceError(service) => match service.raw().status().as_u16() {
            404 => Error::NotFound(text),
            401 | 403 => Error::Denied(text),
            501 => Error::Unsupported(text),
            429 | 500 | 502 | 503 | 504 => Error::Unavailable(text),
            _ => Error::Other(text),
        },
        _ => Error::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_in_a_key_is_encoded_where_s3_would_read_a_space() {
        let key = ObjectKey::stored("firmware/1/paperminder-1.5.0+abc-stable.bin".into());
        assert_eq!(copy_source("images", &key), "images/firmware/1/paperminder-1.5.0%2Babc-stable.bin");
    }
}
