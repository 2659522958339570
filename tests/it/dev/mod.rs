//! The embedded PostgreSQL and S3, started for real.

mod postgres;
mod s3;
