//! What handlers, sockets and jobs share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;

use crate::auth::Access;
use crate::clock::Clock;
use crate::config::Attempts;
use crate::events::Feed;
use crate::firmware::Uploads;
use crate::http::export::Exports;
use crate::ids::ReplicaId;
use crate::links::Limits;
use crate::push::{Door, Fence, Hub, Refusals};
use crate::rollouts::{Engine, Known, Steward};
use crate::shutdown::Shutdown;
use crate::stats::Figures;
use crate::storage::Images;
use crate::updates::Intake;

/// What everybody holds: one pointer, because a socket's task keeps it for as long as it lives.
pub type AppState = Arc<Parts>;

/// The parts of a running replica.
pub struct Parts {
    /// PostgreSQL.
    pub pool: PgPool,
    /// Time.
    pub clock: Clock,
    /// Who may call REST; none when everybody may.
    pub access: Option<Arc<Access>>,
    /// This process.
    pub replica: ReplicaId,
    /// What uploads need; also the way to the bucket.
    pub uploads: Uploads,
    /// This server as others reach it, without a trailing slash.
    pub base_url: Arc<str>,
    /// The CDN in front of the bucket, without a trailing slash.
    pub cdn_url: Option<Arc<str>>,
    /// Bounds on downloads through links.
    pub links: Limits,
    /// Images that many download at the same time.
    pub images: Images,
    /// Sockets here.
    pub hub: Arc<Hub<Known>>,
    /// The last check before an offer leaves.
    pub fence: Fence,
    /// Takes in what printers say.
    pub intake: Intake,
    /// Makes the offers.
    pub engine: Arc<Engine>,
    /// Looks after rollouts.
    pub steward: Arc<Steward>,
    /// Figures of the whole fleet, on the replica that tells them.
    pub figures: watch::Sender<Option<Figures>>,
    /// Bounds on exports.
    pub exports: Exports,
    /// Events for those who watch.
    pub feed: Feed,
    /// Lets sockets in.
    pub door: Arc<Door>,
    /// Wrong keys of printers.
    pub refusals: Refusals,
    /// Origins of browser pages that may open a printer's socket.
    pub origins: Vec<String>,
    /// Messages a minute that are read from one printer.
    pub messages: NonZeroU32,
    /// Retries and time-outs of updates.
    pub attempts: Attempts,
    /// Time over which sockets are let go.
    pub drain: Duration,
    /// The process's life.
    pub shutdown: Shutdown,
}
