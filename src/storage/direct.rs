//! Parts that a client puts into S3 itself, by presigned URLs.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::CompletedPart;

use super::s3::{typed, unchecked};
use super::{Error, ObjectKey, Store};
use crate::clock::Time;
use crate::ids::FirmwareId;

impl Store {
    /// Begins a multipart upload of the staging object, and returns S3's name of it.
    pub async fn direct_begin(&self, id: FirmwareId) -> Result<String, Error> {
        self.multipart_create(&ObjectKey::staging(id), false).await
    }

    /// A URL that takes one part until it expires, at the host that others reach.
    pub async fn direct_part(
        &self,
        id: FirmwareId,
        upload: &str,
        number: i32,
        (now, life): (Time, Duration),
    ) -> Result<String, Error> {
        let signing = PresigningConfig::builder().expires_in(life).start_time(now.into()).build();
        let signing = signing.map_err(|error| Error::Other(error.to_string()))?;
        let call = self.public.upload_part().bucket(&self.bucket).key(ObjectKey::staging(id).as_str());
        let call = call.upload_id(upload).part_number(number).customize().config_override(unchecked());
        Ok(call.presigned(signing).await.map_err(typed)?.uri().to_owned())
    }

    /// Makes the staging object of the parts, numbered from 1, whose entity tags these are.
    pub async fn direct_complete(&self, id: FirmwareId, upload: &str, tags: &[String]) -> Result<(), Error> {
        let parts = (1..)
            .zip(tags)
            .map(|(number, tag)| CompletedPart::builder().part_number(number).e_tag(tag).build());
        self.multipart_complete(&ObjectKey::staging(id), upload, parts.collect()).await
    }
}
