//! What a turn of the engine decides for the printers that it looks at: the pure decision, for each line, within what the
//! limits of its rollout leave. Nothing is asked or written here.

use std::collections::HashMap;

use super::engine::{Engine, PrinterLine};
use super::send::Proposal;
use super::{Decision, Offering, Plan, decide};
use crate::clock::Time;
use crate::ids::{RolloutId, UpdateId};
use crate::printers::Facts;
use crate::updates::{Claim, Open};

/// Offers that the limits leave, as far as this replica knows. Only the claim decides; this spares it what is hopeless.
pub(super) struct Left(HashMap<RolloutId, u32>);

impl Left {
    pub(super) fn of(plan: &Plan) -> Self {
        let slots = |offering: &Offering| Some((offering.rollout.id, offering.slots?.0));
        Self(plan.offerings().iter().filter_map(slots).collect())
    }

    fn take(&mut self, rollout: RolloutId) -> bool {
        match self.0.get_mut(&rollout) {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// What was used counts for the turns until the plan is read again.
    pub(super) fn note(self, plan: &mut Plan) {
        plan.limit(&self.0);
    }
}

/// What looking at some lines led to.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) proposals: Vec<Proposal>,
    /// Offers that were never seen, of rollouts that make none any more.
    pub(super) stranded: Vec<(PrinterLine, UpdateId)>,
    /// When the next printer is due.
    pub(super) until: Option<Time>,
}

impl Engine {
    /// Decides for each line. Locks one line at a time, briefly.
    pub(super) fn weigh(&self, plan: &Plan, left: &mut Left, lines: &[PrinterLine], now: Time) -> Turn {
        let mut turn = Turn::default();
        for line in lines {
            let known = line.state();
            if let Some(open) = &known.remembered().open {
                if known.may_go_again() {
                    match self.again(plan, line, &known.facts, open) {
                        Some(proposal) => turn.proposals.push(proposal),
                        None => turn.stranded.push((line.clone(), open.update)),
                    }
                }
                continue;
            }
            match decide(plan, &known.facts, &known.remembered().past, self.backoff, now) {
                Decision::Offer { offering, pick, tries } if left.take(offering.rollout.id) => {
                    let claim = Claim {
                        update: UpdateId::generate(),
                        rollout: offering.rollout.id,
                        epoch: offering.rollout.epoch,
                        printer: line.printer,
                        connection: line.connection,
                        release: pick.release.id,
                        version: pick.release.version.clone(),
                        from: known.facts.cohort.version.clone(),
                        tries,
                        stone: pick.stone,
                    };
                    turn.proposals.push(Proposal {
                        line: line.clone(),
                        update: claim.update,
                        rollout: Some(claim.rollout),
                        release: pick.release.clone(),
                        fits: self.fits(&known.facts),
                        claim: Some(claim),
                    });
                }
                // The limits of its rollout leave no more for now; what frees a place leads to another look.
                Decision::Offer { .. } => {}
                Decision::Waiting { until, .. } => {
                    turn.until = [turn.until, until].into_iter().flatten().min()
                }
                Decision::Nothing(_) => {}
            }
        }
        turn
    }

    /// An open offer that the printer never saw goes out again, as long as its rollout makes offers and its release
    /// stands.
    fn again(&self, plan: &Plan, line: &PrinterLine, printer: &Facts, open: &Open) -> Option<Proposal> {
        let offers = |rollout| plan.offerings().iter().any(|offering| offering.rollout.id == rollout);
        if !open.rollout.is_none_or(offers) {
            return None;
        }
        let release = plan.catalog.get(open.release).filter(|release| !release.deprecated)?;
        Some(Proposal {
            line: line.clone(),
            update: open.update,
            rollout: open.rollout,
            release: release.clone(),
            fits: self.fits(printer),
            claim: None,
        })
    }

    /// Longest URL that the printer takes.
    fn fits(&self, printer: &Facts) -> usize {
        printer.downloads.max_url_length.unwrap_or(self.max_url_length) as usize
    }
}
