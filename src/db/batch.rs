//! Writes that arrive one by one, in floods, and are done many at a time.
//!
//! A batch is whatever waits when a worker is free, so a single write is not delayed, and under load a statement carries
//! hundreds. Nobody waits longer than the batches before their own take. A full queue makes whoever writes wait, which
//! stops a socket from being read; nothing is dropped while the process lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::is_unavailable;
use crate::telemetry::metrics;

/// Writes of one statement.
const MOST: usize = 500;
/// Writes that may wait in front of the workers.
const QUEUE: usize = 2 * MOST;
/// Batches of one kind under way at once.
const AT_ONCE: usize = 4;
/// Wait before a batch is repeated while the database is away.
const RETRY: Duration = Duration::from_millis(500);

/// One kind of write.
pub trait Write: Send + Sync + 'static {
    /// What is to be written.
    type Item: Send + Sync + 'static;
    /// What became of it.
    type Done: Send + 'static;
    /// What metrics and logs call it.
    const NAME: &'static str;

    /// Writes all of them in one transaction, and says what became of each, in their order.
    fn write(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Done>, sqlx::Error>> + Send;
}

type Waiting<W> = (<W as Write>::Item, oneshot::Sender<<W as Write>::Done>);

/// The way to the workers of one kind.
pub struct Batches<W: Write>(mpsc::Sender<Waiting<W>>);

impl<W: Write> Clone for Batches<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Write> Batches<W> {
    /// Starts the workers, which end with `stop` or with the last clone of this.
    pub fn start(write: W, stop: CancellationToken) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (write, queue) = (Arc::new(write), Arc::new(Mutex::new(queue)));
        for _ in 0..AT_ONCE {
            tokio::spawn(work(write.clone(), queue.clone(), stop.clone()));
        }
        Self(sender)
    }

    /// Waits until it is written. None when the process ends first, or the database refuses it for good.
    pub async fn write(&self, item: W::Item) -> Option<W::Done> {
        let (told, done) = oneshot::channel();
        self.0.send((item, told)).await.ok()?;
        done.await.ok()
    }
}

async fn work<W: Write>(
    write: Arc<W>,
    queue: Arc<Mutex<mpsc::Receiver<Waiting<W>>>>,
    stop: CancellationToken,
) {
    loop {
        let mut batch = Vec::new();
        let took = tokio::select! {
            () = stop.cancelled() => return,
            took = async { queue.lock().await.recv_many(&mut batch, MOST).await } => took,
        };
        if took == 0 {
            return;
        }
        metrics::batch(W::NAME, took);
        let (items, told): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match patiently(&*write, &items, &stop).await {
            Ok(done) => tell(told, done),
            Err(Refused::Ending) => return,
            // One that the database does not take must not take the others with it.
            Err(Refused::For(_)) if took > 1 => {
                for (item, told) in items.iter().zip(told) {
                    match patiently(&*write, std::slice::from_ref(item), &stop).await {
                        Ok(done) => tell(vec![told], done),
                        Err(Refused::Ending) => return,
                        Err(Refused::For(error)) => lost::<W>(&error),
                    }
                }
            }
            Err(Refused::For(error)) => lost::<W>(&error),
        }
    }
}

enum Refused {
    Ending,
    For(sqlx::Error),
}

/// Repeats a batch until the database took it, as long as it is only away.
async fn patiently<W: Write>(
    write: &W,
    items: &[W::Item],
    stop: &CancellationToken,
) -> Result<Vec<W::Done>, Refused> {
    loop {
        let error = match write.write(items).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !is_unavailable(&error) {
            return Err(Refused::For(error));
        }
        tracing::debug!(kind = W::NAME, waiting = items.len(), %error, "writes wait for the database");
        tokio::select! {
            () = stop.cancelled() => return Err(Refused::Ending),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Whoever does not wait any more needs no answer.
fn tell<D>(told: Vec<oneshot::Sender<D>>, done: Vec<D>) {
    for (told, done) in told.into_iter().zip(done) {
        let _ = told.send(done);
    }
}

fn lost<W: Write>(error: &sqlx::Error) {
    tracing::error!(kind = W::NAME, %error, "what a printer said could not be written down");
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    /// Writes numbers; seven is refused, and the first try of anything finds the database away.
    #[derive(Default)]
    struct Numbers {
        batches: StdMutex<Vec<usize>>,
        tries: StdMutex<u32>,
    }

    impl Write for Arc<Numbers> {
        type Item = u32;
        type Done = u32;
        const NAME: &'static str = "numbers";

        async fn write(&self, items: &[u32]) -> Result<Vec<u32>, sqlx::Error> {
            *self.tries.lock().unwrap() += 1;
            if *self.tries.lock().unwrap() == 1 {
                return Err(sqlx::Error::PoolTimedOut);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            if items.contains(&7) {
                return Err(sqlx::Error::RowNotFound);
            }
            self.batches.lock().unwrap().push(items.len());
            Ok(items.iter().map(|item| item * 10).collect())
        }
    }

    #[tokio::test]
    async fn what_waits_is_written_together_and_each_gets_its_own_answer() {
        let numbers = Arc::new(Numbers::default());
        let batches = Batches::start(numbers.clone(), CancellationToken::new());
        let writes = (0..1200).map(|number| {
            let batches = batches.clone();
            tokio::spawn(async move { batches.write(number).await })
        });
        for (number, done) in (0..1200).zip(writes.collect::<Vec<_>>()) {
            assert_eq!(done.await.unwrap(), (number != 7).then_some(number * 10));
        }
        assert!(numbers.batches.lock().unwrap().iter().any(|size| *size > 100), "{numbers:?}");
        assert!(numbers.batches.lock().unwrap().iter().all(|size| *size <= MOST));
    }

    #[tokio::test]
    async fn what_waits_for_the_database_ends_with_the_process() {
        let stop = CancellationToken::new();
        let batches = Batches::start(Arc::new(Numbers::default()), stop.clone());
        let waiting = tokio::spawn(async move { batches.write(1).await });
        tokio::task::yield_now().await;
        stop.cancel();
        assert_eq!(waiting.await.unwrap(), None);
    }

    impl std::fmt::Debug for Numbers {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:?}", self.batches.lock())
        }
    }
}
