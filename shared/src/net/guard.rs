//! What one client may take: a share of the connections, and time in which something has to happen.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Connections of one accept loop, and of one client (an address, or a user on a socket) among them: a client
/// that opens all it can must leave room for the others.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_PER_CLIENT_MAX: usize = 256;
/// A connection on which nothing was ever received is closed after this time, an idle one after the longer.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Counts open connections per client.
pub(super) struct Gate<K> {
    open: Arc<Mutex<HashMap<K, usize>>>,
}

/// One admitted connection; leaving frees its place.
pub(super) struct Place<K: Eq + Hash + Clone> {
    open: Arc<Mutex<HashMap<K, usize>>>,
    client: K,
}

impl<K: Eq + Hash + Clone> Gate<K> {
    pub(super) fn new() -> Self {
        Self { open: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// A place for this client, or in words why there is none.
    pub(super) fn admit(&self, client: K) -> Result<Place<K>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= CONNECTIONS_MAX {
            return Err(format!("{CONNECTIONS_MAX} connections are open"));
        }
        let own = open.entry(client.clone()).or_default();
        if *own >= CONNECTIONS_PER_CLIENT_MAX {
            return Err(format!("this client has {CONNECTIONS_PER_CLIENT_MAX} connections open"));
        }
        *own += 1;
        Ok(Place { open: Arc::clone(&self.open), client })
    }
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// A stream that counts the bytes received and the bytes sent.
pub(super) struct Counted<S> {
    inner: S,
    traffic: Arc<Traffic>,
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S) -> (Self, Arc<Traffic>) {
        let traffic = Arc::new(Traffic::default());
        (Self { inner, traffic: Arc::clone(&traffic) }, traffic)
    }
}

impl Traffic {
    fn total(&self) -> u64 {
        self.received.load(Ordering::Relaxed).wrapping_add(self.sent.load(Ordering::Relaxed))
    }

    /// Resolves, with the reason, when the connection has been silent for too long.
    pub(super) async fn silent(&self) -> &'static str {
        let mut seen = self.total();
        let mut since = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let total = self.total();
            if self.received.load(Ordering::Relaxed) == 0 && since.elapsed() >= FIRST_BYTE_TIMEOUT {
                return "nothing was ever received";
            }
            if total != seen && self.received.load(Ordering::Relaxed) > 0 {
                (seen, since) = (total, tokio::time::Instant::now());
            } else if since.elapsed() >= IDLE_TIMEOUT {
                return "idle for too long";
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = u64::try_from(buf.filled().len() - before).unwrap_or_default();
        self.traffic.received.fetch_add(read, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.traffic.sent.fetch_add(u64::try_from(written).unwrap_or_default(), Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_every_connection() {
        let gate = Gate::new();
        let mut held: Vec<_> = (0..CONNECTIONS_PER_CLIENT_MAX).map(|_| gate.admit("a").expect("room")).collect();
        assert!(gate.admit("a").is_err());
        assert!(gate.admit("b").is_ok());
        held.pop();
        assert!(gate.admit("a").is_ok());
    }
}
