//! Reader threads, each with its own read-only connection.
//!
//! Work comes in short pieces: a scan returns after every batch, so no thread waits for a slow consumer
//! and no read transaction lives long enough to keep the WAL from being reset.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::ReadError;

/// Threads: enough for the two cores of a small node, few enough to leave room for the writer.
const THREADS: usize = 4;
/// Pieces of work waiting; beyond it a reader waits for its turn.
const QUEUE: usize = 256;

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// Handle to the pool; clones share it. Threads end when the last handle is gone.
#[derive(Clone)]
pub(super) struct Readers {
    queue: mpsc::Sender<Work>,
}

impl Readers {
    pub(super) fn start(
        open: impl Fn() -> Result<Connection, super::error::OpenError>,
    ) -> Result<Self, super::error::OpenError> {
        let (queue, receiver) = mpsc::channel::<Work>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..THREADS {
            let conn = open()?;
            let receiver = Arc::clone(&receiver);
            let spawned = std::thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                loop {
                    // The lock is held while waiting: one idle thread waits in the queue, the others behind it.
                    let work = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    match work {
                        Some(work) => work(&conn),
                        None => return,
                    }
                }
            });
            if let Err(source) = spawned {
                return Err(super::error::OpenError::Io { path: "reader thread".into(), source });
            }
        }
        Ok(Self { queue })
    }

    /// Runs one short piece of work.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |conn| {
            let _ = reply.send(work(conn));
        });
        self.queue.send(work).await.map_err(|_| ReadError::Stopping)?;
        answer.await.map_err(|_| ReadError::Stopping)
    }
}
