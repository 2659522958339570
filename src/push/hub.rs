//! The sockets of this replica.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::ids::PrinterRef;

/// Frames that may wait for one socket. One offer is open a printer, so more than a few is a printer that does not
/// read.
const QUEUE: usize = 4;

/// An offer on its way to a printer.
pub struct Frame {
    /// The message.
    pub text: String,
    /// The rollout that it belongs to.
    pub rollout: Uuid,
    /// The rollout's epoch when the offer was claimed.
    pub epoch: i64,
    /// The update that it offers.
    pub update: Uuid,
    /// Whether this printer was sent the same offer before.
    pub again: bool,
}

impl std::fmt::Debug for Frame {
    /// Without the message, which holds a URL that downloads.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("rollout", &self.rollout)
            .field("epoch", &self.epoch)
            .field("update", &self.update)
            .finish()
    }
}

/// What a socket's task is asked to do.
#[derive(Debug)]
pub enum Out {
    /// Write an offer, if the fence still lets it pass. Boxed, because every line has room for 32 of these at once.
    Offer(Box<Frame>),
    /// Close: a newer connection of this printer is here.
    Replaced,
}

/// One connected printer, with whatever the rooms above remember about it.
#[derive(Debug)]
pub struct Line<S> {
    /// The printer's row.
    pub printer: PrinterRef,
    /// The number of this connection; a higher one is newer.
    pub connection: i64,
    out: mpsc::Sender<Out>,
    state: Mutex<S>,
}

impl<S> Line<S> {
    /// A line and the queue that its socket's task reads.
    pub fn new(printer: PrinterRef, connection: i64, state: S) -> (Arc<Self>, mpsc::Receiver<Out>) {
        let (out, queue) = mpsc::channel(QUEUE);
        (Arc::new(Self { printer, connection, out, state: Mutex::new(state) }), queue)
    }

    /// What is remembered about the printer. Hold it briefly, never over an await.
    pub fn state(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands something to the socket's task; false when that is gone or does not keep up.
    pub fn send(&self, out: Out) -> bool {
        self.out.try_send(out).is_ok()
    }
}

/// All lines of this replica.
#[derive(Debug)]
pub struct Hub<S>(Mutex<HashMap<PrinterRef, Arc<Line<S>>>>);

impl<S> Default for Hub<S> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<S> Hub<S> {
    fn lines(&self) -> MutexGuard<'_, HashMap<PrinterRef, Arc<Line<S>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line and closes the one it replaces. False when a newer one is here already.
    pub fn insert(&self, line: Arc<Line<S>>) -> bool {
        let mut lines = self.lines();
        if lines.get(&line.printer).is_some_and(|present| present.connection > line.connection) {
            return false;
        }
        if let Some(old) = lines.insert(line.printer, line.clone())
            && old.connection != line.connection
        {
            old.send(Out::Replaced);
        }
        true
    }

    /// Removes a line, unless a newer one took its place.
    pub fn remove(&self, line: &Line<S>) {
        let mut lines = self.lines();
        if lines.get(&line.printer).is_some_and(|present| present.connection == line.connection) {
            lines.remove(&line.printer);
        }
    }

    /// Removes a line and closes its socket: a newer one of its printer is on another replica.
    pub fn part_with(&self, line: &Line<S>) {
        self.remove(line);
        line.send(Out::Replaced);
    }

    /// The line of a printer, when its socket is here.
    pub fn get(&self, printer: PrinterRef) -> Option<Arc<Line<S>>> {
        self.lines().get(&printer).cloned()
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// Every line.
    pub fn all(&self) -> Vec<Arc<Line<S>>> {
        self.lines().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_connection_wins_and_an_old_one_cannot_remove_it() {
        let (hub, printer) = (Hub::default(), PrinterRef::generate());
        let (old, mut old_queue) = Line::new(printer, 1, ());
        let (new, _new_queue) = Line::new(printer, 2, ());
        assert!(hub.insert(old.clone()));
        assert!(hub.insert(new.clone()));
        assert!(matches!(old_queue.try_recv(), Ok(Out::Replaced)));
        hub.remove(&old);
        assert_eq!(hub.get(printer).map(|line| line.connection), Some(2));
        assert!(!hub.insert(old), "a late old connection is refused");
        hub.remove(&new);
        assert!(hub.all().is_empty());
    }
}
