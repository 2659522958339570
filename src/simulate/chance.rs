//! What befalls a printer, decided from a seed alone.
//!
//! A fate is a pure function of (seed, attempt), not the next draw of a shared generator: thousands of tasks run in
//! an order that no one controls, and a run that found a fault must be repeatable all the same.

use super::Error;

/// How one attempt at an update ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes well.
    Install,
    /// The printer refuses the offer (`firmware_declined`).
    Decline,
    /// The download breaks off half-way.
    FailDownload,
    /// A byte arrives wrong, so the MD5 does not match.
    Corrupt,
    /// The image is taken and the printer is never heard of again.
    Brick,
    /// The image is taken and the printer comes back with the version it had.
    RollBack,
    /// After the reboot it dies twice between connecting and subscribing, then comes up with the new version.
    Stumble,
}

/// Shares of attempts, each 0–1, together at most 1; the rest goes well.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Odds {
    /// Share that is declined.
    pub decline: f64,
    /// Share whose download breaks off.
    pub fail: f64,
    /// Share that arrives corrupt.
    pub corrupt: f64,
    /// Share that bricks the printer.
    pub brick: f64,
    /// Share that comes back with the old version.
    pub rollback: f64,
    /// Share that crashes before it can subscribe.
    pub stumble: f64,
}

impl Odds {
    fn bands(&self) -> [(f64, Fate); 6] {
        [
            (self.decline, Fate::Decline),
            (self.fail, Fate::FailDownload),
            (self.corrupt, Fate::Corrupt),
            (self.brick, Fate::Brick),
            (self.rollback, Fate::RollBack),
            (self.stumble, Fate::Stumble),
        ]
    }

    /// Refuses shares that are no shares.
    ///
    /// # Errors
    /// [`Error::Odds`] when one is outside 0–1 or all of them exceed 1.
    pub fn check(&self) -> Result<(), Error> {
        let sane = self.bands().iter().all(|(share, _)| (0.0..=1.0).contains(share));
        let sum: f64 = self.bands().iter().map(|(share, _)| share).sum();
        if sane && sum <= 1.0 + f64::EPSILON { Ok(()) } else { Err(Error::Odds { sum }) }
    }
}

/// How a printer's fates are chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Behaviour {
    /// Every attempt ends alike.
    Always(Fate),
    /// The first attempts end as listed, those after them well.
    Script(Vec<Fate>),
    /// Each attempt is drawn.
    Odds(Odds),
}

impl Behaviour {
    /// The fate of attempt number `attempt` (from 0) of the printer with this `seed`.
    #[must_use]
    pub fn fate(&self, seed: u64, attempt: u32) -> Fate {
        match self {
            Self::Always(fate) => *fate,
            Self::Script(fates) => fates.get(attempt as usize).copied().unwrap_or(Fate::Install),
            Self::Odds(odds) => {
                let mut noise = Noise::new(seed ^ u64::from(attempt).wrapping_mul(0xD605_BBB5_8C8A_BC03));
                let mut draw = noise.share();
                for (share, fate) in odds.bands() {
                    if draw < share {
                        return fate;
                    }
                    draw -= share;
                }
                Fate::Install
            }
        }
    }
}

/// SplitMix64: eight bytes of state, reproducible on every platform and in every release. The generators of
/// `rand` promise no stable output between versions, and a seed noted in a bug report should outlive an upgrade.
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// The same seed gives the same.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Appends `length` bytes to `out`.
    pub fn fill(&mut self, out: &mut Vec<u8>, length: usize) {
        let end = out.len() + length;
        while out.len() < end {
            let bytes = self.next().to_le_bytes();
            let take = bytes.len().min(end - out.len());
            out.extend_from_slice(&bytes[..take]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_splitmix64() {
        // The first outputs for seed 1234567 that the algorithm's reference implementation publishes.
        let mut noise = Noise::new(1_234_567);
        assert_eq!(noise.next(), 6_457_827_717_110_365_317);
        assert_eq!(noise.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn odds_are_met_and_repeatable() {
        let odds = Odds { decline: 0.1, fail: 0.2, ..Odds::default() };
        let behaviour = Behaviour::Odds(odds);
        let draw = |fate| (0..10_000).filter(|seed| behaviour.fate(*seed, 0) == fate).count();
        assert!((900..1100).contains(&draw(Fate::Decline)), "{}", draw(Fate::Decline));
        assert!((1880..2120).contains(&draw(Fate::FailDownload)), "{}", draw(Fate::FailDownload));
        assert_eq!(draw(Fate::Brick), 0);
        assert_eq!(behaviour.fate(5, 1), behaviour.fate(5, 1));
    }

    #[test]
    fn attempts_of_one_printer_differ() {
        let behaviour = Behaviour::Odds(Odds { fail: 0.5, ..Odds::default() });
        let failed = (0..1000).filter(|attempt| behaviour.fate(9, *attempt) == Fate::FailDownload).count();
        assert!((430..570).contains(&failed), "{failed}");
    }

    #[test]
    fn a_script_ends_in_installs() {
        let script = Behaviour::Script(vec![Fate::Corrupt]);
        assert_eq!(script.fate(0, 0), Fate::Corrupt);
        assert_eq!(script.fate(0, 1), Fate::Install);
    }

    #[test]
    fn shares_beyond_one_are_refused() {
        assert!(Odds { decline: 0.6, fail: 0.6, ..Odds::default() }.check().is_err());
        assert!(Odds { decline: -0.1, ..Odds::default() }.check().is_err());
        assert!(Odds { decline: 0.5, fail: 0.5, ..Odds::default() }.check().is_ok());
    }
}
