//! `POST /api/rollouts`.

use sqlx::{PgConnection, PgPool};

use super::plan::{AbortAction, AbortRule, Approval, OnEnd, Rate, Span, Step, Template};
use super::{Error, Rollout, RolloutType, Status, Target, db};
use crate::auth::{Caller, Scope};
use crate::clock::Time;
use crate::firmware;
use crate::ids::{Handle, RolloutId};
use crate::push::{self, Hint};
use crate::version::Version;
use crate::windows::Windows;
use crate::words::Channel;

/// Silence after which an open update weighs against the release, unless the request says otherwise: ten minutes.
const CONFIRM_WITHIN: Span = Span(std::time::Duration::from_secs(600));

/// What is asked for, field by field valid.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The version that printers are to run.
    pub version: Version,
    /// Only releases of this channel.
    pub channel: Option<Channel>,
    /// Whom.
    pub target: Target,
    /// Only printers whose version was installed by this rollout.
    pub installed_by: Option<Handle>,
    /// How it starts and spreads.
    pub rollout_type: RolloutType,
    /// Buckets below it are in, 0 to 100.
    pub percentage: Option<u8>,
    /// When it starts by itself.
    pub scheduled_for: Option<Time>,
    /// False: it stays pending until somebody starts it.
    pub start: bool,
    /// Whether printers that run a newer version are taken down to this one.
    pub allow_downgrade: bool,
    /// Steps by name.
    pub template: Option<Template>,
    /// Steps.
    pub steps: Option<Vec<Step>>,
    /// When it gives up by itself.
    pub abort_on: Option<AbortRule>,
    /// Silence after which an open update weighs against the release.
    pub confirm_within: Option<Span>,
    /// Silence after which an open update fails.
    pub stuck_after: Option<Span>,
    /// Tries a printer.
    pub max_attempts: Option<u32>,
    /// Most updates that may be open at once.
    pub max_in_flight: Option<u32>,
    /// Most offers within any minute.
    pub rate: Option<Rate>,
    /// When it ends by itself.
    pub ends_at: Option<Time>,
    /// What that means.
    pub on_end: OnEnd,
    /// Whether a second person has to agree.
    pub requires_approval: bool,
    /// Maintenance windows.
    pub windows: Option<Windows>,
    /// Whether its thresholds count only printers with a key of their own.
    pub own_keys_only: bool,
}

impl Wanted {
    /// The rules between fields.
    fn check(&self, now: Time) -> Result<(), Error> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, detail: &str| errors.push((field.to_owned(), detail.to_owned()));
        if !self.target.names_something() && self.installed_by.is_none() {
            wrong(
                "target",
                "names nothing; say {\"all\": true} for every printer, or name users, printers, channels or versions",
            );
        }
        let stepped = self.steps.is_some() || self.template.is_some();
        match (self.rollout_type, self.percentage) {
            (RolloutType::Immediate, _) if stepped => {
                wrong("rollout_type", "must be gradual or scheduled for a rollout with steps")
            }
            (_, Some(_)) if stepped => wrong(
                "rollout_percentage",
                "must be left out for a rollout with steps: they say how far it goes",
            ),
            (RolloutType::Gradual, None) if stepped => {}
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
        if let Some(steps) = &self.steps {
            errors.extend(wrong_steps(steps));
        }
        errors.extend(self.wrong_limits(now));
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }

    fn wrong_limits(&self, now: Time) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, detail: &str| errors.push((field.to_owned(), detail.to_owned()));
        if self.steps.is_some() && self.template.is_some() {
            wrong("template", "cannot be given together with steps; choose one of them");
        }
        if self.max_in_flight == Some(0) {
            wrong("max_in_flight", "must be at least 1; pause the rollout to hold it");
        }
        if self.max_attempts.is_some_and(|most| !(1..=100).contains(&most)) {
            wrong("max_attempts", "must be 1 to 100");
        }
        if self.rate.is_some_and(|rate| rate.base == 0 || rate.max == 0 || rate.factor == 0) {
            wrong(
                "rate_per_minute",
                "must be at least 1, as must its factor and max; pause the rollout to hold it",
            );
        }
        let short = |span: Option<Span>| span.is_some_and(|span| span.0.as_secs() == 0);
        if short(self.confirm_within) {
            wrong("confirm_within", "must be at least a second");
        }
        if short(self.stuck_after) {
            wrong("stuck_after", "must be at least a second");
        }
        if let Some(rule) = &self.abort_on {
            if !(1..100).contains(&rule.failure_rate) {
                wrong("abort_on.failure_rate", "must be 1 to 99 percent");
            }
            if rule.to_version.is_some() && rule.action != AbortAction::Rollback {
                wrong("abort_on.to_version", "goes with the action rollback only");
            }
            if rule.to_version.as_ref().is_some_and(|version| version.parse::<Version>().is_err()) {
                wrong("abort_on.to_version", "is not a semantic version; write it like 1.4.0");
            }
        }
        if self.ends_at.is_some_and(|at| at <= self.scheduled_for.unwrap_or(now)) {
            wrong("ends_at", "must lie behind the start of the rollout");
        }
        if self.ends_at.is_none() && self.on_end == OnEnd::Cancel {
            wrong("on_end", "goes with ends_at only");
        }
        errors
    }
}

/// Most steps of a rollout.
const MAX_STEPS: usize = 20;

fn wrong_steps(steps: &[Step]) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    if steps.is_empty() || steps.len() > MAX_STEPS {
        errors
            .push(("steps".to_owned(), format!("must be 1 to {MAX_STEPS} steps, these are {}", steps.len())));
    }
    let mut before = 0;
    for (index, step) in steps.iter().enumerate() {
        let mut wrong =
            |field: &str, detail: String| errors.push((format!("steps[{index}].{field}"), detail));
        if !(1..=100).contains(&step.percentage) || step.percentage <= before {
            wrong(
                "percentage",
                format!("must rise from step to step up to 100, this is {} after {before}", step.percentage),
            );
        }
        before = step.percentage;
        if !(1..100).contains(&step.failure_threshold) {
            wrong("failure_threshold", "must be 1 to 99 percent".into());
        }
        if step.success_threshold.is_some_and(|percent| percent > 100) {
            wrong("success_threshold", "must be 0 to 100 percent".into());
        }
        if step.first == 0 {
            wrong("first", "must be at least 1".into());
        }
    }
    if before != 100 && errors.is_empty() {
        errors.push((
            "steps".to_owned(),
            "must end with a step of 100 percent, or the rollout would never be complete".into(),
        ));
    }
    errors
}

/// Creates a rollout. Costs the same for ten printers and ten million.
pub async fn create(
    pool: &PgPool,
    caller: &Caller,
    wanted: Wanted,
    max_attempts: u32,
    now: Time,
) -> Result<Rollout, Error> {
    let mut tx = caller.begin(pool).await?;
    let rollout = write(&mut tx, caller, wanted, max_attempts, None, now).await?;
    push::notify(&mut tx, Hint::Rollout(rollout.id.0)).await?;
    tx.commit().await?;
    Ok(rollout)
}

/// The channel that a caller means, who may be for some channels only: the only one of these unless another is named.
pub(super) fn within(scope: &Scope, channel: Option<Channel>) -> Result<Option<Channel>, Error> {
    match (channel, scope.channels().as_deref()) {
        (None, Some([only])) => Ok(Some(*only)),
        (None, Some(several)) => {
            let names = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            Err(Error::Invalid(vec![(
                "channel".into(),
                format!("must be {names}: the key is for these only"),
            )]))
        }
        (channel, _) => Ok(channel),
    }
}

/// Whether a version has a release in this scope that is not deprecated.
pub(super) async fn stands(
    conn: &mut PgConnection,
    scope: &Scope,
    version: &Version,
) -> Result<bool, sqlx::Error> {
    let releases = firmware::releases_of(conn, scope, version).await?;
    Ok(releases.iter().any(|release| release.deprecated_at.is_none()))
}

/// Writes a rollout; with a `number` one that is going to be rolled back.
pub(super) async fn write(
    conn: &mut PgConnection,
    caller: &Caller,
    wanted: Wanted,
    max_attempts: u32,
    number: Option<i64>,
    now: Time,
) -> Result<Rollout, Error> {
    wanted.check(now)?;
    let scope = &*caller.scope;
    let channel = within(scope, wanted.channel)?;
    let target = wanted.target.within(scope).map_err(Error::Invalid)?;
    let wanted = Wanted { channel, target, ..wanted };
    firmware::hold(conn, &wanted.version).await?;
    let releases = firmware::releases_of(conn, scope, &wanted.version).await?;
    let fits = |release: &&firmware::Release| wanted.channel.is_none_or(|channel| channel == release.channel);
    let Some(release) = releases.iter().filter(fits).find(|release| release.deprecated_at.is_none()) else {
        let on = wanted.channel.map_or_else(String::new, |channel| format!(" on {channel}"));
        return Err(Error::FirmwareNotFound(match releases.iter().any(|release| fits(&release)) {
            true => format!("{}{on} is deprecated", wanted.version),
            false => format!("there is no release {}{on}", wanted.version),
        }));
    };
    let back = wanted.abort_on.as_ref().and_then(|rule| rule.to_version.clone());
    if let Some(version) = back.map(Version::from)
        && !stands(conn, scope, &version).await?
    {
        return Err(Error::FirmwareNotFound(format!("abort_on.to_version: there is no release {version}")));
    }
    let installed_by = match wanted.installed_by {
        Some(handle) => Some(db::find(conn, scope, handle, false).await?.id),
        None => None,
    };
    let starts_now =
        wanted.start && !wanted.requires_approval && wanted.scheduled_for.is_none_or(|at| at <= now);
    let steps = wanted.steps.or_else(|| wanted.template.map(Template::steps));
    let first = steps.as_ref().and_then(|steps| steps.first()).map(|step| step.percentage);
    let target = Target { installed_by, ..wanted.target };
    let rollout = Rollout {
        id: RolloutId::generate(),
        number: 0,
        firmware: Some(release.id),
        version: wanted.version,
        channel: wanted.channel,
        reach: target.reach(),
        target,
        rollout_type: wanted.rollout_type,
        percentage: first.or(wanted.percentage).unwrap_or(100),
        scheduled_for: wanted.scheduled_for,
        max_attempts: wanted.max_attempts.unwrap_or(max_attempts),
        status: if starts_now { Status::Active } else { Status::Pending },
        epoch: 0,
        revision: 0,
        created_at: now,
        updated_at: now,
        started_at: starts_now.then_some(now),
        allow_downgrade: wanted.allow_downgrade,
        template: wanted.template,
        steps,
        step: 0,
        stage: 0,
        stage_started_at: starts_now.then_some(now),
        judged_from: 0,
        abort_on: wanted.abort_on,
        confirm_within: wanted.confirm_within.unwrap_or(CONFIRM_WITHIN),
        stuck_after: wanted.stuck_after,
        max_in_flight: wanted.max_in_flight,
        rate: wanted.rate,
        ends_at: wanted.ends_at,
        on_end: wanted.on_end,
        reason: None,
        detail: None,
        approval: if wanted.requires_approval { Approval::Waiting } else { Approval::NotRequired },
        approval_comment: None,
        approval_at: None,
        rolls_back: None,
        windows: wanted.windows,
        own_keys_only: wanted.own_keys_only,
        created_by: Some(caller.actor.name.to_string()),
        creator: Some(caller.actor.identity.to_string()),
    };
    Ok(db::insert(conn, rollout, number).await?)
}
