//! Bounds on what streams through this replica.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rates::Rate;

/// How many downloads may stream at once, and how many one address may start a minute.
#[derive(Clone, Debug)]
pub struct Limits {
    streams: Arc<Semaphore>,
    starts: Arc<Rate>,
}

/// Why a download must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many stream as may.
    Streams,
    /// This address started too many.
    Address,
}

impl Limits {
    /// `streams` at once, `per_minute` starts an address.
    pub fn new(streams: u32, per_minute: NonZeroU32) -> Self {
        let starts = Arc::new(Rate::per_minute(per_minute));
        Self { streams: Arc::new(Semaphore::new(streams as usize)), starts }
    }

    /// Room for one download, until the permit is dropped.
    pub fn enter(&self, address: IpAddr) -> Result<OwnedSemaphorePermit, Full> {
        self.starts.take(address).map_err(|_| Full::Address)?;
        self.streams.clone().try_acquire_owned().map_err(|_| Full::Streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_starts_are_bounded_and_a_permit_frees_its_room() {
        let limits = Limits::new(1, NonZeroU32::MIN.saturating_add(2));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let permit = limits.enter(a).unwrap();
        assert_eq!(limits.enter(a).map(drop), Err(Full::Streams));
        drop(permit);
        assert!(limits.enter(a).is_ok());
        assert_eq!(limits.enter(a).map(drop), Err(Full::Address));
        assert!(limits.enter(b).is_ok(), "another address has its own");
    }
}
