//! Limits on resources that clients share: a total, and a maximum for each client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Polling interval of a caller that waits for a slot.
const LOOK: Duration = Duration::from_millis(20);

/// Slots of one resource.
#[derive(Debug, Clone)]
pub struct Shares {
    room: Arc<Semaphore>,
    each: usize,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

/// One or more slots, released when dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<Mutex<HashMap<String, usize>>>,
    caller: String,
    places: u32,
    _room: OwnedSemaphorePermit,
}

/// Reason why a slot is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The caller has reached its own limit; other callers may still get slots.
    #[error("you have {0} open, which is the limit; close one or try again later")]
    Yours(usize),
    #[error("the limit shared by all callers is reached; try again later")]
    All,
}

impl Shares {
    /// Creates `all` slots, of which one caller may hold at most `each`.
    pub fn new(all: usize, each: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), each, held: Arc::default() }
    }

    /// Takes one slot for the named caller.
    pub fn take(&self, caller: &str) -> Result<Share, Full> {
        self.take_many(caller, 1)
    }

    /// Takes `places` slots for the named caller, or none.
    pub fn take_many(&self, caller: &str, places: u32) -> Result<Share, Full> {
        let wanted = places as usize;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(caller).copied().unwrap_or_default();
        if own + wanted > self.each {
            return Err(Full::Yours(own));
        }
        let room = Arc::clone(&self.room).try_acquire_many_owned(places).map_err(|_| Full::All)?;
        *held.entry(caller.to_owned()).or_default() += wanted;
        Ok(Share { held: Arc::clone(&self.held), caller: caller.to_owned(), places, _room: room })
    }

    /// Takes one slot for the named caller, waiting up to `most` for one to become free.
    pub async fn wait(&self, caller: &str, most: Duration) -> Result<Share, Full> {
        self.wait_many(caller, 1, most).await
    }

    /// Takes `places` slots, or none, waiting up to `most` for them to become free.
    pub async fn wait_many(&self, caller: &str, places: u32, most: Duration) -> Result<Share, Full> {
        let until = Instant::now() + most;
        loop {
            match self.take_many(caller, places) {
                Err(_) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                taken => return taken,
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = held.get_mut(&self.caller) {
            *own -= self.places as usize;
            if *own == 0 {
                held.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_cannot_take_all_places() {
        let shares = Shares::new(3, 2);
        let first = shares.take("a").expect("room");
        let _second = shares.take("a").expect("room");
        assert_eq!(shares.take("a").err(), Some(Full::Yours(2)));
        let _other = shares.take("b").expect("room for others");
        assert_eq!(shares.take("c").err(), Some(Full::All));
        drop(first);
        assert!(shares.take("c").is_ok());
        assert_eq!(shares.held.lock().expect("a lock").len(), 2, "who holds nothing is forgotten");
    }
}
