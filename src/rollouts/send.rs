//! From a proposal to a frame: an address for the image, the claim, the link if one is needed, the socket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout;

use super::engine::{Engine, FORCED, PrinterLine};
use super::{ReleaseBrief, limits};
use crate::clock::Time;
use crate::ids::{RolloutId, UpdateId};
use crate::links::{self, NewLink, Token};
use crate::printers;
use crate::push::{Frame, Out};
use crate::storage::{self, Address, ObjectKey};
use crate::telemetry::metrics;
use crate::updates::{self, Claim, Open};
use crate::version::Version;

/// Longest wait for a signature: credentials may have to be fetched first.
const SIGNING: Duration = Duration::from_secs(5);

/// An offer that would be made to a printer on one of our sockets.
pub(super) struct Proposal {
    pub line: PrinterLine,
    pub update: UpdateId,
    /// None: an operator forced it.
    pub rollout: Option<RolloutId>,
    pub release: ReleaseBrief,
    /// Longest URL that the printer takes, in characters.
    pub fits: usize,
    /// What to claim; none when an open offer is sent again.
    pub claim: Option<Claim>,
}

/// `firmware_update`, as short as it can be: many sketches parse into 256 or 512 bytes.
#[derive(Serialize)]
struct FirmwareUpdate<'a> {
    kind: &'static str,
    version: &'a Version,
    url: &'a str,
    md5: &'a str,
}

/// Addresses by object and by what fits.
type Addresses = HashMap<(ObjectKey, usize), Address>;

impl Engine {
    /// Claims and sends.
    pub(super) async fn offer(&self, mut proposals: Vec<Proposal>, now: Time) -> Result<(), sqlx::Error> {
        let addresses = self.addresses(&proposals).await;
        // Without an address there is nothing to offer; the next scan tries again.
        proposals.retain(|proposal| addresses.contains_key(&proposal.place()));
        if proposals.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut tx = self.pool.begin().await?;
        let granted = grant(&mut tx, &proposals, now).await?;
        let mut tokens = HashMap::new();
        let mut new_links = Vec::new();
        for proposal in proposals.iter().filter(|proposal| granted.contains_key(&proposal.update)) {
            if addresses.get(&proposal.place()) == Some(&Address::Link) {
                let (token, expires_at) = (Token::generate(), self.delivery.expires_at(now));
                tokens.insert(proposal.update, token.clone());
                let (printer, release) = (proposal.line.printer, proposal.release.id);
                new_links.push(NewLink { token, printer, release, update: proposal.update, expires_at });
            }
        }
        links::create(&mut tx, &new_links, now).await?;
        tx.commit().await?;
        metrics::claimed(started.elapsed());

        let (mut unsent, mut gone, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for proposal in proposals {
            let Some(epoch) = granted.get(&proposal.update) else {
                lost.push(proposal.line);
                continue;
            };
            let url: Arc<str> = match (addresses.get(&proposal.place()), tokens.get(&proposal.update)) {
                (Some(Address::Url(url)), _) => url.clone(),
                (_, Some(token)) => format!("{}{}", self.base_url, token.path()).into(),
                // Every granted proposal has an address or a token.
                (_, None) => continue,
            };
            if let Some(rollout) = proposal.rollout {
                self.steward.moved(rollout);
            }
            let (update, line) = (proposal.update, proposal.line.clone());
            if !proposal.send(*epoch, &url) {
                unsent.push(update);
                gone.push(line);
            }
        }
        if !unsent.is_empty() {
            metrics::offers("withdrawn", unsent.len());
            updates::withdraw(&mut *self.pool.acquire().await?, &unsent).await?;
            lost.extend(gone);
        }
        // What was not granted was decided on old news about the printer; the next scan decides on fresh ones.
        self.part_with_old(&lost).await?;
        self.refresh(&lost).await
    }

    /// Closes those of these lines whose printer is on another replica by now, or was parted with by an operator. What they remember will never be true
    /// again, and a place that a limit leaves would be kept for them in every turn until their pings fail.
    pub(super) async fn part_with_old(&self, lines: &[PrinterLine]) -> Result<(), sqlx::Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let printers: Vec<_> = lines.iter().map(|line| line.printer).collect();
        let newest = printers::connections(&mut *self.pool.acquire().await?, &printers).await?;
        for line in lines {
            if newest.get(&line.printer).is_some_and(|newest| *newest > line.connection) {
                self.hub.part_with(line);
            }
        }
        Ok(())
    }

    /// An address for every release of the proposals.
    async fn addresses(&self, proposals: &[Proposal]) -> Addresses {
        let mut addresses = Addresses::new();
        let mut failed = HashSet::new();
        for proposal in proposals {
            let (key, fits) = proposal.place();
            if addresses.contains_key(&(key.clone(), fits)) || failed.contains(&key) {
                continue;
            }
            let address = timeout(SIGNING, self.delivery.address(&key, fits)).await;
            match address.unwrap_or_else(|_| {
                Err(storage::Error::Timeout("the credentials did not come in time".into()))
            }) {
                Ok(address) => drop(addresses.insert((key, fits), address)),
                Err(error) => {
                    tracing::error!(%key, %error, "no download URL can be made, so nothing is offered");
                    failed.insert(key);
                }
            }
        }
        addresses
    }
}

/// Claims the new offers and allows the old ones again. Returns those that may go out, with their rollout's epoch.
async fn grant(
    conn: &mut sqlx::PgConnection,
    proposals: &[Proposal],
    now: Time,
) -> Result<HashMap<UpdateId, i64>, sqlx::Error> {
    let claims: Vec<_> = proposals.iter().filter_map(|proposal| proposal.claim.clone()).collect();
    let others = proposals.iter().filter_map(|proposal| proposal.rollout);
    // Whoever deletes a release holds it, and then its rollouts.
    updates::hold_releases(conn, claims.iter().map(|claim| claim.release)).await?;
    let claims = limits::grant(conn, claims, others, now).await?;
    let again: Vec<_> = proposals
        .iter()
        .filter(|proposal| proposal.claim.is_none())
        .map(|proposal| (proposal.update, proposal.line.connection))
        .collect();
    let claimed: HashSet<_> = updates::claim(conn, &claims, now).await?.into_iter().collect();
    let mut granted: HashMap<_, _> = updates::reoffer(conn, &again, now).await?.into_iter().collect();
    granted.extend(
        claims
            .iter()
            .filter(|claim| claimed.contains(&claim.update))
            .map(|claim| (claim.update, claim.epoch)),
    );
    Ok(granted)
}

impl Proposal {
    fn place(&self) -> (ObjectKey, usize) {
        (self.release.key.clone(), self.fits)
    }

    /// Hands the offer to the socket's task. False when that is gone or does not keep up: then it never left.
    fn send(self, epoch: i64, url: &str) -> bool {
        let message = FirmwareUpdate {
            kind: "firmware_update",
            version: &self.release.version,
            url,
            md5: &self.release.md5,
        };
        // A struct of strings always serialises.
        let text = serde_json::to_string(&message).unwrap_or_default();
        let again = self.claim.is_none();
        let rollout = self.rollout.map_or(FORCED, |rollout| rollout.0);
        let frame = Frame { text, rollout, epoch, update: self.update.0, again };
        self.line.state().queued(self.claim.as_ref().map(open));
        if self.line.send(Out::Offer(Box::new(frame))) {
            return true;
        }
        self.line.state().unsent();
        false
    }
}

fn open(claim: &Claim) -> Open {
    Open {
        update: claim.update,
        rollout: Some(claim.rollout),
        status: updates::Status::Pending,
        release: claim.release,
        version: claim.version.clone(),
        from: claim.from.clone(),
        sends: 1,
        socket_lost: false,
    }
}
