//! Printers without a wire: each socket is the server's own session and the queue that its task would read.

use std::net::{IpAddr, Ipv4Addr};

use paperminder_ota::line::session::{Next, Session};
use paperminder_ota::line::wire;
use paperminder_ota::push::{Frame, Out};
use paperminder_ota::state::AppState;
use paperminder_ota::words::{Channel, Platform};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::operations::{About, PrinterSpec, Runs, Said, USERS};

/// A socket and what waits to be written to it.
pub struct Socket {
    app: AppState,
    session: Session,
    pub queue: mpsc::Receiver<Out>,
}

/// What became of something that waited.
pub enum Written {
    /// It is at the printer.
    Offer(Frame),
    /// The fence held it.
    Withdrawn,
    /// The server wants the socket to end.
    Replaced,
}

impl Socket {
    /// Opens and subscribes; none when the server has a newer one.
    async fn open(app: &AppState, device: &Device) -> Option<Self> {
        let mut session = Session::new(app.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        match take(&mut session, device, &device.subscription()).await {
            Next::Subscribed(queue, _) => Some(Self { app: app.clone(), session, queue }),
            Next::Outdated => None,
            Next::GoOn | Next::Say(_) | Next::Stop | Next::Refused => {
                panic!("a subscribe message was not taken")
            }
        }
    }

    /// Does with what waited what the socket's task does; `on_wire` is called while an offer is being written.
    pub async fn write(&mut self, out: Out, on_wire: impl FnOnce(&Frame)) -> Written {
        let Out::Offer(frame) = out else { return Written::Replaced };
        let Some(_pass) = self.app.fence.pass(frame.rollout, frame.epoch).await else {
            self.session.withdraw(&frame).await;
            return Written::Withdrawn;
        };
        on_wire(&frame);
        self.session.written(&frame);
        Written::Offer(*frame)
    }

    pub async fn end(self, let_go: bool) {
        self.session.end(let_go).await;
    }
}

async fn take(session: &mut Session, device: &Device, text: &Value) -> Next {
    match wire::parse(&text.to_string(), &device.user.parse().unwrap()) {
        Ok(message) => session.take(message).await,
        Err(status) => panic!("{text} is not understood: {status:?}"),
    }
}

/// A printer.
pub struct Device {
    pub id: String,
    user: String,
    platform: Platform,
    pub channel: Channel,
    pub auto_update: bool,
    runs: String,
    /// The version of the last offer that reached it.
    pub offered: Option<String>,
    /// The newest last; two at most.
    pub sockets: Vec<Socket>,
}

impl Device {
    pub fn new(index: u8, spec: &PrinterSpec) -> Self {
        Self {
            id: format!("printer-{index}"),
            user: format!("user-{}", index % USERS),
            platform: spec.platform,
            channel: spec.channel,
            auto_update: spec.auto_update,
            runs: spec.runs.to_owned(),
            offered: None,
            sockets: Vec::new(),
        }
    }

    fn subscription(&self) -> Value {
        json!({
            "user_id": self.user, "printer_name": self.id, "printer_id": self.id, "platform": self.platform,
            "firmware_version": self.runs, "auto_update": self.auto_update, "update_channel": self.channel,
        })
    }

    /// Boots this version.
    pub fn boot(&mut self, runs: Runs) {
        match (runs, &self.offered) {
            (Runs::Offered, Some(version)) => self.runs.clone_from(version),
            (Runs::Offered, None) | (Runs::Same, _) => {}
            (Runs::Other(version), _) => version.clone_into(&mut self.runs),
        }
    }

    /// Opens a socket; the one before the newest ends if it still stands.
    pub async fn connect(&mut self, app: &AppState) {
        if self.sockets.len() > 1 {
            self.sockets.remove(0).end(true).await;
        }
        if let Some(socket) = Socket::open(app, self).await {
            self.sockets.push(socket);
        }
    }

    fn nth(&self, newest: bool) -> Option<usize> {
        let last = self.sockets.len().checked_sub(1)?;
        Some(if newest { last } else { 0 })
    }

    /// Ends a socket.
    pub async fn lose(&mut self, newest: bool, let_go: bool) {
        if let Some(index) = self.nth(newest) {
            self.sockets.remove(index).end(let_go).await;
        }
    }

    async fn say(&mut self, newest: bool, text: Value) {
        let Some(index) = self.nth(newest) else { return };
        let mut socket = self.sockets.remove(index);
        let next = take(&mut socket.session, self, &text).await;
        // As the job does soon.
        socket.app.intake.flush().await.unwrap();
        match next {
            Next::Outdated => socket.end(false).await,
            Next::GoOn | Next::Say(_) | Next::Subscribed(..) => self.sockets.insert(index, socket),
            Next::Stop | Next::Refused => panic!("the server refused what a printer said: {text}"),
        }
    }

    /// Says again who it is.
    pub async fn subscribe_again(&mut self) {
        self.say(true, self.subscription()).await;
    }

    /// Says something about an update.
    pub async fn report(&mut self, newest: bool, said: Said, about: About) {
        let version = match about {
            About::Nothing => Value::Null,
            About::Offered => json!(self.offered),
            About::Other(version) => json!(version),
        };
        let text = match said {
            Said::Progress(percent) => {
                json!({"kind": "firmware_progress", "percent": percent, "status": "busy"})
            }
            Said::Complete => json!({"kind": "firmware_complete", "version": version}),
            Said::Failed => json!({"kind": "firmware_failed", "version": version, "error": "no"}),
            Said::Declined => json!({"kind": "firmware_declined", "version": version}),
        };
        self.say(newest, text).await;
    }

    /// Everything that waits on its sockets is written. Returns what reached the printer.
    pub async fn deliver(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut index = 0;
        while index < self.sockets.len() {
            let mut replaced = false;
            while let Ok(out) = self.sockets[index].queue.try_recv() {
                match self.sockets[index].write(out, |_| ()).await {
                    Written::Offer(frame) => {
                        self.sees(&frame);
                        frames.push(frame);
                    }
                    Written::Withdrawn => {}
                    Written::Replaced => replaced = true,
                }
            }
            if replaced {
                self.sockets.remove(index).end(false).await;
            } else {
                index += 1;
            }
        }
        frames
    }

    /// Takes note of an offer.
    pub fn sees(&mut self, frame: &Frame) {
        let offer: Value = serde_json::from_str(&frame.text).unwrap();
        self.offered = offer["version"].as_str().map(str::to_owned);
    }
}
