//! A load balancer for sockets: each goes to the replica with the fewest, among those that live.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// What happens to the connections of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Whole,
    /// The printers' ends are gone, the replica was not told.
    Stranded,
    Cut,
}

struct Place {
    address: SocketAddr,
    /// Its receivers are the connections, which share it: it outlives a replica that is replaced.
    wire: Arc<watch::Sender<Wire>>,
    takes: bool,
}

/// By the number of the replica.
type Places = Arc<Mutex<Vec<Option<Place>>>>;

/// A balancer on a port of its own. It ends when dropped.
pub struct Balancer {
    pub address: SocketAddr,
    places: Places,
    /// What replicas wrote to sockets that were stranded.
    washed_up: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Balancer {
    pub async fn start(replicas: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let places: Places = Arc::new(Mutex::new((0..replicas).map(|_| None).collect()));
        let washed_up = Arc::default();
        let task = tokio::spawn({
            let (places, washed_up) = (places.clone(), Arc::clone(&washed_up));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(client, places.clone(), Arc::clone(&washed_up)));
                }
            }
        });
        Self { address, places, washed_up, _task: AbortOnDropHandle::new(task) }
    }

    /// A replica is there, and takes connections.
    pub fn put(&self, replica: usize, address: SocketAddr) {
        let wire = whole();
        self.places.lock().unwrap()[replica] = Some(Place { address, wire, takes: true });
    }

    /// It gets no new connections.
    pub fn shun(&self, replica: usize) {
        self.with(replica, |place| place.takes = false);
    }

    /// Its printers lose their connections, and it does not know.
    pub fn strand(&self, replica: usize) {
        self.with(replica, |place| {
            place.takes = false;
            place.wire.send_replace(Wire::Stranded);
        });
    }

    /// It is told that its connections are gone.
    pub fn cut(&self, replica: usize) {
        self.with(replica, |place| {
            place.wire.send_replace(Wire::Cut);
        });
    }

    /// It gets new connections again.
    pub fn welcome(&self, replica: usize) {
        self.with(replica, |place| {
            place.wire = whole();
            place.takes = true;
        });
    }

    /// Connections of each replica.
    pub fn connections(&self) -> Vec<usize> {
        let places = self.places.lock().unwrap();
        places.iter().map(|place| place.as_ref().map_or(0, |place| place.wire.receiver_count())).collect()
    }

    /// What stranded sockets were written.
    pub fn washed_up(&self) -> Vec<String> {
        self.washed_up.lock().unwrap().clone()
    }

    fn with(&self, replica: usize, change: impl FnOnce(&mut Place)) {
        self.places.lock().unwrap()[replica].as_mut().map(change).unwrap();
    }
}

fn whole() -> Arc<watch::Sender<Wire>> {
    Arc::new(watch::channel(Wire::Whole).0)
}

/// A connection to be: where to, who may change it, and what it is counted by.
type Lane = (SocketAddr, Arc<watch::Sender<Wire>>, watch::Receiver<Wire>);

/// One to the replica with the fewest, those tried already left out.
fn next(places: &Places, tried: &[SocketAddr]) -> Option<Lane> {
    let places = places.lock().unwrap();
    let open = places.iter().flatten().filter(|place| place.takes && !tried.contains(&place.address));
    let fewest = open.min_by_key(|place| place.wire.receiver_count());
    fewest.map(|place| (place.address, place.wire.clone(), place.wire.subscribe()))
}

async fn carry(mut client: TcpStream, places: Places, washed_up: Arc<Mutex<Vec<String>>>) {
    let mut tried = Vec::new();
    let (mut server, (_, _shared, mut wire)) = loop {
        let Some(lane) = next(&places, &tried) else { return };
        let address = lane.0;
        match timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            Ok(Ok(server)) => break (server, lane),
            _ => tried.push(address),
        }
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        _ = wire.wait_for(|wire| *wire != Wire::Whole) => drop(client),
    }
    let mut buffer = vec![0; 4 << 10];
    loop {
        tokio::select! {
            read = server.read(&mut buffer) => match read {
                // The server's frames are not masked.
                Ok(read @ 1..) => {
                    washed_up.lock().unwrap().push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                }
                _ => return,
            },
            _ = wire.wait_for(|wire| *wire == Wire::Cut) => return,
        }
    }
}
