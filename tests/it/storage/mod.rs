//! The way to S3, on two servers that share no code: the embedded one, and SeaweedFS.

pub mod ground;
mod objects;
mod presigned;
mod protection;
mod trouble;

/// Makes each function a test on both servers.
macro_rules! on_both_servers {
    ($($test:ident)+) => {
        mod on_the_embedded_s3 {
            $(#[tokio::test] async fn $test() { super::$test(crate::storage::ground::Ground::embedded().await).await })+
        }
        mod on_seaweedfs {
            $(#[tokio::test] async fn $test() { super::$test(crate::storage::ground::Ground::seaweedfs().await).await })+
        }
    };
}
use on_both_servers;
