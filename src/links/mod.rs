//! Short links: `{BASE_URL}/d/{token}`, for printers that cannot take a presigned URL.
//!
//! Invariants:
//! - A token is 128 random bits; the database holds its SHA-256 only. It is bound to a printer, a release and an
//!   attempt, expires, and may be used again until then, because printers try again.
//! - The image streams through: headers at once, bytes as they come, in bounded memory, with the Content-Length and
//!   the `x-MD5` that an ESP8266 wants. It never sends a chunked or compressed answer.
//! - What went through is written to the attempt: first byte, last byte, bytes.

mod db;
pub mod http;
mod limit;
mod stream;
mod token;

pub use db::{create, sweep};
pub use limit::Limits;
pub use token::{NewLink, Token};
