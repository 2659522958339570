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
use crate::updates::{self, Remembered, Report, Status};
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
    /// The printer is subscribed: read offers from here.
    Subscribed(mpsc::Receiver<Out>),
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
            (Message::Subscribe(said), None) => self.subscribe(&said).await,
            (Message::Subscribe(said), Some(line)) => self.subscribe_again(&said, &line).await,
            (Message::Report(..), None) => {
                Next::Say(StatusMessage::new("subscribe_first", "Send a subscribe message first."))
            }
            (Message::Report(report, about), Some(line)) => self.report(&report, about, &line).await,
        }
    }

    async fn subscribe(&mut self, said: &Subscription) -> Next {
        let app = &self.app;
        let Some(written) = until_written!(app, self.write_subscription(said, None)) else {
            return Next::Stop;
        };
        if let Some(rollout) = written.touched {
            app.tally.moved(rollout);
        }
        let known = Known { facts: written.printer.facts, remembered: written.remembered, sent: false };
        let (line, queue) = Line::new(known.facts.printer, written.printer.connection, known);
        if !app.hub.insert(line.clone()) {
            return Next::Outdated;
        }
        app.engine.look_at(line.printer);
        self.line = Some(line);
        Next::Subscribed(queue)
    }

    /// A printer may say again who it is on the same socket. That proves nothing, unless it runs the new version.
    async fn subscribe_again(&self, said: &Subscription, line: &Line<Known>) -> Next {
        if line.state().facts.printer_id != said.printer_id {
            return Next::Say(StatusMessage::new(
                "bad_field",
                "printer_id differs: a socket speaks for one printer. Open another.",
            ));
        }
        let app = &self.app;
        let Some(written) = until_written!(app, self.write_subscription(said, Some(line.connection))) else {
            return Next::Stop;
        };
        if written.printer.connection != line.connection {
            return Next::Outdated;
        }
        if let Some(rollout) = written.touched {
            app.tally.moved(rollout);
        }
        {
            let mut known = line.state();
            known.facts = written.printer.facts;
            known.renew(written.remembered);
        }
        app.engine.look_at(line.printer);
        Next::GoOn
    }

    /// The printer's row, and what its version proves about its open update, in one transaction. `connection` is the
    /// number of a socket that subscribed before.
    async fn write_subscription(
        &self,
        said: &Subscription,
        connection: Option<i64>,
    ) -> Result<Written, sqlx::Error> {
        let (app, ip, now) = (&self.app, self.ip.to_string(), self.app.clock.now());
        let mut tx = app.pool.begin().await?;
        let printer = printers::subscribe(&mut tx, said, connection, app.replica, &ip, now).await?;
        let (remembered, touched) =
            updates::settle(&mut tx, printer.facts.printer, &said.version, connection.is_some(), now).await?;
        tx.commit().await?;
        Ok(Written { printer, remembered, touched })
    }

    /// A report concerns the open update of this printer, whatever else the message says.
    async fn report(&self, report: &Report, about: Option<Version>, line: &Line<Known>) -> Next {
        let open = line.state().remembered.open.clone();
        let Some(open) = open.filter(|open| about.is_none_or(|version| version == open.version)) else {
            tracing::debug!(printer = %line.printer, ?report, "a report about nothing that is open");
            return Next::GoOn;
        };
        let app = &self.app;
        let Some((changed, fresh)) =
            until_written!(app, self.write_report(report, open.update, line.printer))
        else {
            return Next::Stop;
        };
        match fresh {
            Some(fresh) => {
                line.state().renew(fresh);
                app.engine.look_at(line.printer);
            }
            None => {
                let mut known = line.state();
                if let Some(now_open) = known
                    .remembered
                    .open
                    .as_mut()
                    .filter(|now_open| changed && now_open.update == open.update)
                {
                    now_open.status = Status::Downloading;
                }
            }
        }
        if let Some(rollout) = open.rollout.filter(|_| changed) {
            app.tally.moved(rollout);
        }
        Next::GoOn
    }

    /// Whether it changed anything, and what is remembered from then on. Progress moves one row only; the others end
    /// something, so everything is read anew.
    async fn write_report(
        &self,
        report: &Report,
        update: UpdateId,
        printer: PrinterRef,
    ) -> Result<(bool, Option<Remembered>), sqlx::Error> {
        let mut conn = self.app.pool.acquire().await?;
        let changed = updates::report(&mut conn, update, report, self.app.clock.now()).await?;
        if let Report::Progress { .. } = report {
            return Ok((changed, None));
        }
        let fresh = updates::remembered(&mut conn, &[printer]).await?.remove(&printer);
        Ok((changed, Some(fresh.unwrap_or_default())))
    }

    /// An offer did not leave: its rollout was narrowed after the claim.
    pub async fn withdraw(&self, frame: &Frame) {
        let Some(line) = &self.line else { return };
        metrics::offers("withdrawn", 1);
        if let Some(fresh) =
            until_written!(&self.app, self.write_withdrawal(UpdateId(frame.update), line.printer))
        {
            let mut known = line.state();
            known.renew(fresh);
            known.sent = false;
        }
        self.app.engine.look_at(line.printer);
    }

    async fn write_withdrawal(
        &self,
        update: UpdateId,
        printer: PrinterRef,
    ) -> Result<Remembered, sqlx::Error> {
        let mut conn = self.app.pool.acquire().await?;
        updates::withdraw(&mut conn, &[update]).await?;
        Ok(updates::remembered(&mut conn, &[printer]).await?.remove(&printer).unwrap_or_default())
    }

    /// The socket ended. `let_go` says whether the printer did that, which after an offer means that it took it.
    pub async fn end(self, let_go: bool) {
        let Some(line) = &self.line else { return };
        self.app.hub.remove(line);
        let taken = {
            let known = line.state();
            let open = known.remembered.open.as_ref();
            open.filter(|open| let_go && (known.sent || open.status != Status::Pending))
                .map(|open| open.update)
        };
        let _ = until_written!(&self.app, self.write_end(taken, line));
    }

    async fn write_end(&self, taken: Option<UpdateId>, line: &Line<Known>) -> Result<(), sqlx::Error> {
        let (mut conn, now) = (self.app.pool.acquire().await?, self.app.clock.now());
        if let Some(update) = taken {
            updates::socket_lost(&mut conn, update, now).await?;
        }
        printers::disconnected(&mut conn, line.printer, line.connection, now).await
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
