//! Which release of a rollout a kind of printer can take, if any. Pure; deciding and counting both ask here.

use std::collections::HashSet;

use super::Why;
use crate::ids::{FirmwareId, RolloutId};
use crate::printers::Cohort;
use crate::rollouts::Rollout;
use crate::storage::ObjectKey;
use crate::version::Version;
use crate::words::{Channel, Platform};

/// A release, as far as deciding and sending need it.
#[derive(Clone, Debug)]
pub struct ReleaseBrief {
    /// Row.
    pub id: FirmwareId,
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: Channel,
    /// The chip family it runs on.
    pub platform: Platform,
    /// Offered even where automatic updates are off.
    pub mandatory: bool,
    /// Printers below it cannot take it.
    pub min_upgrade_version: Option<Version>,
    /// Whether it was withdrawn.
    pub deprecated: bool,
    /// Bytes.
    pub size: i64,
    /// Where its bytes are.
    pub key: ObjectKey,
    /// MD5, lower-case hex.
    pub md5: String,
}

impl ReleaseBrief {
    /// Whether such printers are not too old for it.
    fn takes(&self, cohort: &Cohort) -> bool {
        self.min_upgrade_version.as_ref().is_none_or(|least| cohort.version >= *least)
    }
}

/// All releases, and which rollouts were cancelled.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The highest version first, of one version the most stable first.
    releases: Vec<ReleaseBrief>,
    cancelled: HashSet<RolloutId>,
}

/// What a printer would be offered.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The release.
    pub release: &'a ReleaseBrief,
    /// Whether it is a stepping stone: a lower release on the way to the rollout's.
    pub stone: bool,
}

impl Catalog {
    /// Of these releases and these cancelled rollouts.
    pub fn new(mut releases: Vec<ReleaseBrief>, cancelled: HashSet<RolloutId>) -> Self {
        // `Channel` is ordered from the most stable one.
        releases.sort_by(|a, b| b.version.cmp(&a.version).then(a.channel.cmp(&b.channel)));
        Self { releases, cancelled }
    }

    /// By row.
    pub fn get(&self, id: FirmwareId) -> Option<&ReleaseBrief> {
        self.releases.iter().find(|release| release.id == id)
    }

    /// The most stable release of a version that was not withdrawn.
    pub fn standing(&self, version: &Version) -> Option<&ReleaseBrief> {
        self.of_version(version).find(|release| !release.deprecated)
    }

    /// What such printers would get of a rollout: its release, or a stepping stone on the way to it.
    pub fn pick(&self, rollout: &Rollout, cohort: &Cohort) -> Result<Pick<'_>, Why> {
        let release =
            self.best(&rollout.version, rollout.channel, cohort).ok_or(Why::NoReleaseForPlatform)?;
        if cohort.version == rollout.version {
            return Err(Why::RunsIt);
        }
        if cohort.version > rollout.version && !rollout.allow_downgrade && !self.withdrawn(cohort) {
            return Err(Why::NotOlder);
        }
        if !cohort.auto_update && !release.mandatory {
            return Err(Why::AutoUpdateOff);
        }
        if release.takes(cohort) {
            return Ok(Pick { release, stone: false });
        }
        let stone = self.stone(release, cohort).ok_or(Why::BelowMinUpgradeVersion)?;
        Ok(Pick { release: stone, stone: true })
    }

    /// The release of a version for such printers: on `channel` when it is given, else on their own, else the most
    /// stable one; always for their platform.
    pub fn best(
        &self,
        version: &Version,
        channel: Option<Channel>,
        cohort: &Cohort,
    ) -> Option<&ReleaseBrief> {
        let fits = |release: &&ReleaseBrief| {
            release.platform == cohort.platform
                && !release.deprecated
                && channel.is_none_or(|only| only == release.channel)
        };
        let mut candidates = self.of_version(version).filter(fits);
        candidates.clone().find(|release| release.channel == cohort.channel).or_else(|| candidates.next())
    }

    fn of_version(&self, version: &Version) -> impl Iterator<Item = &ReleaseBrief> + Clone {
        let start = self.releases.partition_point(|release| release.version > *version);
        let wanted = version.clone();
        self.releases[start..].iter().take_while(move |release| release.version == wanted)
    }

    /// The highest release between what such printers run and `goal` that they can take. None from a channel that is
    /// less stable than their own, unless the goal comes from there.
    fn stone(&self, goal: &ReleaseBrief, cohort: &Cohort) -> Option<&ReleaseBrief> {
        self.releases.iter().skip_while(|release| release.version >= goal.version).find(|release| {
            release.version > cohort.version
                && release.platform == cohort.platform
                && !release.deprecated
                && (release.channel <= cohort.channel || release.channel == goal.channel)
                && (cohort.auto_update || release.mandatory || goal.mandatory)
                && release.takes(cohort)
        })
    }

    /// Whether what such printers run was withdrawn: the rollout that installed it was cancelled, or the release is
    /// deprecated. Of printers that were not updated by us the release is not known, so all of that version must be.
    fn withdrawn(&self, cohort: &Cohort) -> bool {
        if let Some(installed) = cohort.installed {
            if installed.rollout.is_some_and(|rollout| self.cancelled.contains(&rollout)) {
                return true;
            }
            if let Some(release) = self.get(installed.release) {
                return release.deprecated;
            }
        }
        let mut known = self
            .of_version(&cohort.version)
            .filter(|release| release.platform == cohort.platform)
            .map(|release| release.deprecated)
            .peekable();
        known.peek().is_some() && known.all(|deprecated| deprecated)
    }
}
