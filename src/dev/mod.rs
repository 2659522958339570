//! The world that `dev` and `demo` bring along: a PostgreSQL server and an S3 endpoint of our own.
//!
//! Somebody who has just cloned the repository should see the real server at work with one command, without Docker
//! and without accounts. So `dev` starts what production finds in place: a real PostgreSQL, from the binaries that the
//! machine has, and an S3 endpoint over a folder, inside this process. The rest of the server cannot tell the
//! difference: it gets a database URL, an endpoint and two keys.
//!
//! Invariants:
//! - **Nothing is left running**, however this process ends, `SIGKILL` included; what is left on disk starts again.
//! - **Data is kept** between runs, as durably as the same software keeps it in production (`fsync` stays on).
//! - **No port is taken** that was not asked for: PostgreSQL listens on a Unix socket in a private folder only.
//! - **One run at a time** on one folder; the second is told so and changes nothing.
//!
//! None of this is compiled into production images (`--no-default-features`).

pub mod postgres;
pub mod s3;

pub use postgres::Postgres;
pub use s3::EmbeddedS3;
