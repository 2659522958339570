//! A process full of printers of `simulate`, which does as it is told on its standard input, a line a command, and
//! answers each with a line. A printer that loses its socket comes back, as the printers' library does.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use paperminder_ota::clock::Clock;
use paperminder_ota::simulate::{Message, Printer, PrinterOptions, offer_of};
use tokio::sync::{Semaphore, broadcast, mpsc};

use super::PATIENCE;

/// First handshakes under way at once.
const AT_ONCE: usize = 256;
/// Printers, half of which share a local address.
const OF_ADDRESS: u64 = 15_000;
/// As the printers' library does.
const RETRY: Duration = Duration::from_millis(500);
/// Within it, what was sent twice has arrived.
const QUIET: Duration = Duration::from_millis(500);

/// What all printers are to say.
#[derive(Clone)]
struct Say {
    times: usize,
    /// `{n}` is what it is the how manieth of.
    text: Arc<str>,
}

/// What a printer tells.
enum Told {
    Online,
    /// It has an offer, since so many microseconds after the UNIX epoch.
    Offered(u64, i64),
    Said,
}

fn options(server: &str, index: u64) -> PrinterOptions {
    let mut options = PrinterOptions::new(server, index);
    options.pace.connect = PATIENCE;
    // Linux gives the even ports to those who only connect, and the odd ones to those who name an address, and takes long
    // to find the last ones.
    if index % 2 == 1 {
        options.source_ip = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (index / OF_ADDRESS) as u8)));
    }
    options
}

/// One printer, for ever.
async fn live(
    options: PrinterOptions,
    index: u64,
    room: Arc<Semaphore>,
    mut says: broadcast::Receiver<Say>,
    tell: mpsc::UnboundedSender<Told>,
) {
    let clock = Clock::system();
    let mut room = Some(room);
    loop {
        let turn = match &room {
            Some(room) => Some(room.acquire().await.unwrap()),
            None => None,
        };
        let Ok(mut printer) = Printer::online(options.clone()).await else {
            drop(turn);
            tokio::time::sleep(RETRY).await;
            continue;
        };
        drop(turn);
        if room.take().is_some() {
            tell.send(Told::Online).unwrap();
        }
        loop {
            tokio::select! {
                message = printer.next_message(PATIENCE * 10) => match message {
                    Ok(message) if offer_of(&message).is_some() => {
                        tell.send(Told::Offered(index, clock.now().timestamp_micros())).unwrap();
                    }
                    Ok(_) => {}
                    Err(_) => break,
                },
                Ok(say) = says.recv() => {
                    for n in 0..say.times {
                        let text = say.text.replace("{n}", &n.to_string());
                        if printer.send_raw(Message::text(text)).await.is_err() { break }
                    }
                    tell.send(Told::Said).unwrap();
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// `client SERVER FIRST COUNT`: that many printers from that one on.
pub async fn run(arguments: &[String]) {
    let [server, first, count] = arguments else { panic!("client SERVER FIRST COUNT") };
    let (first, count): (u64, usize) = (first.parse().unwrap(), count.parse().unwrap());
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let (say, _) = broadcast::channel(4);
    let (tell, mut told) = mpsc::unbounded_channel();
    for index in first..first + count as u64 {
        tokio::spawn(live(options(server, index), index, room.clone(), say.subscribe(), tell.clone()));
    }
    let mut online = 0;
    while online < count {
        online += usize::from(matches!(told.recv().await, Some(Told::Online)));
    }
    println!("online");
    let (tell, mut commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || std::io::stdin().lines().try_for_each(|line| tell.send(line.ok()?).ok()));
    while let Some(command) = commands.recv().await {
        match command.split_once(' ') {
            None if command == "receive" => println!("{}", receive(&mut told, first, count).await),
            Some(("say", rest)) => {
                let (times, text) = rest.split_once(' ').unwrap();
                let times = times.parse().unwrap();
                assert!(say.send(Say { times, text: text.into() }).is_ok());
                let mut said = 0;
                while said < count {
                    said += usize::from(matches!(told.recv().await, Some(Told::Said)));
                }
                println!("said");
            }
            _ => panic!("{command}"),
        }
    }
}

/// Waits until each has an offer, and a little longer. When they had it, in microseconds since the UNIX epoch, and
/// first of all how many offers came twice.
async fn receive(told: &mut mpsc::UnboundedReceiver<Told>, first: u64, count: usize) -> String {
    let mut times: Vec<Option<i64>> = vec![None; count];
    let (mut left, mut twice) = (count, 0);
    while let Some(news) = match left {
        0 => tokio::time::timeout(QUIET, told.recv()).await.unwrap_or(None),
        _ => told.recv().await,
    } {
        let Told::Offered(index, at) = news else { continue };
        let time = &mut times[usize::try_from(index - first).unwrap()];
        match time {
            Some(_) => twice += 1,
            None => left -= 1,
        }
        time.get_or_insert(at);
    }
    let micros = times.into_iter().flatten().map(|time| time.to_string());
    [twice.to_string()].into_iter().chain(micros).collect::<Vec<_>>().join(" ")
}
