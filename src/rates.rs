//! How often somebody may do something, in memory that has a bound.
//!
//! Whoever counts has a slot among [`SLOTS`], by a hash that nobody outside can foresee. So a flood from ever new
//! addresses costs some megabytes and no sweeps; at worst two of a million share what one may do.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Slots, a few tens of bytes each once they are used.
const SLOTS: u64 = 1 << 17;

/// A rate for each of many.
#[derive(Debug)]
pub struct Rate {
    slots: DefaultKeyedRateLimiter<u32>,
    hash: RandomState,
}

impl Rate {
    /// So many a minute, or all of them at once and then no more for a minute.
    pub fn per_minute(most: NonZeroU32) -> Self {
        Self { slots: RateLimiter::keyed(Quota::per_minute(most)), hash: RandomState::new() }
    }

    /// Takes a turn of whoever this is, or says how long to wait for the next.
    pub fn take(&self, who: impl Hash) -> Result<(), Duration> {
        let slot = u32::try_from(self.hash.hash_one(who) % SLOTS).unwrap_or_default();
        self.slots.check_key(&slot).map_err(|not| not.wait_time_from(DefaultClock::default().now()))
    }
}

/// What counts as one address: with IPv6 a network of 64 bits, because that is what one customer has.
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_turns_and_is_told_how_long_to_wait() {
        let rate = Rate::per_minute(NonZeroU32::MIN.saturating_add(1));
        assert!(rate.take("a").is_ok() && rate.take("a").is_ok());
        let wait = rate.take("a").unwrap_err();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
        assert!(rate.take("b").is_ok());
    }

    #[test]
    fn a_flood_of_strangers_is_remembered_in_a_bounded_number_of_slots() {
        let rate = Rate::per_minute(NonZeroU32::MIN);
        for stranger in 0..400_000u32 {
            let _ = rate.take(stranger);
        }
        assert!(rate.slots.len() as u64 <= SLOTS, "{}", rate.slots.len());
    }

    #[test]
    fn a_household_is_one_address_of_version_4_or_half_of_one_of_version_6() {
        let of = |text: &str| household(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
