//! Wrong keys: printers come back every half second, for ever, with the same one. What was refused is refused again
//! without a query, and an address that guesses is not heard for a while; a printer that was let in before is, whoever
//! else is behind its address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use moka::future::Cache;

use crate::rates::{Rate, household};

/// How long a refusal holds without a query, and a guessing address is not heard. What an operator changes is seen after this.
const HELD: Duration = Duration::from_secs(5);
/// How long whoever was let in is known for it.
const KNOWN: Duration = Duration::from_secs(3600);
/// Entries of each kind that are remembered.
const REMEMBERED: u64 = 50_000;

/// Somebody and what they showed, as a hash.
pub type Shown = [u8; 32];

/// What is remembered of keys that printers showed.
pub struct Refusals {
    wrong: Cache<Shown, ()>,
    right: Cache<Shown, ()>,
    guessing: Cache<IpAddr, ()>,
    guesses: Rate,
}

impl Refusals {
    /// With so many wrong keys a minute from one address.
    pub fn new(per_minute: NonZeroU32) -> Self {
        let cache = |life| Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build();
        Self {
            wrong: cache(HELD),
            right: cache(KNOWN),
            guessing: Cache::builder().max_capacity(REMEMBERED).time_to_live(HELD).build(),
            guesses: Rate::per_minute(per_minute),
        }
    }

    /// Whether this need not be looked up to be refused.
    pub async fn stands(&self, address: IpAddr, shown: &Shown) -> bool {
        let address = household(address);
        self.wrong.get(shown).await.is_some()
            || (self.guessing.get(&address).await.is_some() && self.right.get(shown).await.is_none())
    }

    /// It was looked up, and is right.
    pub async fn right(&self, shown: Shown) {
        self.right.insert(shown, ()).await;
    }

    /// It was looked up, and is wrong.
    pub async fn wrong(&self, address: IpAddr, shown: Shown) {
        let address = household(address);
        self.wrong.insert(shown, ()).await;
        self.right.invalidate(&shown).await;
        if self.guesses.take(address).is_err() {
            self.guessing.insert(address, ()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_is_not_looked_up_again_and_who_guesses_shuts_out_nobody_who_is_known() {
        let refusals = Refusals::new(NonZeroU32::MIN);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        refusals.right([1; 32]).await;
        assert!(!refusals.stands(a, &[2; 32]).await);
        refusals.wrong(a, [2; 32]).await;
        assert!(refusals.stands(a, &[2; 32]).await && refusals.stands(b, &[2; 32]).await);
        assert!(!refusals.stands(a, &[3; 32]).await, "one wrong key a minute is no guessing");
        refusals.wrong(a, [3; 32]).await;
        assert!(refusals.stands(a, &[4; 32]).await, "the address guesses");
        assert!(!refusals.stands(a, &[1; 32]).await && !refusals.stands(b, &[4; 32]).await);
    }
}
