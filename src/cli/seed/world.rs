//! A fleet with a past, made up from a seed: no I/O. Everything is a function of the seed and a printer's place, so
//! nothing is kept: who wants a printer again makes it again.

use chrono::TimeDelta;
use uuid::Uuid;

use crate::clock::Time;
use crate::ids::PrinterId;
use crate::printers::bucket;
use crate::simulate::Noise;
use crate::version::Version;

/// Tries of a printer within a rollout.
pub const MAX_ATTEMPTS: u32 = 3;
/// Most attempts with a printer, on average.
pub const MOST_EACH: u64 = 20;
/// Platforms with the share of printers up to and with each.
const PLATFORMS: &[(&str, f64)] = &[("esp8266", 0.7), ("esp32", 0.9), ("esp32-s3", 0.95), ("esp32-c3", 1.0)];
const CHANNELS: &[(&str, f64)] = &[("stable", 0.9), ("beta", 0.98), ("canary", 1.0)];
/// A prime above any fleet: multiplied with it, places come out shuffled, each once.
const SHUFFLE: u64 = 2_147_483_647;

/// What became of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It reached everybody.
    Completed,
    /// It was cancelled at 40 %.
    Cancelled,
    /// It is at 50 %.
    HalfDone,
}

/// A rollout of the past, or the one that is under way.
#[derive(Clone, Debug)]
pub struct Wave {
    pub id: Uuid,
    pub course: Course,
    pub started_at: Time,
    /// Its attempts were spread over this time.
    lasted: TimeDelta,
}

/// A release.
#[derive(Clone, Debug)]
pub struct Release {
    pub id: Uuid,
    /// Index of its version.
    pub version: usize,
    pub channel: &'static str,
    pub platform: &'static str,
}

/// How a wave ended for a printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs the new version, after so many failures.
    Confirmed(u32),
    Declined,
    /// Every try failed.
    UsedUp,
    /// One try failed; another would follow.
    Failed,
    /// The cancelled rollout took its offer back.
    Withdrawn,
    /// It is at it.
    Open,
}

impl Fate {
    pub fn attempts(self) -> u32 {
        match self {
            Self::Confirmed(failures) => failures + 1,
            Self::UsedUp => MAX_ATTEMPTS,
            Self::Declined | Self::Failed | Self::Withdrawn | Self::Open => 1,
        }
    }

    fn drawn(course: Course, share: f64) -> Self {
        match (course, share) {
            (_, share) if share < 0.90 => Self::Confirmed(0),
            (_, share) if share < 0.93 => Self::Confirmed(1),
            (_, share) if share < 0.935 => Self::Confirmed(2),
            (_, share) if share < 0.955 => Self::Declined,
            (_, share) if share < 0.97 => Self::UsedUp,
            // One that may be tried again would keep a rollout from being complete.
            (Course::Completed, _) => Self::Confirmed(0),
            (_, share) if share < 0.98 => Self::Failed,
            (Course::Cancelled, _) => Self::Withdrawn,
            (Course::HalfDone, share) if share < 0.985 => Self::Open,
            (Course::HalfDone, _) => Self::Confirmed(0),
        }
    }
}

/// A printer and how it fared.
#[derive(Debug)]
pub struct Printer {
    pub id: Uuid,
    pub printer_id: PrinterId,
    pub user: String,
    pub bucket: u8,
    pub platform: &'static str,
    pub channel: &'static str,
    pub auto_update: bool,
    pub created_at: Time,
    pub last_connected: Time,
    /// By wave.
    pub fates: Vec<Option<Fate>>,
    /// Index of the version that it ran before each wave, and last of all now.
    pub ran: Vec<usize>,
}

impl Printer {
    /// The wave that brought what it runs.
    pub fn installed_by(&self) -> Option<usize> {
        self.fates.iter().rposition(|fate| matches!(fate, Some(Fate::Confirmed(_))))
    }

    /// Index of the version that it runs.
    pub fn runs(&self) -> usize {
        self.ran.last().copied().unwrap_or_default()
    }
}

/// All of it.
#[derive(Debug)]
pub struct World {
    seed: u64,
    pub printers: u64,
    pub updates: u64,
    pub now: Time,
    pub waves: Vec<Wave>,
    pub versions: Vec<Version>,
    pub releases: Vec<Release>,
}

impl World {
    /// `updates` attempts with `printers` printers, at most [`MOST_EACH`] each on average.
    pub fn new(seed: u64, printers: u64, updates: u64, now: Time) -> Self {
        let mut noise = Noise::new(seed);
        // Each completed rollout takes an attempt of every printer at least, so these hold all of them.
        let completed = updates.div_ceil(printers.max(1)).max(4) as usize;
        let waves: Vec<_> = (0..completed + 2)
            .map(|index| {
                let course = match index {
                    index if index == completed - 2 => Course::Cancelled,
                    index if index == completed + 1 => Course::HalfDone,
                    _ => Course::Completed,
                };
                let ago = TimeDelta::days(20 * (completed + 1 - index) as i64 + 3);
                let lasted = TimeDelta::days(if course == Course::HalfDone { 3 } else { 10 });
                let started_at = now - ago;
                Wave { id: uuid(started_at, &mut noise), course, started_at, lasted }
            })
            .collect();
        let versions: Vec<_> =
            (0..waves.len() + 2).map(|minor| Version::from(format!("1.{minor}.0"))).collect();
        let mut releases = Vec::new();
        for version in 0..versions.len() {
            let at = waves.get(version.saturating_sub(1)).map_or(now, |wave| wave.started_at);
            for channel in ["stable", "beta"] {
                for (platform, _) in PLATFORMS {
                    releases.push(Release {
                        id: uuid(at - TimeDelta::days(1), &mut noise),
                        version,
                        channel,
                        platform,
                    });
                }
            }
        }
        Self { seed, printers, updates, now, waves, versions, releases }
    }

    /// The release of a version that this printer takes: canary ones take the stable release.
    pub fn release(&self, version: usize, printer: &Printer) -> Option<&Release> {
        let channel = if printer.channel == "beta" { "beta" } else { "stable" };
        self.releases.iter().find(|release| {
            (release.version, release.channel, release.platform) == (version, channel, printer.platform)
        })
    }

    /// The printer that a wave reached after `turn` others, and when.
    pub fn in_turn(&self, wave: usize, turn: u64) -> (Printer, Time) {
        let part = turn as f64 / self.printers as f64;
        let wave = &self.waves[wave];
        let after = TimeDelta::milliseconds((wave.lasted.num_milliseconds() as f64 * part) as i64);
        (self.printer(turn * (SHUFFLE % self.printers) % self.printers), wave.started_at + after)
    }

    /// The printer at a place.
    pub fn printer(&self, index: u64) -> Printer {
        let mut noise = Noise::new(self.seed ^ (index + 1).wrapping_mul(0xD605_BBB5_8C8A_BC03));
        let created_at = self.now - TimeDelta::days(400)
            + TimeDelta::milliseconds((index as f64 / self.printers as f64 * 200.0 * 86_400_000.0) as i64);
        let id = uuid(created_at, &mut noise);
        // A few large owners besides the many with three printers each.
        let user = match noise.next() % 50 {
            0 => format!("hotels-{}", index % 3),
            _ => format!("user-{}", index / 3),
        };
        let printer_id = PrinterId::from(uuid::Builder::from_random_bytes(bytes(&mut noise)).into_uuid());
        let bucket = bucket(&printer_id);
        let (platform, channel) = (drawn(PLATFORMS, noise.share()), drawn(CHANNELS, noise.share()));
        let auto_update = noise.share() < 0.95;
        let last_connected = self.now - TimeDelta::milliseconds((noise.share() * 3.0 * 86_400_000.0) as i64);
        let mut left = self.updates / self.printers + u64::from(index < self.updates % self.printers);
        let mut fates = vec![None; self.waves.len()];
        // Backwards: a printer that was reached by few rollouts is one that came late.
        for (wave, fate) in self.waves.iter().zip(&mut fates).rev() {
            let reached = match wave.course {
                Course::Completed => true,
                Course::Cancelled => bucket < 40,
                Course::HalfDone => bucket < 50 && auto_update,
            };
            let mut drawn = Fate::drawn(wave.course, noise.share());
            if !reached || left == 0 {
                continue;
            }
            if u64::from(drawn.attempts()) > left {
                drawn = Fate::Confirmed(0);
            }
            left -= u64::from(drawn.attempts());
            *fate = Some(drawn);
        }
        // Wave number n brings version number n + 1, and found the printer on version number n.
        let first = fates.iter().position(Option::is_some).unwrap_or(fates.len() - 1);
        let mut ran = vec![first];
        for (wave, fate) in fates.iter().enumerate() {
            let before = ran[wave];
            ran.push(if matches!(fate, Some(Fate::Confirmed(_))) { wave + 1 } else { before });
        }
        Printer {
            id,
            printer_id,
            user,
            bucket,
            platform,
            channel,
            auto_update,
            created_at,
            last_connected,
            fates,
            ran,
        }
    }
}

fn drawn(words: &[(&'static str, f64)], share: f64) -> &'static str {
    words.iter().find(|(_, up_to)| share < *up_to).map_or(words[0].0, |(word, _)| word)
}

fn bytes<const N: usize>(noise: &mut Noise) -> [u8; N] {
    let mut bytes = Vec::with_capacity(N);
    noise.fill(&mut bytes, N);
    bytes.try_into().unwrap_or([0; N])
}

/// A UUID v7 of that time.
pub fn uuid(at: Time, noise: &mut Noise) -> Uuid {
    let millis = at.timestamp_millis().unsigned_abs();
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes(noise)).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_same_seed_makes_the_same_world_with_as_many_attempts_as_asked() {
        let now = Clock::system().now();
        let attempts = |world: &World| -> u64 {
            (0..world.printers)
                .flat_map(|index| world.printer(index).fates)
                .flatten()
                .map(|fate| u64::from(fate.attempts()))
                .sum()
        };
        for (printers, updates) in [(700, 3_501), (10, 0), (300, 100), (50, 1_000)] {
            let world = World::new(1, printers, updates, now);
            assert_eq!(attempts(&world), updates, "{printers} printers");
            let again = World::new(1, printers, updates, now);
            assert_eq!(format!("{:?}", world.printer(7)), format!("{:?}", again.printer(7)));
            assert_ne!(world.printer(7).id, World::new(2, printers, updates, now).printer(7).id);
        }
    }

    #[test]
    fn a_wave_reaches_everybody_once() {
        let world = World::new(1, 1_000, 5_000, Clock::system().now());
        let mut ids: Vec<_> = (0..1_000).map(|turn| world.in_turn(0, turn).0.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1_000);
    }
}
