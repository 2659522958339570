//! Undoing a rollout: the printers that took its release go back, each to the release that it had or all to a named one.
//!
//! What undoes it are rollouts like any other, one for each version to go back to, whose target is "what this rollout
//! installed". A printer that proves itself only later is in that target from then on.

use sqlx::PgConnection;

use super::plan::{Approval, OnEnd, Span};
use super::{Rollout, RolloutType, Status, Target, db};
use crate::clock::Time;
use crate::ids::{FirmwareId, RolloutId};
use crate::push::{self, Hint};
use crate::version::Version;

/// Silence that weighs against what a rollback brings, in seconds.
const CONFIRM_WITHIN: i32 = 600;

/// Versions that a warning names; printers say what they run, and may say anything.
const NAMED: usize = 10;

/// Where the printers of a rollout go back to.
pub(super) struct Ways {
    /// The release, its version, and the version that those had who go there; none: all go there.
    open: Vec<(FirmwareId, Version, Option<Version>)>,
    /// Versions that nobody can go back to: there is no release, or it was withdrawn.
    closed: Vec<Version>,
    /// All go to one version, whatever they had.
    together: bool,
}

impl Ways {
    /// For whoever looks at the rollout, if some of its printers stay where they are.
    pub(super) fn warning(&self) -> Option<String> {
        let mut list = self.closed.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self.closed.len() {
            0 => return None,
            all if all > NAMED => list.push_str(&format!(" and {} other versions", all - NAMED)),
            _ => {}
        }
        let who = if self.together {
            format!("Nobody is brought back: {list} is no release any more, or was withdrawn.")
        } else {
            format!(
                "Printers that had {list} stay where they are: that is no release any more, or was withdrawn."
            )
        };
        Some(format!("{who} Restore or upload it, and create a rollout for it."))
    }
}

/// Finds them: back to what each printer had, or all to a named version.
pub(super) async fn ways(
    conn: &mut PgConnection,
    bad: RolloutId,
    to: Option<&str>,
) -> Result<Ways, sqlx::Error> {
    let catalog = db::catalog(&mut *conn).await?;
    let versions = match to {
        Some(version) => vec![(Version::from(version.to_owned()), None)],
        None => {
            let before = db::versions_before(&mut *conn, bad).await?;
            before.into_iter().map(|version| (version.clone(), Some(version))).collect()
        }
    };
    let mut ways = Ways { open: Vec::new(), closed: Vec::new(), together: to.is_some() };
    for (version, previous) in versions {
        match catalog.standing(&version) {
            Some(release) => ways.open.push((release.id, version, previous)),
            None => ways.closed.push(version),
        }
    }
    Ok(ways)
}

/// Creates the rollouts that undo a cancelled one.
pub(super) async fn create(
    conn: &mut PgConnection,
    bad: &Rollout,
    ways: Ways,
    by: &str,
    now: Time,
) -> Result<Vec<Rollout>, sqlx::Error> {
    if let Some(warning) = ways.warning() {
        tracing::warn!(rollout = bad.number, "{warning}");
    }
    let mut created = Vec::new();
    for (release, version, previous) in ways.open {
        let target = Target {
            installed_by: Some(bad.id),
            previous_version: previous,
            owners: bad.target.owners.clone(),
            ..Target::default()
        };
        let back = Rollout {
            id: RolloutId::generate(),
            number: 0,
            firmware: Some(release),
            version,
            channel: None,
            target,
            rollout_type: RolloutType::Immediate,
            percentage: 100,
            scheduled_for: None,
            max_attempts: bad.max_attempts,
            status: Status::Active,
            epoch: 0,
            revision: 0,
            created_at: now,
            updated_at: now,
            started_at: Some(now),
            allow_downgrade: true,
            template: None,
            steps: None,
            step: 0,
            stage: 0,
            stage_started_at: Some(now),
            judged_from: 0,
            abort_on: None,
            confirm_within: Span::of_secs(CONFIRM_WITHIN),
            stuck_after: bad.stuck_after,
            max_in_flight: bad.max_in_flight,
            rate: bad.rate,
            ends_at: None,
            on_end: OnEnd::Stop,
            reason: None,
            detail: Some(format!("It undoes rollout {}.", bad.number)),
            approval: Approval::NotRequired,
            approval_comment: None,
            approval_at: None,
            rolls_back: Some(bad.id),
            windows: None,
            // Whoever saw the bad one sees what undoes it.
            reach: bad.reach.clone(),
            own_keys_only: false,
            created_by: Some(by.to_owned()),
            creator: None,
        };
        let back = db::insert(&mut *conn, back, None).await?;
        push::notify(&mut *conn, Hint::Rollout(back.id.0)).await?;
        tracing::warn!(rollout = back.number, undoes = bad.number, version = %back.version, "a rollback was created");
        created.push(back);
    }
    Ok(created)
}
