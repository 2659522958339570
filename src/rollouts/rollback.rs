//! Undoing a rollout: the printers that took its release go back, each to the release that it had or all to a named one.
//!
//! What undoes it are rollouts like any other, one for each version to go back to, whose target is "what this rollout
//! installed". A printer that proves itself only later is in that target from then on.

use sqlx::PgConnection;

use super::plan::{Approval, OnEnd, Span};
use super::{Rollout, RolloutType, Status, Target, db};
use crate::clock::Time;
use crate::ids::RolloutId;
use crate::push::{self, Hint};
use crate::version::Version;

/// Silence that weighs against what a rollback brings, in seconds.
const CONFIRM_WITHIN: i32 = 600;

/// Creates the rollouts that undo a cancelled one. Returns the versions that have no release to go back to.
pub(super) async fn create(
    conn: &mut PgConnection,
    bad: &Rollout,
    to: Option<&str>,
    by: &str,
    now: Time,
) -> Result<Vec<Rollout>, sqlx::Error> {
    let catalog = db::catalog(&mut *conn).await?;
    let versions = match to {
        Some(version) => vec![(Version::from(version.to_owned()), None)],
        None => {
            let before = db::versions_before(&mut *conn, bad.id).await?;
            before.into_iter().map(|version| (version.clone(), Some(version))).collect()
        }
    };
    let mut created = Vec::new();
    for (version, previous) in versions {
        let Some(release) = catalog.standing(&version) else {
            tracing::warn!(rollout = bad.number, %version, "there is no release to roll back to; upload it, and create a rollout for it");
            continue;
        };
        let target = Target {
            installed_by: Some(bad.id),
            previous_version: previous,
            owners: bad.target.owners.clone(),
            ..Target::default()
        };
        let back = Rollout {
            id: RolloutId::generate(),
            number: 0,
            firmware: Some(release.id),
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
