//! One printer's life: connect, subscribe, obey, and begin again.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    Error,
    chance::Fate,
    download::{self, Running},
    install::{Install, plan},
    intake::{DownloadError, Downloaded},
    net::{Endpoint, Network},
    options::PrinterOptions,
    ramp::Ramp,
    talk::{Command, Ended},
    tally::{EventKind, Tally},
    wire::Offer,
};

/// What a printer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not begun yet: its turn in the ramp has not come.
    Waiting,
    /// Without a connection, trying.
    Connecting,
    /// Connected and subscribed.
    Online,
    /// Device mode: without a socket, loading.
    Downloading,
    /// Between two versions.
    Rebooting,
    /// Gone for good.
    Bricked,
}

/// A printer at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrinterState {
    /// What it is doing.
    pub phase: Phase,
    /// What it runs.
    pub version: Arc<str>,
    /// Attempts at an update so far.
    pub attempts: u32,
}

/// Times a stumbling printer dies between connecting and subscribing.
const STUMBLES: u8 = 2;

pub(super) struct Life {
    pub(super) id: Arc<str>,
    pub(super) options: PrinterOptions,
    pub(super) endpoint: Endpoint,
    pub(super) network: Arc<Network>,
    pub(super) tally: Arc<Tally>,
    pub(super) ramp: Arc<Ramp>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) state: watch::Sender<PrinterState>,
    pub(super) memory: Memory,
}

/// What a printer remembers from one connection to the next.
#[derive(Default)]
pub(super) struct Memory {
    /// MD5 and size of the image that it installed last.
    sketch: Option<Downloaded>,
    /// A polite installation under way; it outlives the socket.
    pub(super) install: Option<Install>,
    /// A failure to be told after the next subscribe.
    pub(super) untold: Option<String>,
    /// An update finished in device mode; with chaos it is told late, and twice.
    pub(super) late: Option<Arc<str>>,
    pub(super) stumbles: u8,
}

impl Life {
    /// Runs until it is dropped or bricked.
    pub(super) async fn run(mut self) {
        self.ramp.turn().await;
        loop {
            self.phase(Phase::Connecting);
            let socket = match self.network.open(&self.endpoint, &self.options).await {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::debug!(printer = %self.id, %error, "no connection");
                    self.tally.blame(error.to_string());
                    self.tally.count(|counters| &counters.connect_failures);
                    sleep(self.options.pace.reconnect).await;
                    continue;
                }
            };
            self.emit(EventKind::Connected);
            let (ended, code) = self.connection(socket).await;
            self.emit(EventKind::Disconnected { code });
            match ended {
                Ended::Lost => {
                    self.phase(Phase::Connecting);
                    sleep(self.options.pace.reconnect).await;
                }
                Ended::Offered(offer, fate) => match self.device_install(&offer, fate).await {
                    None => sleep(self.options.pace.reconnect).await,
                    Some(image) => {
                        if self.reboot(&offer.version, image, fate).await {
                            return;
                        }
                    }
                },
                Ended::Installed(version, image, fate) => {
                    if self.reboot(&version, image, fate).await {
                        return;
                    }
                }
            }
        }
    }

    /// Without a socket, as an unchanged sketch does it. `None`: it failed, and the old version runs on.
    async fn device_install(&mut self, offer: &Offer, fate: Fate) -> Option<Downloaded> {
        self.phase(Phase::Downloading);
        self.emit(EventKind::DownloadStarted);
        let running = self.running();
        let plan = plan(&self.options, fate, None);
        // On the heap, so that the task of a printer that only waits stays small.
        let loading = Box::pin(download::device(&self.network, &self.options, &running, offer, plan));
        match self.judge(loading.await) {
            Ok(image) => Some(image),
            Err(reason) => {
                self.memory.untold = self.options.reports_failure.then_some(reason);
                None
            }
        }
    }

    /// Counts and tells how a download ended.
    pub(super) fn judge(&self, result: Result<Downloaded, DownloadError>) -> Result<Downloaded, String> {
        let error = match result {
            Ok(image) => {
                self.emit(EventKind::Downloaded { bytes: image.bytes, md5_ok: true });
                return Ok(image);
            }
            Err(error) => error,
        };
        match &error {
            DownloadError::Md5 { received, .. } => {
                self.emit(EventKind::Downloaded { bytes: *received, md5_ok: false });
            }
            _ => self.tally.count(|counters| &counters.downloads_failed),
        }
        let reason = error.to_string();
        self.emit(EventKind::Failed { reason: reason.clone() });
        Err(reason)
    }

    /// Goes down and comes up as fate wills; true when it never does.
    async fn reboot(&mut self, version: &Arc<str>, image: Downloaded, fate: Fate) -> bool {
        if fate == Fate::Brick {
            self.phase(Phase::Bricked);
            self.emit(EventKind::Bricked);
            return true;
        }
        self.phase(Phase::Rebooting);
        sleep(self.options.pace.reboot).await;
        if fate != Fate::RollBack {
            self.state.send_modify(|state| state.version = Arc::clone(version));
            self.memory.sketch = Some(image);
            self.memory.late = Some(Arc::clone(version));
        }
        if fate == Fate::Stumble {
            self.memory.stumbles = STUMBLES;
        }
        self.emit(EventKind::Rebooted { version: self.version() });
        false
    }

    pub(super) fn running(&self) -> Running {
        Running::of(&self.version(), self.memory.sketch.as_ref())
    }

    /// Draws the fate of the next attempt.
    pub(super) fn draw(&mut self) -> Fate {
        let attempt = self.state.borrow().attempts;
        self.state.send_modify(|state| state.attempts += 1);
        let refuses = !self.options.auto_update && !self.options.accepts_forced;
        if refuses { Fate::Decline } else { self.options.behaviour.fate(self.options.seed, attempt) }
    }

    pub(super) fn version(&self) -> Arc<str> {
        Arc::clone(&self.state.borrow().version)
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.state.send_modify(|state| state.phase = phase);
        self.tally.touch();
    }

    pub(super) fn emit(&self, kind: EventKind) {
        self.tally.emit(&self.id, kind);
    }
}

impl Life {
    pub(super) fn new(
        options: PrinterOptions,
        network: Arc<Network>,
        tally: Arc<Tally>,
        ramp: Arc<Ramp>,
    ) -> Result<(Self, mpsc::Sender<Command>), Error> {
        let endpoint = Endpoint::socket(&options.server, &options.identity.user_id)?;
        let (commands, receiver) = mpsc::channel(8);
        let version = Arc::clone(&options.firmware_version);
        let (state, _) = watch::channel(PrinterState { phase: Phase::Waiting, version, attempts: 0 });
        let id = options.identity.label();
        let memory = Memory::default();
        let life = Self { id, options, endpoint, network, tally, ramp, commands: receiver, state, memory };
        Ok((life, commands))
    }
}
