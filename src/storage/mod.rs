//! Where the images are: S3 and what speaks its protocol.
//!
//! Names in the bucket exist only as [`ObjectKey`]; an object is written once and never changed. Bytes come in
//! through [`ObjectWriter`], which holds at most one part in memory, and go out as a stream or as a presigned URL
//! ([`Delivery`]).

mod bucket;
mod cdn;
mod delivery;
mod direct;
mod images;
mod key;
mod list;
mod remains;
mod s3;
mod signed;
mod streams;
mod writer;

pub use cdn::{BadKey, Cdn};
pub use delivery::{Address, Delivery, Mode};
pub use direct::Arrived;
pub use images::Images;
pub use key::ObjectKey;
pub use list::{Folder, Listed, OpenUpload, Page, UploadCursor};
pub use remains::Remains;
pub use s3::{Object, Store};
pub use writer::{Buffers, ObjectWriter, PART_SIZE};

/// What went wrong between us and S3. The texts are for logs; callers match on the kind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such object or bucket.
    #[error("S3 has no such bucket or object: {0}")]
    NotFound(String),
    /// Our credentials do not allow it.
    #[error("S3 refused access: {0}")]
    Denied(String),
    /// No answer, or one that says to come back.
    #[error("S3 is not available: {0}")]
    Unavailable(String),
    /// No answer in time.
    #[error("S3 did not answer in time: {0}")]
    Timeout(String),
    /// This server does not have the operation.
    #[error("S3 does not offer this: {0}")]
    Unsupported(String),
    /// Anything else.
    #[error("S3 failed: {0}")]
    Other(String),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;
    use crate::ids::FirmwareId;
    use crate::words::Channel;

    /// A store that can sign and does not connect to anything.
    async fn store(public: Option<&str>) -> Store {
        Store::connect(&config::Storage {
            bucket: "firmware".into(),
            endpoint: "http://minio.internal:9000".parse().ok(),
            public_endpoint: public.and_then(|url| url.parse().ok()),
            path_style: true,
            credentials: Some(("AKIDEXAMPLE".into(), "secret".to_owned().into())),
            presign_expires: Duration::from_secs(3600),
            encryption: None,
            checksum: None,
        })
        .await
    }

    fn key() -> ObjectKey {
        ObjectKey::firmware(FirmwareId(uuid::Uuid::nil()), &"1.5.0".to_owned().into(), Channel::Beta)
    }

    #[test]
    fn a_key_has_the_documented_shape() {
        assert_eq!(
            key().as_str(),
            "firmware/00000000-0000-0000-0000-000000000000/paperminder-1.5.0-beta.bin"
        );
    }

    #[test]
    fn only_a_key_that_we_would_make_is_recognised() {
        let release = "firmware/00000000-0000-0000-0000-000000000000/paperminder";
        for ours in [
            key().to_string(),
            format!("{release}-1.5.0-rc.1-x+b-7-canary.bin"),
            "staging/0197c3a0-1111-7222-8333-444455556666".into(),
        ] {
            assert_eq!(ObjectKey::recognise(&ours).map(|key| key.to_string()), Some(ours));
        }
        for foreign in [
            String::new(),
            "firmware/".into(),
            "firmware/notes.txt".into(),
            "firmware/00000000-0000-0000-0000-000000000000/".into(),
            format!("{release}-1.5.0-nightly.bin"),
            format!("{release}-1.5-stable.bin"),
            format!("{release}-1.5.0-stable.bin.bak"),
            format!("backup/{release}-1.5.0-stable.bin"),
            "firmware/{00000000-0000-0000-0000-000000000000}/paperminder-1.5.0-stable.bin".into(),
            "staging/00000000000000000000000000000000".into(),
            "staging/0197C3A0-1111-7222-8333-444455556666".into(),
            "staging/0197c3a0-1111-7222-8333-444455556666/part".into(),
            "Firmware/00000000-0000-0000-0000-000000000000/paperminder-1.5.0-stable.bin".into(),
        ] {
            assert_eq!(ObjectKey::recognise(&foreign), None, "{foreign}");
        }
    }

    #[tokio::test]
    async fn urls_are_signed_for_the_host_that_printers_reach() {
        let store = store(Some("https://files.example.com")).await;
        let url = store.presign(&key(), crate::clock::Clock::system().now()).await.unwrap();
        assert!(url.starts_with("https://files.example.com/firmware/firmware/"), "{url}");
        assert!(url.contains("X-Amz-Expires=3600") && url.contains("X-Amz-SignedHeaders=host"), "{url}");
        assert!(url.len() < 450, "{} characters do not fit what printers parse", url.len());
    }

    #[tokio::test]
    async fn a_url_serves_many_printers_for_a_minute_and_not_longer() {
        let clock = crate::clock::Clock::manual(chrono::DateTime::UNIX_EPOCH);
        let delivery = Delivery::new(store(None).await, Mode::Presigned, clock.clone());
        let first = delivery.address(&key(), 512).await.unwrap();
        clock.advance(Duration::from_secs(59));
        assert_eq!(delivery.address(&key(), 512).await.unwrap(), first);
        clock.advance(Duration::from_secs(2));
        assert_ne!(delivery.address(&key(), 512).await.unwrap(), first);
    }
}
