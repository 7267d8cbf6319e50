//! Reader threads, each with its own read-only connection.
//!
//! Work arrives in short pieces: a scan returns after every batch, so no thread waits for a slow consumer, and no read
//! transaction stays open long enough to keep the WAL from being reset. If a piece panics, its caller gets an error, and the
//! thread opens a new connection and continues, so no request can stop reads for all clients.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::{OpenError, ReadError};
use super::health::Health;

/// Number of threads: enough for the two cores of a small node, few enough to leave room for the writer.
const THREADS: usize = 4;
/// Maximum number of queued pieces of work; further callers wait.
const QUEUE: usize = 256;
/// Delay before another attempt to replace the connection of a thread whose work panicked.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// Handle to the pool; clones share it. The threads end when the last handle is dropped.
#[derive(Clone)]
pub(in crate::store) struct Readers {
    queue: mpsc::Sender<Work>,
}

impl Readers {
    pub(in crate::store) fn start(
        open: impl Fn() -> Result<Connection, OpenError> + Send + Sync + 'static,
        health: Arc<Health>,
    ) -> Result<Self, OpenError> {
        Self::start_with(THREADS, open, health)
    }

    pub(in crate::store) fn start_with(
        threads: usize,
        open: impl Fn() -> Result<Connection, OpenError> + Send + Sync + 'static,
        health: Arc<Health>,
    ) -> Result<Self, OpenError> {
        let (queue, receiver) = mpsc::channel::<Work>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let open = Arc::new(open);
        for number in 0..threads {
            let mut conn = open()?;
            let (receiver, open, health) = (Arc::clone(&receiver), Arc::clone(&open), Arc::clone(&health));
            let spawned = std::thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                loop {
                    // The lock is held while waiting: one idle thread waits for work, and the others wait for the lock.
                    let work = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(work) = work else { return };
                    // Catching a panic is safe: only the connection outlives the work, and it is replaced.
                    if catch_unwind(AssertUnwindSafe(|| work(&conn))).is_err() {
                        health.count_reader_panic();
                        conn = loop {
                            match open() {
                                Ok(conn) => break conn,
                                Err(error) => {
                                    tracing::error!(%error, "cannot replace the connection of a reader thread; retrying");
                                    std::thread::sleep(REOPEN_PAUSE);
                                }
                            }
                        };
                    }
                }
            });
            if let Err(source) = spawned {
                return Err(OpenError::Io { path: "reader thread".into(), source });
            }
        }
        Ok(Self { queue })
    }

    /// Runs one short piece of work.
    ///
    /// # Errors
    /// [`ReadError::Panicked`] when the work panicked, [`ReadError::Stopping`] when the threads are gone.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |conn| {
            let _ = reply.send(work(conn));
        });
        self.queue.send(work).await.map_err(|_| ReadError::Stopping)?;
        // A thread that accepts work either answers or panics; if all threads have ended, sending the work fails.
        answer.await.map_err(|_| ReadError::Panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_goes_on_after_more_panics_than_there_are_threads() {
        let health = Arc::new(Health::default());
        let open =
            || Connection::open_in_memory().map_err(|source| OpenError::Sqlite { path: "memory".into(), source });
        let readers = Readers::start(open, Arc::clone(&health)).expect("threads");
        for _ in 0..2 * THREADS {
            let result = readers.run(|_| -> u8 { panic!("a fault in a reader") }).await;
            assert!(matches!(result, Err(ReadError::Panicked)), "{result:?}");
            // The work that panicked held a transaction; the next work must not see it.
            assert_eq!(readers.run(|conn| conn.is_autocommit()).await.ok(), Some(true));
        }
        // The caller gets its error before the panic is counted.
        while health.reader_panics() < 2 * THREADS as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
