//! PaperMinder OTA: an over-the-air update server for a fleet of small printers.
//!
//! A release is uploaded and streams into S3 ([`firmware`]); an operator makes a rollout ([`rollouts`]); every replica
//! looks at the printers on its own sockets ([`line`], [`push`]), claims updates for them in batches, sends each a
//! presigned URL ([`storage`]), writes down what they report ([`updates`]), and takes a reconnect on the new version
//! as the proof ([`printers`]).
//!
//! # The map
//!
//! Imports go down only; `tests/it/floors.rs` reads the sources and fails on one that goes up.
//!
//! | floor | rooms |
//! |---|---|
//! | 0 words | [`ids`] names of rows, [`version`] semver, [`words`] channels and platforms, [`clock`] the only source of time, [`windows`] when updates may begin |
//! | 1 tools | [`config`] settings, [`telemetry`] logs, traces, metrics, [`shutdown`], [`rates`] how often somebody may, [`db`] pool and migrations, [`storage`] S3, [`http`] the REST toolkit |
//! | 2 shared | [`audit`] who changed what, [`idempotency`] requests that may be sent again, [`auth`] the door of REST, [`push`] sockets, fence, hints between replicas, [`events`] what changed, for those who watch |
//! | 3 rooms | [`firmware`]; [`printers`] below [`updates`] below [`links`] below [`rollouts`] below [`stats`] |
//! | 4 state | [`state`] what handlers share |
//! | 5 edges | each room's `http.rs`, [`line`] the printers' socket, [`jobs`] timers, [`docs`] OpenAPI and problems, [`app`] a running replica, [`cli`] the commands, [`simulate`] printers to try it with, `dev` the embedded PostgreSQL and S3 |

// The OpenAPI example of a rollout is one literal of some fifty fields.
#![recursion_limit = "256"]

pub mod app;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
#[cfg(feature = "dev")]
pub mod dev;
pub mod docs;
pub mod events;
pub mod firmware;
pub mod http;
pub mod idempotency;
pub mod ids;
pub mod jobs;
pub mod line;
pub mod links;
pub mod printers;
pub mod push;
pub mod rates;
pub mod rollouts;
pub mod shutdown;
pub mod simulate;
pub mod state;
pub mod stats;
pub mod storage;
pub mod telemetry;
pub mod updates;
pub mod version;
pub mod windows;
pub mod words;
