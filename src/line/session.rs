//! What a socket's messages do: to the database first, to memory after.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::wire::{Message, StatusMessage};
use crate::db;
use crate::ids::{PrinterRef, UpdateId};
use crate::printers::{Arrival, Subscription};
use crate::push::{Frame, Line, Out};
use crate::rollouts::Known;
use crate::state::AppState;
use crate::telemetry::metrics;
use crate::updates::{self, Arrived, End, Remembered, Report};
use crate::version::Version;

/// Wait before a statement is repeated while the database is away.
const RETRY: Duration = Duration::from_millis(500);

/// Repeats something until the database did it. None when the process ends first, or the database refuses for good.
macro_rules! until_done {
    ($app:expr, $work:expr) => {
        loop {
            match $work.await {
                Ok(done) => break Some(done),
                Err(error) => {
                    if !may_retry($app, error).await {
                        break None;
                    }
                }
            }
        }
    };
}

/// One socket's side of the conversation.
pub struct Session {
    app: AppState,
    ip: IpAddr,
    line: Option<Arc<Line<Known>>>,
}

/// What the socket's task must do next.
pub enum Next {
    /// Nothing.
    GoOn,
    /// Tell the printer something.
    Say(StatusMessage),
    /// The printer is subscribed: read offers from here, and tell it what was ignored.
    Subscribed(mpsc::Receiver<Out>, Option<StatusMessage>),
    /// A newer socket of this printer is here.
    Outdated,
    /// The printer, or its key, is not let in.
    Refused,
    /// The process is ending.
    Stop,
}

impl Session {
    /// Before the subscribe message.
    pub fn new(app: AppState, ip: IpAddr) -> Self {
        Self { app, ip, line: None }
    }

    /// Whether the subscribe message came.
    pub fn is_subscribed(&self) -> bool {
        self.line.is_some()
    }

    /// Acts upon a message.
    pub async fn take(&mut self, message: Message) -> Next {
        metrics::message(message.kind());
        match (message, self.line.clone()) {
            (Message::Subscribe(said, ignored), None) => self.subscribe(&said, ignored).await,
            (Message::Subscribe(said, ignored), Some(line)) => {
                match (self.subscribe_again(&said, &line).await, ignored) {
                    (Next::GoOn, Some(status)) => Next::Say(status),
                    (next, _) => next,
                }
            }
            (Message::Report(..), None) => {
                Next::Say(StatusMessage::new("subscribe_first", "Send a subscribe message first."))
            }
            (Message::Report(report, about), Some(line)) => self.report(report, about, &line).await,
        }
    }

    async fn subscribe(&mut self, said: &Subscription, ignored: Option<StatusMessage>) -> Next {
        let app = &self.app;
        let shown = said.shown();
        if app.refusals.stands(self.ip, &shown).await {
            return Next::Refused;
        }
        let welcome = match app.intake.arrival(self.arrival(said, None)).await {
            Some(Arrived::Welcome(welcome)) => *welcome,
            Some(Arrived::Outdated) => return Next::Outdated,
            Some(Arrived::Refused) => {
                app.refusals.wrong(self.ip, shown).await;
                tracing::info!(printer = %said.printer_id, user = %said.user_id, ip = %self.ip, "a printer was not let in");
                return Next::Refused;
            }
            None => return Next::Stop,
        };
        app.refusals.right(shown).await;
        if let Some(rollout) = welcome.touched {
            app.steward.moved(rollout);
        }
        let known = Known::new(welcome.printer.facts, welcome.remembered);
        let (line, queue) = Line::new(known.facts.printer, welcome.printer.connection, known);
        if !app.hub.insert(line.clone()) {
            return Next::Outdated;
        }
        // The engine reads the rows again before it decides: what ended since they were written was hinted to a line
        // that was not there yet.
        app.engine.look_at(line.printer);
        self.line = Some(line);
        Next::Subscribed(queue, ignored)
    }

    fn arrival(&self, said: &Subscription, line: Option<&Line<Known>>) -> Arrival {
        let shared_key = line.is_some_and(|line| line.state().facts.shared_key);
        Arrival { said: said.clone(), connection: line.map(|line| line.connection), ip: self.ip, shared_key }
    }

    /// A printer may say again who it is on the same socket. That proves nothing, unless it runs the new version.
    async fn subscribe_again(&self, said: &Subscription, line: &Line<Known>) -> Next {
        if line.state().facts.printer_id != said.printer_id {
            let detail = "printer_id differs: a socket speaks for one printer. Open another.";
            return Next::Say(StatusMessage::new("bad_field", detail));
        }
        let app = &self.app;
        let welcome = match app.intake.arrival(self.arrival(said, Some(line))).await {
            Some(Arrived::Welcome(welcome)) => *welcome,
            Some(Arrived::Outdated | Arrived::Refused) => return Next::Outdated,
            None => return Next::Stop,
        };
        if let Some(rollout) = welcome.touched {
            app.steward.moved(rollout);
        }
        line.state().facts = welcome.printer.facts;
        app.engine.look_at(line.printer);
        Next::GoOn
    }

    /// A report concerns the open update of this printer; one that names another version than that is about nothing.
    async fn report(&self, report: Report, about: Option<Version>, line: &Line<Known>) -> Next {
        let open = line.state().remembered().open.clone();
        let Some(open) = open.filter(|open| about.is_none_or(|version| version == open.version)) else {
            tracing::debug!(printer = %line.printer, ?report, "a report about nothing that is open");
            return Next::GoOn;
        };
        let app = &self.app;
        let outcome = match report {
            Report::Progress(progress) => {
                if progress.percent >= 0 {
                    line.state().underway(open.update);
                }
                app.intake.progress(open.update, progress);
                return Next::GoOn;
            }
            Report::Outcome(outcome) => outcome,
        };
        let seen = line.state().generation();
        let Some(noted) = app.intake.outcome(line.printer, open.update, outcome).await else {
            return Next::Stop;
        };
        let renewed = line.state().renew(seen, noted.remembered);
        if !renewed && !self.renew(line).await {
            return Next::Stop;
        }
        app.engine.look_at(line.printer);
        if let Some(rollout) = open.rollout.filter(|_| noted.changed) {
            app.steward.moved(rollout);
        }
        Next::GoOn
    }

    /// Reads again what is remembered. False when the process ends first. Boxed, as whatever is rare: every message of a
    /// printer would take its room.
    async fn renew(&self, line: &Line<Known>) -> bool {
        loop {
            let seen = line.state().generation();
            let Some(fresh) = until_done!(&self.app, Box::pin(self.read(line.printer))) else { return false };
            if line.state().renew(seen, fresh) {
                return true;
            }
        }
    }

    async fn read(&self, printer: PrinterRef) -> Result<Remembered, sqlx::Error> {
        let mut all = updates::remembered(&mut *self.app.pool.acquire().await?, &[printer]).await?;
        Ok(all.remove(&printer).unwrap_or_default())
    }

    /// An offer is on the wire.
    pub fn written(&self, frame: &Frame) {
        if let Some(line) = &self.line {
            line.state().written(UpdateId(frame.update));
        }
    }

    /// An offer did not leave: its rollout was narrowed after the claim.
    pub async fn withdraw(&self, frame: &Frame) {
        let Some(line) = &self.line else { return };
        metrics::offers("withdrawn", 1);
        let seen = line.state().generation();
        let Some(fresh) = self.app.intake.withdraw(line.printer, UpdateId(frame.update)).await else {
            return;
        };
        let is_renewed = {
            let mut known = line.state();
            let is_renewed = known.renew(seen, fresh);
            known.unsent();
            is_renewed
        };
        if is_renewed || self.renew(line).await {
            self.app.engine.look_at(line.printer);
        }
    }

    /// The socket ended. `let_go` says whether the printer did that, which after an offer means that it took it.
    pub async fn end(self, let_go: bool) {
        let Some(line) = &self.line else { return };
        self.app.hub.remove(line);
        let (taken, waiting) = {
            let known = line.state();
            (known.taken().filter(|_| let_go), known.waiting())
        };
        let (printer, connection) = (line.printer, line.connection);
        self.app.intake.end(End { printer, connection, taken, waiting }).await;
    }
}

/// Whether a write that failed may be tried again, after a wait: the database is away, and the process stays. It may
/// not when the database refuses for good.
async fn may_retry(app: &AppState, error: sqlx::Error) -> bool {
    if !db::is_unavailable(&error) {
        tracing::error!(%error, "what a printer said could not be written down");
        return false;
    }
    tracing::debug!(%error, "a printer waits for the database");
    tokio::select! {
        () = app.shutdown.hard.cancelled() => false,
        () = tokio::time::sleep(RETRY) => true,
    }
}
