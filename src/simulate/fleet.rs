//! Many printers at once.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Error,
    chance::Behaviour,
    life::{Life, Phase, PrinterState},
    net::Network,
    options::FleetOptions,
    ramp::Ramp,
    talk::Command,
    tally::{Event, Summary, Tally},
};

/// How often those who wait look whether something happened.
const GLANCE: Duration = Duration::from_millis(5);
/// What a stop may take.
const STOP: Duration = Duration::from_secs(5);

/// A running fleet. Dropping it stops it; [`Fleet::stop`] also waits for the end.
#[derive(Debug)]
pub struct Fleet {
    printers: Vec<PrinterHandle>,
    tally: Arc<Tally>,
    tasks: JoinSet<()>,
}

/// One printer of a fleet.
#[derive(Debug, Clone)]
pub struct PrinterHandle {
    id: Arc<str>,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<PrinterState>,
}

impl PrinterHandle {
    /// Its `printer_id`, or `user/name`.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What it is at this moment.
    #[must_use]
    pub fn state(&self) -> PrinterState {
        self.state.borrow().clone()
    }

    /// To wait for a change of its state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PrinterState> {
        self.state.clone()
    }

    /// Sends any frame on its socket, once it has subscribed.
    ///
    /// # Errors
    /// [`Error::Gone`] when the printer is bricked or its fleet stopped.
    pub async fn send_raw(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.command(Command::Raw(message.into())).await
    }

    /// Drops its TCP connection without a close frame; it reconnects as after any loss.
    ///
    /// # Errors
    /// [`Error::Gone`] when the printer is bricked or its fleet stopped.
    pub async fn drop_hard(&self) -> Result<(), Error> {
        self.command(Command::DropHard).await
    }

    /// Closes its connection by the book; it reconnects as after any loss.
    ///
    /// # Errors
    /// [`Error::Gone`] when the printer is bricked or its fleet stopped.
    pub async fn close(&self) -> Result<(), Error> {
        self.command(Command::Close).await
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Gone)
    }
}

impl Fleet {
    /// Starts the printers, each as a task. They connect at once, or as `connect_rate` lets them.
    ///
    /// # Errors
    /// When an option makes no sense; nothing was started then.
    pub fn start(options: FleetOptions) -> Result<Self, Error> {
        let (network, ramp) = (Arc::new(Network::default()), Arc::new(Ramp::new(options.connect_rate)));
        let tally = Arc::new(Tally::new(options.event_capacity));
        let mut sources = options.source_ips.iter().cycle();
        let mut lives = Vec::with_capacity(options.printers.len());
        for mut printer in options.printers {
            if let Behaviour::Odds(odds) = &printer.behaviour {
                odds.check()?;
            }
            printer.source_ip = printer.source_ip.or_else(|| sources.next().copied());
            lives.push(Life::new(printer, Arc::clone(&network), Arc::clone(&tally), Arc::clone(&ramp))?);
        }
        let mut tasks = JoinSet::new();
        let mut printers = Vec::with_capacity(lives.len());
        for (life, commands) in lives {
            printers.push(PrinterHandle {
                id: Arc::clone(&life.id),
                commands,
                state: life.state.subscribe(),
            });
            tasks.spawn(life.run());
        }
        Ok(Self { printers, tally, tasks })
    }

    /// Its printers, in the order of the options.
    #[must_use]
    pub fn printers(&self) -> &[PrinterHandle] {
        &self.printers
    }

    /// The printer with this id.
    #[must_use]
    pub fn printer(&self, id: &str) -> Option<&PrinterHandle> {
        self.printers.iter().find(|printer| &*printer.id == id)
    }

    /// What happens from now on. A reader that falls behind is told how much it missed; counts miss nothing.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.tally.events()
    }

    /// The fleet at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Summary {
        let mut summary = self.tally.read();
        summary.printers = self.printers.len();
        for printer in &self.printers {
            let state = printer.state.borrow();
            if state.phase == Phase::Bricked {
                continue;
            }
            match summary.versions.get_mut(&*state.version) {
                Some(count) => *count += 1,
                None => {
                    summary.versions.insert(state.version.to_string(), 1);
                }
            }
        }
        summary
    }

    /// Waits until the summary is as wanted, and returns it.
    ///
    /// # Errors
    /// [`Error::NotInTime`] with the summary as it was in the end.
    pub async fn wait_until(
        &self,
        within: Duration,
        mut wanted: impl FnMut(&Summary) -> bool,
    ) -> Result<Summary, Error> {
        let deadline = Instant::now() + within;
        loop {
            // Read before the snapshot: what happens in between is looked at again.
            let seen = self.tally.generation.load(Relaxed);
            let summary = self.snapshot();
            if wanted(&summary) {
                return Ok(summary);
            }
            loop {
                if Instant::now() >= deadline {
                    return Err(Error::NotInTime(Box::new(self.snapshot())));
                }
                sleep(GLANCE).await;
                if self.tally.generation.load(Relaxed) != seen {
                    break;
                }
            }
        }
    }

    /// Ends all printers where they stand, without close frames, and returns the last summary. The counts of
    /// `online` are those from before the end.
    pub async fn stop(mut self) -> Summary {
        let summary = self.snapshot();
        // A task that does not yield is left behind rather than waited for.
        let _ = timeout(STOP, self.tasks.shutdown()).await;
        summary
    }
}
