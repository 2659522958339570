//! The integration tests, one program: it links once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "dev")]
mod dev;
