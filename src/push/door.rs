//! The door for sockets. After an outage everybody is back every half a second, so it is asked first and costs nothing:
//! no query, no wait.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rates::Rate;

/// How many sockets may be here, how many may come a second, and how many a minute from one address.
#[derive(Debug)]
pub struct Door {
    most: usize,
    room: Arc<Semaphore>,
    arrivals: DefaultDirectRateLimiter,
    of_addresses: Rate,
}

/// Why a socket must stay outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// As many are here as may.
    Full,
    /// This address came too often.
    Address,
    /// Too many come at once.
    Rush,
}

impl Door {
    /// `most` at once, `per_second` from everywhere, `per_minute` from one address.
    pub fn new(most: u32, per_second: NonZeroU32, per_minute: NonZeroU32) -> Self {
        let most = most as usize;
        Self {
            most,
            room: Arc::new(Semaphore::new(most)),
            arrivals: RateLimiter::direct(Quota::per_second(per_second)),
            of_addresses: Rate::per_minute(per_minute),
        }
    }

    /// Room for one socket, until the permit is dropped. The address is looked at before the rush, so that one that
    /// comes too often takes no turns away from the others.
    pub fn enter(&self, address: IpAddr) -> Result<OwnedSemaphorePermit, Outside> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| Outside::Full)?;
        self.of_addresses.take(address).map_err(|_| Outside::Address)?;
        self.arrivals.check().map_err(|_| Outside::Rush)?;
        Ok(room)
    }

    /// How many are here.
    pub fn inside(&self) -> u32 {
        u32::try_from(self.most - self.room.available_permits()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;
    const MANY: NonZeroU32 = NonZeroU32::MAX;

    fn addresses() -> [IpAddr; 2] {
        [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]
    }

    #[test]
    fn room_is_given_back() {
        let (door, [a, _]) = (Door::new(1, MANY, MANY), addresses());
        let permit = door.enter(a);
        assert_eq!((permit.is_ok(), door.inside()), (true, 1));
        assert_eq!(door.enter(a).map(drop), Err(Outside::Full));
        drop(permit);
        assert!(door.enter(a).is_ok());
    }

    #[test]
    fn who_comes_too_often_takes_no_turns_from_the_others() {
        let two = ONE.saturating_add(1);
        let (door, [a, b]) = (Door::new(9, two, ONE), addresses());
        assert!(door.enter(a).is_ok());
        assert_eq!(door.enter(a).map(drop), Err(Outside::Address));
        assert!(door.enter(b).is_ok());
    }

    #[test]
    fn a_rush_is_bounded_and_takes_no_room() {
        let (door, [a, b]) = (Door::new(9, ONE, MANY), addresses());
        let permit = door.enter(a);
        assert_eq!(door.enter(b).map(drop), Err(Outside::Rush));
        assert_eq!((permit.is_ok(), door.inside()), (true, 1));
    }
}
