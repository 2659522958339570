//! `POST /api/rollouts`.

use sqlx::PgPool;

use super::{Error, Rollout, RolloutType, Status, Target, db};
use crate::clock::Time;
use crate::firmware;
use crate::ids::RolloutId;
use crate::push::{self, Hint};
use crate::version::Version;
use crate::words::Channel;

/// What is asked for, field by field valid.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The version that printers are to run.
    pub version: Version,
    /// Only releases of this channel.
    pub channel: Option<Channel>,
    /// Whom.
    pub target: Target,
    /// How it starts and spreads.
    pub rollout_type: RolloutType,
    /// Buckets below it are in, 0 to 100.
    pub percentage: Option<u8>,
    /// When it starts by itself.
    pub scheduled_for: Option<Time>,
    /// False: it stays pending until somebody starts it.
    pub start: bool,
}

impl Wanted {
    /// The rules between fields.
    fn check(&self) -> Result<(), Error> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, detail: &str| errors.push((field.to_owned(), detail.to_owned()));
        if !self.target.names_something() {
            wrong(
                "target",
                "names nothing; say {\"all\": true} for every printer, or name users, printers, channels or versions",
            );
        }
        match (self.rollout_type, self.percentage) {
            (RolloutType::Gradual, None) => {
                wrong("rollout_percentage", "is missing; a gradual rollout needs it, 0 to 100")
            }
            (RolloutType::Immediate, Some(percentage)) if percentage != 100 => {
                wrong(
                    "rollout_percentage",
                    "must be 100 or left out for an immediate rollout; use rollout_type gradual",
                );
            }
            _ => {}
        }
        match (self.rollout_type, self.scheduled_for) {
            (RolloutType::Scheduled, None) => {
                wrong(
                    "scheduled_for",
                    "is missing; a scheduled rollout needs it, as in 2026-01-20T02:00:00Z",
                );
            }
            (RolloutType::Immediate, Some(_)) => wrong(
                "scheduled_for",
                "must be left out for an immediate rollout; use rollout_type scheduled",
            ),
            _ => {}
        }
        if !self.start && self.scheduled_for.is_some() {
            wrong("start", "cannot be false together with scheduled_for, which starts it by itself");
        }
        if let (Some(least), Some(most)) = (&self.target.min_version, &self.target.max_version)
            && least > most
        {
            wrong("target.min_version", "is above target.max_version, so no printer matches");
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }
}

/// Creates a rollout. Costs the same for ten printers and ten million.
pub async fn create(pool: &PgPool, wanted: Wanted, max_attempts: u32, now: Time) -> Result<Rollout, Error> {
    wanted.check()?;
    let mut tx = pool.begin().await?;
    firmware::hold(&mut tx, &wanted.version).await?;
    let releases = firmware::releases_of(&mut tx, &wanted.version).await?;
    let fits = |release: &&firmware::Release| wanted.channel.is_none_or(|channel| channel == release.channel);
    let Some(release) = releases.iter().filter(fits).find(|release| release.deprecated_at.is_none()) else {
        let on = wanted.channel.map_or_else(String::new, |channel| format!(" on {channel}"));
        return Err(Error::FirmwareNotFound(match releases.iter().any(|release| fits(&release)) {
            true => format!("{}{on} is deprecated", wanted.version),
            false => format!("there is no release {}{on}", wanted.version),
        }));
    };
    let starts_now = wanted.start && wanted.scheduled_for.is_none_or(|at| at <= now);
    let rollout = Rollout {
        id: RolloutId::generate(),
        number: 0,
        firmware: Some(release.id),
        version: wanted.version,
        channel: wanted.channel,
        target: wanted.target,
        rollout_type: wanted.rollout_type,
        percentage: wanted.percentage.unwrap_or(100),
        scheduled_for: wanted.scheduled_for,
        max_attempts,
        status: if starts_now { Status::Active } else { Status::Pending },
        epoch: 0,
        revision: 0,
        created_at: now,
        updated_at: now,
        started_at: starts_now.then_some(now),
    };
    let rollout = db::insert(&mut tx, rollout).await?;
    push::notify(&mut tx, Hint::Rollout(rollout.id.0)).await?;
    tx.commit().await?;
    Ok(rollout)
}
