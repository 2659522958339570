//! The bucket itself: whether it is there, and making it.

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};

use super::s3::typed;
use super::{Error, Store};

impl Store {
    /// Whether the bucket answers; for readiness and the start.
    pub async fn check(&self) -> Result<(), Error> {
        self.client.head_bucket().bucket(&self.bucket).send().await.map_err(typed)?;
        Ok(())
    }

    /// Makes the bucket when it is not there, in the client's region. True when it was made.
    pub async fn create_bucket(&self) -> Result<bool, Error> {
        match self.check().await {
            Err(Error::NotFound(_)) => {}
            there => return there.map(|()| false),
        }
        let region = self.client.config().region().map_or("us-east-1", |region| region.as_ref());
        // AWS knows no constraint of that name: it is what no constraint says.
        let place = (region != "us-east-1").then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        let made = self
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .set_create_bucket_configuration(place)
            .send()
            .await;
        match made {
            // Another replica was quicker.
            Err(error)
                if error.as_service_error().is_some_and(|error| error.is_bucket_already_owned_by_you()) =>
            {
                Ok(false)
            }
            made => made.map(|_| true).map_err(typed),
        }
    }
}
