//! The integration tests, one program: it links once. They need the embedded S3 of feature `dev`, and PostgreSQL under
//! `DATABASE_URL` (`make test` brings one along).
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod audit;
mod cdn;
mod chaos;
mod connections;
mod crash;
mod delivery;
mod dev;
mod edge;
mod events;
mod firmware;
mod floors;
mod guide;
mod hostile;
mod idempotency;
mod keys;
mod least_privilege;
mod line;
mod markdown;
mod operations;
mod owners;
mod people;
mod printer_keys;
mod readme;
mod replicas;
mod reports;
mod rollouts;
mod secrets;
mod seed;
mod simulate;
mod smoke;
mod storage;
mod support;
mod telemetry;
mod tenants;
mod transfer;
