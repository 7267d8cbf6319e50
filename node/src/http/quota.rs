//! Quota of bytes that a client may append per hour, so that no client can fill the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time in which an empty quota is fully refilled.
const REFILL: Duration = Duration::from_secs(3_600);
/// If this many callers are remembered, those whose quota is full again are forgotten.
const CALLERS_MAX: usize = 10_000;

/// Remaining quota of each caller, by the caller's name in `via`.
#[derive(Debug)]
pub(super) struct Quotas {
    /// `None` means no limit.
    bytes_per_hour: Option<u64>,
    left: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Quotas {
    pub(super) fn new(bytes_per_hour: Option<u64>) -> Self {
        Self { bytes_per_hour, left: Mutex::default() }
    }

    /// Takes bytes from a caller's quota.
    ///
    /// # Errors
    /// Returns how long to wait until enough bytes are available, if there are too few now.
    pub(super) fn take(&self, caller: &str, bytes: u64) -> Result<(), Duration> {
        let Some(per_hour) = self.bytes_per_hour else { return Ok(()) };
        #[expect(clippy::cast_precision_loss, reason = "a quota need not be exact to the byte")]
        let (whole, bytes) = (per_hour as f64, bytes as f64);
        let rate = whole / REFILL.as_secs_f64();
        let now = Instant::now();
        let refilled =
            |(left, since): (f64, Instant)| (left + now.duration_since(since).as_secs_f64() * rate).min(whole);
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CALLERS_MAX {
            all.retain(|_, known| refilled(*known) < whole);
        }
        let left = all.get(caller).map_or(whole, |known| refilled(*known));
        // Accept a request larger than a whole quota when the quota is full; otherwise it could never be accepted.
        let needed = bytes.min(whole);
        if left < needed {
            return Err(Duration::from_secs_f64((needed - left) / rate));
        }
        all.insert(caller.to_owned(), (left - bytes, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_limited_and_others_are_not() {
        let quotas = Quotas::new(Some(3_600));
        assert!(quotas.take("uid=1", 3_000).is_ok());
        let wait = quotas.take("uid=1", 1_000).expect_err("no room");
        assert!((300..=400).contains(&wait.as_secs()), "{wait:?}");
        assert!(quotas.take("uid=2", 3_600).is_ok());
        assert!(quotas.take("uid=3", 1_000_000).is_ok(), "what is larger than a quota passes once");
        assert!(quotas.take("uid=3", 1).is_err());
        assert!(Quotas::new(None).take("uid=1", u64::MAX).is_ok());
    }
}
