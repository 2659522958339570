//! Why a printer gets what it gets: the decision, in words.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::decide::Verdict;
use super::{Error, Offering, Plan, Rollout, Why, db, limits};
use crate::auth::Scope;
use crate::clock::Time;
use crate::ids::{Handle, PrinterRef};
use crate::printers::{self, Facts};
use crate::updates::{self, Past};
use crate::version::Version;
use crate::words::vocabulary;

vocabulary!(
    /// What a rollout means for a printer now.
    Outcome {
        /// It is being offered, or will be as soon as it is connected.
        #[default]
        Offer = "offer",
        /// Not yet.
        Waiting = "waiting",
        /// Not.
        Nothing = "nothing",
    }
);

/// What one rollout means for a printer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"rollout": 42, "firmware_version": "1.5.0", "offers_version": null, "outcome": "waiting",
    "reason": "outside_percentage", "detail": "Its bucket 37 is not below the rollout's percentage, 20.", "until": null}))]
pub struct Explanation {
    /// The rollout's number.
    pub rollout: i64,
    /// What it brings.
    #[schema(value_type = String)]
    pub firmware_version: Version,
    /// What the printer would be offered: less than that when it is a stepping stone.
    #[schema(value_type = Option<String>)]
    pub offers_version: Option<Version>,
    /// In a word.
    pub outcome: Outcome,
    /// Why, as a word; null for an offer.
    pub reason: Option<&'static str>,
    /// Why, as a sentence.
    pub detail: String,
    /// When that ends by itself, if that is known.
    pub until: Option<DateTime<Utc>>,
}

/// Why a printer gets what it gets.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"printer_id": "770e8400-e29b-41d4-a716-446655440000", "firmware_version": "1.4.0", "outcome": "waiting",
    "rollout": 42, "reason": "outside_percentage", "detail": "Its bucket 37 is not below the rollout's percentage, 20.", "until": null,
    "rollouts": []}))]
pub struct PrinterExplanation {
    /// Its own name.
    #[schema(value_type = String)]
    pub printer_id: crate::ids::PrinterId,
    /// What it runs.
    #[schema(value_type = String)]
    pub firmware_version: Version,
    /// What comes of it all.
    pub outcome: Outcome,
    /// The rollout that decides, if one does.
    pub rollout: Option<i64>,
    /// Why, as a word; null for an offer.
    pub reason: Option<&'static str>,
    /// Why, as a sentence.
    pub detail: String,
    /// When that ends by itself, if that is known.
    pub until: Option<DateTime<Utc>>,
    /// Every rollout that is not cancelled and that the key is for, in order of precedence.
    pub rollouts: Vec<Explanation>,
}

/// Explains every rollout for one printer. The same function decides what is pushed.
pub async fn explain(
    conn: &mut PgConnection,
    scope: &Scope,
    printer: PrinterRef,
    backoff: Duration,
    now: Time,
) -> Result<PrinterExplanation, Error> {
    let rollouts = db::standing(conn, scope).await?;
    let (facts, plan, remembered) = prepare(conn, printer, rollouts, now).await?;
    let each = |offering: &Offering| {
        one(&plan, offering, &facts, remembered.past.get(&offering.rollout.id), backoff, now)
    };
    let rollouts: Vec<_> = plan.offerings().iter().map(each).collect();
    let mut whole = PrinterExplanation {
        printer_id: facts.printer_id.clone(),
        firmware_version: facts.cohort.version.clone(),
        outcome: Outcome::Nothing,
        rollout: None,
        reason: Some("no_rollout"),
        detail: match scope.is_all() {
            true => "No rollout wants it.".into(),
            false => "No rollout that the key is for wants it.".into(),
        },
        until: None,
        rollouts,
    };
    let decisive = whole.rollouts.iter().position(|one| one.decides());
    let decisive = decisive.or_else(|| whole.rollouts.iter().position(|one| one.outcome == Outcome::Waiting));
    if let Some(one) = decisive.or(if whole.rollouts.is_empty() { None } else { Some(0) }) {
        let one = whole.rollouts[one].clone();
        (whole.outcome, whole.rollout) = (one.outcome, Some(one.rollout));
        (whole.reason, whole.detail, whole.until) = (one.reason, one.detail, one.until);
    }
    if let Some(open) = remembered.open {
        let why = Why::Busy(open.version.to_string());
        (whole.outcome, whole.reason, whole.detail, whole.until) =
            (Outcome::Waiting, Some(why.code()), why.to_string(), None);
    }
    Ok(whole)
}

/// Explains one rollout for one printer.
pub async fn explain_rollout(
    conn: &mut PgConnection,
    scope: &Scope,
    handle: Handle,
    printer: PrinterRef,
    backoff: Duration,
    now: Time,
) -> Result<Explanation, Error> {
    let rollout = db::find(conn, scope, handle, false).await?;
    let (facts, plan, remembered) = prepare(conn, printer, vec![rollout], now).await?;
    let offering = plan.offerings().first().ok_or_else(|| Error::NotFound("that is gone".into()))?;
    let past = remembered.past.get(&offering.rollout.id);
    let mut explanation = one(&plan, offering, &facts, past, backoff, now);
    if let Some(open) = remembered.open {
        let why = Why::Busy(open.version.to_string());
        explanation.outcome = Outcome::Waiting;
        (explanation.reason, explanation.detail) = (Some(why.code()), why.to_string());
    }
    Ok(explanation)
}

async fn prepare(
    conn: &mut PgConnection,
    printer: PrinterRef,
    rollouts: Vec<Rollout>,
    now: Time,
) -> Result<(Facts, Plan, updates::Remembered), Error> {
    let facts = printers::facts(conn, printer).await?;
    let remembered = updates::remembered(conn, &[printer]).await?.remove(&printer).unwrap_or_default();
    let mut slots = limits::outlook(conn, &rollouts, now).await?;
    let offering = |rollout: Rollout| Offering { slots: slots.remove(&rollout.id), rollout };
    let offerings = rollouts.into_iter().map(offering).collect();
    let (catalog, owners) = (db::catalog(conn).await?, printers::owners(conn).await?);
    Ok((facts, Plan::new(offerings, catalog, Arc::new(owners)), remembered))
}

fn one(
    plan: &Plan,
    offering: &Offering,
    facts: &Facts,
    past: Option<&Past>,
    backoff: Duration,
    now: Time,
) -> Explanation {
    let blank = Explanation {
        rollout: offering.rollout.number,
        firmware_version: offering.rollout.version.clone(),
        offers_version: None,
        outcome: Outcome::Offer,
        reason: None,
        detail: String::new(),
        until: None,
    };
    match offering.weigh(plan, facts, past, backoff, now) {
        Verdict::Offer { pick, tries } => {
            let version = &pick.release.version;
            let stone = if pick.stone { ", a stepping stone" } else { "" };
            let detail = format!("It is offered {version}{stone} as soon as it is connected (try {tries}).");
            Explanation { offers_version: Some(version.clone()), detail, ..blank }
        }
        Verdict::Waiting { why, until } => Explanation {
            outcome: Outcome::Waiting,
            reason: Some(why.code()),
            detail: why.to_string(),
            until,
            ..blank
        },
        Verdict::Nothing(why) => Explanation {
            outcome: Outcome::Nothing,
            reason: Some(why.code()),
            detail: why.to_string(),
            ..blank
        },
    }
}

impl Explanation {
    /// Whether no rollout of a lower version comes into question behind this one.
    fn decides(&self) -> bool {
        match self.outcome {
            Outcome::Offer => true,
            Outcome::Waiting => Why::MOMENTARY.contains(&self.reason.unwrap_or_default()),
            Outcome::Nothing => false,
        }
    }
}
