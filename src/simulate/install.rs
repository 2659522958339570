//! A polite installation: a task of its own, because it goes on when the socket is lost.

use std::sync::Arc;

use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    chance::Fate,
    download,
    intake::{Plan, Step},
    net::Network,
    options::PrinterOptions,
    wire::Offer,
};

/// Progress reports that may wait for the socket.
const STEPS: usize = 16;

pub(super) struct Install {
    pub(super) offer: Offer,
    pub(super) fate: Fate,
    steps: mpsc::Receiver<Step>,
    _task: AbortOnDropHandle<()>,
}

impl Install {
    pub(super) fn start(network: &Arc<Network>, options: &PrinterOptions, offer: Offer, fate: Fate) -> Self {
        let (sender, steps) = mpsc::channel(STEPS);
        let (network, options, wanted) = (Arc::clone(network), options.clone(), offer.clone());
        let task = tokio::spawn(async move {
            sleep(options.pace.before_download).await;
            let plan = plan(&options, fate, Some(sender.clone()));
            let result = download::polite(&network, &options, &wanted, plan).await;
            let _ = sender.send(Step::Done(result)).await;
        });
        Self { offer, fate, steps, _task: AbortOnDropHandle::new(task) }
    }
}

/// The next step of what is being installed; for ever nothing when nothing is.
pub(super) async fn next_step(install: &mut Option<Install>) -> Step {
    if let Some(step) = match install {
        Some(install) => install.steps.recv().await,
        None => None,
    } {
        return step;
    }
    std::future::pending().await
}

/// The faults that this fate means for the download.
pub(super) fn plan(options: &PrinterOptions, fate: Fate, steps: Option<mpsc::Sender<Step>>) -> Plan {
    let mut percents = options.progress.to_vec();
    if !options.chaos {
        percents.sort_unstable();
    }
    Plan {
        break_off: fate == Fate::FailDownload,
        corrupt: fate == Fate::Corrupt,
        rate: options.slow_bytes_per_second,
        percents,
        steps,
    }
}
