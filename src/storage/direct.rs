//! Parts that a client puts into S3 itself, by presigned URLs.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::CompletedPart;

use super::list::onward;
use super::s3::{typed, unchecked};
use super::{Error, ObjectKey, Store};
use crate::clock::Time;
use crate::ids::FirmwareId;

/// A part as S3 has it.
#[derive(Debug)]
pub struct Arrived {
    /// Bytes.
    pub length: u64,
    /// Its entity tag; the embedded S3 does not tell it.
    pub tag: Option<String>,
}

impl Store {
    /// Begins a multipart upload of the staging object, and returns S3's name of it.
    pub async fn direct_begin(&self, id: FirmwareId) -> Result<String, Error> {
        self.multipart_create(&ObjectKey::staging(id), false).await
    }

    /// A URL that takes one part of so many bytes until it expires, at the host that others reach.
    pub async fn direct_part(
        &self,
        id: FirmwareId,
        upload: &str,
        (number, length): (i32, u64),
        (now, life): (Time, Duration),
    ) -> Result<String, Error> {
        let signing = PresigningConfig::builder().expires_in(life).start_time(now.into()).build();
        let signing = signing.map_err(|error| Error::Other(error.to_string()))?;
        let call = self.public.upload_part().bucket(&self.bucket).key(ObjectKey::staging(id).as_str());
        let call = call.upload_id(upload).part_number(number);
        // Signed, so that nobody stores more than was declared.
        let call = call.content_length(i64::try_from(length).unwrap_or(i64::MAX));
        let call = call.customize().config_override(unchecked());
        Ok(call.presigned(signing).await.map_err(typed)?.uri().to_owned())
    }

    /// The parts that arrived so far, by number.
    pub async fn direct_parts(&self, id: FirmwareId, upload: &str) -> Result<BTreeMap<i32, Arrived>, Error> {
        let (mut parts, mut after) = (BTreeMap::new(), None);
        loop {
            let call = self.client.list_parts().bucket(&self.bucket).key(ObjectKey::staging(id).as_str());
            let call = call.upload_id(upload).set_part_number_marker(after.clone());
            let answer = call.send().await.map_err(typed)?;
            parts.extend(answer.parts.unwrap_or_default().into_iter().filter_map(|part| {
                let length = u64::try_from(part.size?).ok()?;
                Some((part.part_number?, Arrived { length, tag: part.e_tag }))
            }));
            let next = answer.next_part_number_marker.filter(|_| answer.is_truncated == Some(true));
            match onward(after, next)? {
                Some(next) => after = Some(next),
                None => return Ok(parts),
            }
        }
    }

    /// Makes the staging object of the parts, numbered from 1, whose entity tags these are.
    pub async fn direct_complete(&self, id: FirmwareId, upload: &str, tags: &[String]) -> Result<(), Error> {
        let parts = (1..)
            .zip(tags)
            .map(|(number, tag)| CompletedPart::builder().part_number(number).e_tag(tag).build());
        self.multipart_complete(&ObjectKey::staging(id), upload, parts.collect()).await
    }
}
