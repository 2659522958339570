//! What a socket's messages do: to the database first, to memory after.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::wire::{Message, StatusMessage};
use crate::db;
use crate::ids::{PrinterRef, RolloutId, UpdateId};
use crate::printers::{self, Subscribed, Subscription};
use crate::push::{Frame, Line, Out};
use crate::rollouts::Known;
use crate::state::AppState;
use crate::telemetry::metrics;
use crate::updates::{self, Remembered, Report};
use crate::version::Version;

/// Wait before a write is repeated while the database is away.
const RETRY: Duration = Duration::from_millis(500);

/// Repeats a write until the database took it. While it is away the socket is not read, so that nothing a printer
/// says is lost. None when the process ends first, or the database refuses for good.
macro_rules! until_written {
    ($app:expr, $write:expr) => {
        loop {
            match $write.await {
                Ok(written) => break Some(written),
                Err(error) => {
                    if !may_retry($app, error).await {
                        break None;
                    }
                }
            }
        }
    };
}

/// What a subscribe message changed.
struct Written {
    printer: Subscribed,
    remembered: Remembered,
    touched: Option<RolloutId>,
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
            (Message::Report(report, about), Some(line)) => self.report(&report, about, &line).await,
        }
    }

    async fn subscribe(&mut self, said: &Subscription, ignored: Option<StatusMessage>) -> Next {
        let app = &self.app;
        let written = match until_written!(app, self.write_subscription(said, None)) {
            Some(Some(written)) => written,
            Some(None) => return Next::Outdated,
            None => return Next::Stop,
        };
        if let Some(rollout) = written.touched {
            app.steward.moved(rollout);
        }
        let known = Known::new(written.printer.facts, written.remembered);
        let (line, queue) = Line::new(known.facts.printer, written.printer.connection, known);
        if !app.hub.insert(line.clone()) {
            return Next::Outdated;
        }
        // The engine reads the rows again before it decides: what ended since they were written was hinted to a line
        // that was not there yet.
        app.engine.look_at(line.printer);
        self.line = Some(line);
        Next::Subscribed(queue, ignored)
    }

    /// A printer may say again who it is on the same socket. That proves nothing, unless it runs the new version.
    async fn subscribe_again(&self, said: &Subscription, line: &Line<Known>) -> Next {
        if line.state().facts.printer_id != said.printer_id {
            let detail = "printer_id differs: a socket speaks for one printer. Open another.";
            return Next::Say(StatusMessage::new("bad_field", detail));
        }
        let app = &self.app;
        let written = match until_written!(app, self.write_subscription(said, Some(line.connection))) {
            Some(Some(written)) => written,
            Some(None) => return Next::Outdated,
            None => return Next::Stop,
        };
        if let Some(rollout) = written.touched {
            app.steward.moved(rollout);
        }
        line.state().facts = written.printer.facts;
        app.engine.look_at(line.printer);
        Next::GoOn
    }

    /// The printer's row, and what its version proves about its open update, in one transaction. `connection` is the
    /// number of a socket that subscribed before. None when a newer socket of the printer is somewhere.
    async fn write_subscription(
        &self,
        said: &Subscription,
        connection: Option<i64>,
    ) -> Result<Option<Written>, sqlx::Error> {
        let (app, ip, now) = (&self.app, self.ip.to_string(), self.app.clock.now());
        let mut tx = app.pool.begin().await?;
        let Some(mut printer) = printers::subscribe(&mut tx, said, connection, app.replica, &ip, now).await?
        else {
            return Ok(None);
        };
        let again = connection.is_some();
        let settled = updates::settle(&mut tx, printer.facts.printer, &said.version, again, now).await?;
        tx.commit().await?;
        if let Some((installed, previous)) = settled.installed {
            printer.facts.cohort.installed = Some(installed);
            printer.facts.previous = Some(previous);
        }
        Ok(Some(Written { printer, remembered: settled.remembered, touched: settled.touched }))
    }

    /// A report concerns the open update of this printer; one that names another version than that is about nothing.
    async fn report(&self, report: &Report, about: Option<Version>, line: &Line<Known>) -> Next {
        let open = line.state().remembered().open.clone();
        let Some(open) = open.filter(|open| about.is_none_or(|version| version == open.version)) else {
            tracing::debug!(printer = %line.printer, ?report, "a report about nothing that is open");
            return Next::GoOn;
        };
        let app = &self.app;
        let Some(changed) = until_written!(app, self.write_report(report, open.update)) else {
            return Next::Stop;
        };
        if let Report::Progress { percent, .. } = report {
            if changed && *percent >= 0 {
                line.state().underway(open.update);
            }
            return Next::GoOn;
        }
        if !self.renew(line).await {
            return Next::Stop;
        }
        app.engine.look_at(line.printer);
        if let Some(rollout) = open.rollout.filter(|_| changed) {
            app.steward.moved(rollout);
        }
        Next::GoOn
    }

    async fn write_report(&self, report: &Report, update: UpdateId) -> Result<bool, sqlx::Error> {
        updates::report(&mut *self.app.pool.acquire().await?, update, report, self.app.clock.now()).await
    }

    /// Reads again what is remembered. False when the process ends first.
    async fn renew(&self, line: &Line<Known>) -> bool {
        loop {
            let seen = line.state().generation();
            let Some(fresh) = until_written!(&self.app, self.read(line.printer)) else { return false };
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
        let _ = until_written!(&self.app, self.write_withdrawal(UpdateId(frame.update)));
        line.state().unsent();
        self.renew(line).await;
        self.app.engine.look_at(line.printer);
    }

    async fn write_withdrawal(&self, update: UpdateId) -> Result<(), sqlx::Error> {
        updates::withdraw(&mut *self.app.pool.acquire().await?, &[update]).await
    }

    /// The socket ended. `let_go` says whether the printer did that, which after an offer means that it took it.
    pub async fn end(self, let_go: bool) {
        let Some(line) = &self.line else { return };
        self.app.hub.remove(line);
        let (taken, waiting) = {
            let known = line.state();
            (known.taken().filter(|_| let_go), known.waiting())
        };
        let _ = until_written!(&self.app, self.write_end(taken, waiting, line));
    }

    /// In one transaction, because of a printer whose newer socket is here already nothing is known any more.
    async fn write_end(
        &self,
        taken: Option<UpdateId>,
        waiting: Option<UpdateId>,
        line: &Line<Known>,
    ) -> Result<(), sqlx::Error> {
        let (mut tx, now) = (self.app.pool.begin().await?, self.app.clock.now());
        let newest = printers::disconnected(&mut tx, line.printer, line.connection, now).await?;
        if let Some(update) = taken.filter(|_| newest) {
            updates::socket_lost(&mut tx, update, now).await?;
        }
        if let Some(update) = waiting.filter(|_| newest) {
            updates::withdraw(&mut tx, &[update]).await?;
        }
        tx.commit().await
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
