//! One connection of a printer, from the subscribe message to its end.

use std::sync::Arc;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    Error,
    chance::Fate,
    install::{Install, next_step},
    intake::{Downloaded, Step},
    life::{Life, Phase},
    options::Mode,
    tally::{EventKind, Online},
    wire::{self, Incoming, Offer},
    wiretap::Socket,
};

/// What a test may have a printer do.
#[derive(Debug)]
pub(super) enum Command {
    Raw(Message),
    DropHard,
    Close,
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Ended {
    /// Lost, or given up: connect again.
    Lost,
    /// Device mode: the download kills the socket.
    Offered(Offer, Fate),
    /// Polite mode: installed, told and closed.
    Installed(Arc<str>, Downloaded, Fate),
}

/// What a message means for the connection.
enum Next {
    Go,
    End(Ended),
}

impl Life {
    /// Talks until the connection is over; also returns the server's close code.
    pub(super) async fn connection(&mut self, mut socket: Socket) -> (Ended, Option<u16>) {
        let mut code = None;
        let ended = match self.talk(&mut socket, &mut code).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::debug!(printer = %self.id, %error, "connection lost");
                Ended::Lost
            }
        };
        // Dropped as it is: without a close frame, unless `talk` sent one.
        drop(socket);
        (ended, code)
    }

    async fn talk(&mut self, socket: &mut Socket, code: &mut Option<u16>) -> Result<Ended, Error> {
        if self.memory.stumbles > 0 {
            self.memory.stumbles -= 1;
            return Ok(Ended::Lost);
        }
        let version = self.version();
        self.send(socket, &wire::subscribe(&self.options, &version)).await?;
        let _online = Online::enter(&self.tally);
        self.phase(Phase::Online);
        self.emit(EventKind::Subscribed { version });
        self.tell_what_was_left(socket).await?;
        loop {
            let next = tokio::select! {
                message = socket.next() => match message {
                    None => return Ok(Ended::Lost),
                    Some(message) => self.hear(socket, self.checked(message)?, code).await?,
                },
                Some(command) = self.commands.recv() => match command {
                    Command::Raw(message) => { self.write(socket, message).await?; Next::Go }
                    Command::DropHard => Next::End(Ended::Lost),
                    Command::Close => { self.close(socket).await; Next::End(Ended::Lost) }
                },
                step = next_step(&mut self.memory.install) => self.step(socket, step).await?,
            };
            if let Next::End(ended) = next {
                return Ok(ended);
            }
        }
    }

    /// After the subscribe: a failure that found no socket, and with chaos a report that comes too late, twice.
    async fn tell_what_was_left(&mut self, socket: &mut Socket) -> Result<(), Error> {
        if let Some(reason) = self.memory.untold.take() {
            self.send(socket, &wire::failed(&reason)).await?;
        }
        match self.memory.late.take() {
            Some(version) if self.options.chaos => {
                for message in [wire::complete(&version), wire::progress(10), wire::complete(&version)] {
                    self.send(socket, &message).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn checked(&self, message: tungstenite::Result<Message>) -> Result<Message, Error> {
        message.map_err(|error| {
            if matches!(error, tungstenite::Error::Capacity(_) | tungstenite::Error::Utf8(_)) {
                self.tally.count(|counters| &counters.protocol_errors);
            }
            Error::from(error)
        })
    }

    async fn hear(
        &mut self,
        socket: &mut Socket,
        message: Message,
        code: &mut Option<u16>,
    ) -> Result<Next, Error> {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                *code = frame.map(|frame| frame.code.into());
                // The answer is queued already; a printer does not wait for the server to hang up.
                let _ = timeout(self.options.pace.connect, socket.flush()).await;
                return Ok(Next::End(Ended::Lost));
            }
            _ => return Ok(Next::Go),
        };
        match wire::parse(&text, self.options.limits.json) {
            Incoming::Offer(offer) => return self.consider(socket, offer).await,
            Incoming::Status { code, detail } => self.emit(EventKind::Status { code, detail }),
            Incoming::Unparsable => self.tally.count(|counters| &counters.unparsable),
            Incoming::Malformed => self.tally.count(|counters| &counters.malformed),
            Incoming::Other => {}
        }
        Ok(Next::Go)
    }

    async fn consider(&mut self, socket: &mut Socket, offer: Offer) -> Result<Next, Error> {
        self.note(&offer);
        if let Some(install) = &self.memory.install {
            self.judge_second(&install.offer, &offer);
            return Ok(Next::Go);
        }
        let fate = self.draw();
        if fate == Fate::Decline {
            self.emit(EventKind::Declined);
            for _ in 0..if self.options.chaos { 2 } else { 1 } {
                self.send(socket, &wire::declined(&offer.version)).await?;
            }
            return Ok(Next::Go);
        }
        if self.options.mode == Mode::Device {
            sleep(self.options.pace.before_download).await;
            self.drain(socket, &offer);
            return Ok(Next::End(Ended::Offered(offer, fate)));
        }
        self.emit(EventKind::DownloadStarted);
        self.memory.install = Some(Install::start(&self.network, &self.options, offer, fate));
        Ok(Next::Go)
    }

    fn note(&self, offer: &Offer) {
        if offer.version == self.version() {
            self.tally.count(|counters| &counters.pointless_offers);
        }
        let (version, url_len) = (Arc::clone(&offer.version), offer.url.len());
        self.emit(EventKind::Offered { version, url_len, md5: offer.md5.clone() });
    }

    fn judge_second(&self, first: &Offer, second: &Offer) {
        if first.same_image(second) {
            self.tally.count(|counters| &counters.repeated_offers);
        } else {
            tracing::warn!(printer = %self.id, first = %first.version, second = %second.version, "second offer");
            self.tally.count(|counters| &counters.double_offers);
        }
    }

    /// A device's socket dies with its first offer. What the server had sent already is looked at all the same, or a
    /// second offer would never be noticed in this mode.
    fn drain(&self, socket: &mut Socket, first: &Offer) {
        while let Some(Some(Ok(message))) = socket.next().now_or_never() {
            let Message::Text(text) = message else { continue };
            if let Incoming::Offer(second) = wire::parse(&text, self.options.limits.json) {
                self.note(&second);
                self.judge_second(first, &second);
            }
        }
    }

    /// A polite installation went on, or ended.
    async fn step(&mut self, socket: &mut Socket, step: Step) -> Result<Next, Error> {
        let result = match step {
            Step::Percent(percent) => {
                self.send(socket, &wire::progress(percent)).await?;
                return Ok(Next::Go);
            }
            Step::Done(result) => result,
        };
        let Some(install) = self.memory.install.take() else { return Ok(Next::Go) };
        match self.judge(result) {
            Err(reason) => {
                // Kept until it is sent: the socket may be dead without our knowing.
                self.memory.untold = Some(reason.clone());
                self.send(socket, &wire::progress_error(&reason)).await?;
                self.send(socket, &wire::failed(&reason)).await?;
                if self.options.chaos {
                    self.send(socket, &wire::progress(10)).await?;
                }
                self.memory.untold = None;
                Ok(Next::Go)
            }
            Ok(image) => {
                let version = install.offer.version;
                // The printer reboots whether or not its last words arrive.
                if self.last_words(socket, &version).await.is_ok() {
                    self.close(socket).await;
                }
                Ok(Next::End(Ended::Installed(version, image, install.fate)))
            }
        }
    }

    async fn last_words(&self, socket: &mut Socket, version: &str) -> Result<(), Error> {
        self.send(socket, &wire::complete(version)).await?;
        if self.options.chaos {
            let afterthoughts = [wire::progress(10), wire::complete(version), wire::failed("too late")];
            for message in afterthoughts {
                self.send(socket, &message).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, socket: &mut Socket, message: &Value) -> Result<(), Error> {
        self.write(socket, Message::text(message.to_string())).await
    }

    async fn write(&self, socket: &mut Socket, message: Message) -> Result<(), Error> {
        let limit = self.options.pace.connect;
        timeout(limit, socket.send(message)).await.map_err(|_| Error::Timeout("writing"))??;
        Ok(())
    }

    /// Closes as the protocol wants it, but waits for the answer no longer than for any other write.
    async fn close(&self, socket: &mut Socket) {
        let farewell = async {
            if socket.send_close().await.is_ok() {
                while let Some(Ok(_)) = socket.next().await {}
            }
        };
        let _ = timeout(self.options.pace.connect, farewell).await;
    }
}
