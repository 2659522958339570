//! Printers of `simulate`, each a task, that do the same thing at the same time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use paperminder_ota::simulate::{Message, Printer, PrinterOptions};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use super::PATIENCE;

/// Handshakes under way at once.
const AT_ONCE: usize = 256;
/// Printers of one local address: one address runs out of ports.
const OF_ADDRESS: u64 = 5000;
/// As the printers' library does.
const RETRY: Duration = Duration::from_millis(500);

/// Printers that are connected.
pub struct Crowd(Vec<Printer>);

/// When they received what was sent.
pub struct Received {
    /// Half of them.
    pub p50: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// All.
    pub last: Duration,
}

fn options(server: &str, index: u64) -> PrinterOptions {
    let mut options = PrinterOptions::new(server, index);
    options.source_ip = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (index / OF_ADDRESS) as u8)));
    options.pace.connect = PATIENCE;
    options
}

/// Connects and subscribes, however often that takes.
async fn online(options: PrinterOptions, room: &Semaphore) -> Printer {
    loop {
        let turn = room.acquire().await.unwrap();
        if let Ok(printer) = Printer::online(options.clone()).await {
            return printer;
        }
        drop(turn);
        tokio::time::sleep(RETRY).await;
    }
}

impl Crowd {
    /// So many connect and subscribe.
    pub async fn connect(server: &str, count: usize) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for index in 0..count as u64 {
            let (options, room) = (options(server, index), room.clone());
            tasks.spawn(async move { online(options, &room).await });
        }
        Self(tasks.join_all().await)
    }

    /// Each does something; they begin together.
    async fn each<F: Future<Output = (Printer, Instant)> + Send + 'static>(
        self,
        what: impl Fn(Printer) -> F,
        meanwhile: impl AsyncFnOnce(),
    ) -> (Self, Received) {
        let ready = Arc::new(Barrier::new(self.0.len() + 1));
        let mut tasks = JoinSet::new();
        for printer in self.0 {
            let (ready, doing) = (ready.clone(), what(printer));
            tasks.spawn(async move {
                ready.wait().await;
                doing.await
            });
        }
        ready.wait().await;
        let began = Instant::now();
        meanwhile().await;
        let (printers, ends): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        let mut times: Vec<_> = ends.into_iter().map(|end| end - began).collect();
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let received = Received { p50: at(50), p99: at(99), last: at(100) };
        (Self(printers), received)
    }

    /// Waits until each has an offer, which `cause` causes.
    pub async fn receive(self, cause: impl AsyncFnOnce()) -> (Self, Received) {
        let offer = async |mut printer: Printer| {
            printer.next_message(PATIENCE).await.expect("every printer gets an offer");
            (printer, Instant::now())
        };
        self.each(offer, cause).await
    }

    /// Each says so many things, one after the other.
    pub async fn say(self, times: usize, what: fn(usize) -> String) -> Self {
        let saying = move |mut printer: Printer| async move {
            for index in 0..times {
                printer.send_raw(Message::text(what(index))).await.unwrap();
            }
            (printer, Instant::now())
        };
        self.each(saying, async || ()).await.0
    }

    /// Each lost its socket, and comes back every half a second until it is taken.
    pub async fn come_back(self) -> Self {
        let room = Arc::new(Semaphore::new(usize::from(u16::MAX)));
        let back = move |mut printer: Printer| {
            let (options, room) = (printer.options().clone(), room.clone());
            drop(printer);
            async move { (online(options, &room).await, Instant::now()) }
        };
        self.each(back, async || ()).await.0
    }
}
