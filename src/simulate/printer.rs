//! A single printer under manual control, for tests that say what happens step by step.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Error,
    download::{self, Running},
    intake::{DownloadError, Downloaded, Plan},
    net::{Endpoint, Network},
    options::{Mode, PrinterOptions},
    wire::{self, Offer},
    wiretap::Socket,
};

/// A connected printer that does nothing by itself, except that it answers pings while it is listened to.
pub struct Printer {
    options: PrinterOptions,
    network: Arc<Network>,
    socket: Socket,
}

impl std::fmt::Debug for Printer {
    /// The socket would show what it has buffered, URLs among it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Printer {
    /// Opens the WebSocket and says nothing yet.
    ///
    /// # Errors
    /// When there is no connection, or the server refuses it ([`Error::Refused`]).
    pub async fn connect(options: PrinterOptions) -> Result<Self, Error> {
        let network = Arc::new(Network::default());
        let endpoint = Endpoint::socket(&options.server, &options.identity.user_id)?;
        let socket = network.open(&endpoint, &options).await?;
        Ok(Self { options, network, socket })
    }

    /// [`Self::connect`] and [`Self::subscribe`].
    ///
    /// # Errors
    /// As theirs.
    pub async fn online(options: PrinterOptions) -> Result<Self, Error> {
        let mut printer = Self::connect(options).await?;
        printer.subscribe().await?;
        Ok(printer)
    }

    /// Its `printer_id`, or `user/name`.
    #[must_use]
    pub fn id(&self) -> Arc<str> {
        self.options.identity.label()
    }

    /// Its options; a change shows in what it does next.
    pub fn options(&mut self) -> &mut PrinterOptions {
        &mut self.options
    }

    /// Sends the subscribe message with its `firmware_version`.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn subscribe(&mut self) -> Result<(), Error> {
        let message = wire::subscribe(&self.options, &self.options.firmware_version);
        self.send_json(&message).await
    }

    /// Sends any JSON as one text frame.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn send_json(&mut self, message: &Value) -> Result<(), Error> {
        self.send_raw(Message::text(message.to_string())).await
    }

    /// Sends any frame.
    ///
    /// # Errors
    /// When the connection is lost, or the server has not read for the time of one write.
    pub async fn send_raw(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let sending = self.socket.send(message.into());
        timeout(self.options.pace.connect, sending).await.map_err(|_| Error::Timeout("writing"))??;
        Ok(())
    }

    /// The next message, as JSON (text that is none comes as a JSON string).
    ///
    /// # Errors
    /// [`Error::Timeout`] when none came; [`Error::Closed`] with the server's code when it hung up.
    pub async fn next_message(&mut self, within: Duration) -> Result<Value, Error> {
        let deadline = Instant::now() + within;
        loop {
            let message = timeout_at(deadline, self.socket.next())
                .await
                .map_err(|_| Error::Timeout("waiting for a message"))?;
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Ok(serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_str())));
                }
                Some(Ok(Message::Close(frame))) => {
                    let _ = self.socket.flush().await;
                    let frame = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                    let (code, reason) = frame.unzip();
                    return Err(Error::Closed { code, reason: reason.unwrap_or_default() });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Error::Closed { code: None, reason: String::new() }),
            }
        }
    }

    /// The next `firmware_update`; other messages before it are passed over.
    ///
    /// # Errors
    /// As [`Self::next_message`].
    pub async fn next_offer(&mut self, within: Duration) -> Result<Offer, Error> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(offer) = wire::offer_of(&self.next_message(left).await?) {
                return Ok(offer);
            }
        }
    }

    /// Downloads and checks an offer's image in its mode. The socket is not touched, and nothing is reported.
    ///
    /// # Errors
    /// Why the printer would not take the image.
    pub async fn download(&self, offer: &Offer) -> Result<Downloaded, DownloadError> {
        let plan = Plan { rate: self.options.slow_bytes_per_second, ..Plan::default() };
        match self.options.mode {
            Mode::Polite => download::polite(&self.network, &self.options, offer, plan).await,
            Mode::Device => {
                let running = Running::of(&self.options.firmware_version, None);
                download::device(&self.network, &self.options, &running, offer, plan).await
            }
        }
    }

    /// Lets go of the TCP connection without a close frame, as a printer without power does.
    pub fn drop_hard(self) {
        drop(self.socket);
    }

    /// Closes as the protocol wants it.
    ///
    /// # Errors
    /// When the server does not answer in time.
    pub async fn close(mut self) -> Result<(), Error> {
        let limit = self.options.pace.connect;
        let farewell = async {
            self.socket.send_close().await?;
            while let Some(message) = self.socket.next().await {
                message?;
            }
            Ok(())
        };
        timeout(limit, farewell).await.map_err(|_| Error::Timeout("closing"))?
    }
}
