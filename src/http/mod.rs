//! The toolkit of the REST edge: problems, extractors, pages, entity tags, the request log. It knows no room.

pub mod browser;
pub mod cache;
pub mod client_ip;
mod connection;
pub mod export;
pub mod extract;
pub mod limit;
pub mod log;
pub mod page;
pub mod problem;
pub mod rest_rate;
mod serve;
pub mod tls;

pub use client_ip::ClientIp;
pub use connection::Connection;
pub use extract::{Body, Params, Segment};
pub use problem::{FieldError, Kind, Problem};
pub use serve::{Listening, serve};

/// A JSON answer. (axum's own type is an extractor too, whose refusals are no problems.)
pub struct Json<T>(pub T);

impl<T: serde::Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => ([(axum::http::header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}
