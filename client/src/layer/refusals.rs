//! Limits the entries about rejected requests: the first one from an address is recorded at once and further ones are counted, so
//! that no client can fill the log.

use std::collections::{HashMap, hash_map};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use piperoll_format::address::network;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::entry::{Category, Entry, Outcome};
use crate::recorder::{Recorder, WeakRecorder};

/// Period in which further refusals from one address are counted in one entry.
const WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of addresses that are counted separately; all others share one count.
const ADDRESSES_MAX: usize = 10_000;

/// Key for refusals whose address is unknown, or is not counted separately because of `ADDRESSES_MAX`.
const UNKNOWN: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Counts of refused requests in the current window, by address.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<IpAddr, Counted>>);

#[derive(Debug)]
struct Counted {
    since: Instant,
    /// Number of refusals after the first one, which has an entry of its own.
    more: u64,
    last_reason: String,
}

impl Refusals {
    /// Counts a refusal. For the first refusal from an address, returns the key of the new count, and the caller must record that
    /// refusal; for further ones, returns `None`. The count is recorded when the window ends or the recorder is closed.
    pub(super) fn first(self: &Arc<Self>, recorder: &Recorder, entry: &Entry) -> Option<IpAddr> {
        let mut addresses = self.addresses();
        let mut key = entry.address().map_or(UNKNOWN, network);
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&key) {
            key = UNKNOWN;
        }
        if let Some(known) = addresses.get_mut(&key) {
            known.more += 1;
            known.last_reason = entry.reason_word().to_owned();
            return None;
        }
        let last_reason = entry.reason_word().to_owned();
        addresses.insert(key, Counted { since: Instant::now(), more: 0, last_reason });
        drop(addresses);
        let (closing, weak) = (recorder.closing(), recorder.downgrade());
        let (category, action) = (entry.category, repeated(&entry.action));
        recorder.operation(Arc::clone(self).report(key, closing, weak, category, action));
        Some(key)
    }

    /// Adds the first refusal to the count if it could not be recorded.
    pub(super) fn missed(&self, key: IpAddr) {
        if let Some(counted) = self.addresses().get_mut(&key) {
            counted.more += 1;
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the count when the window ends or the recorder is closed. Holds a weak reference, so that the recorder can be dropped.
    async fn report(
        self: Arc<Self>,
        key: IpAddr,
        closing: CancellationToken,
        weak: WeakRecorder,
        category: Category,
        action: String,
    ) {
        loop {
            let _ = tokio::time::timeout(WINDOW, closing.cancelled()).await;
            let counted = self.addresses().remove(&key);
            let Some(counted) = counted.filter(|counted| counted.more > 0) else { return };
            let Some(recorder) = weak.upgrade() else {
                tracing::error!(
                    count = counted.more,
                    "refused requests were not recorded, because the recorder was dropped without being closed"
                );
                return;
            };
            let policy = recorder.policy_after_the_fact(category);
            let Err(error) = recorder.emit_with_policy(counted.entry(key, category, &action), policy).await else {
                return;
            };
            tracing::error!(%error, count = counted.more, ip = %key, "cannot record refused requests");
            if closing.is_cancelled() {
                return;
            }
            // Add the count to the next window, which may have begun meanwhile.
            match self.addresses().entry(key) {
                hash_map::Entry::Occupied(mut next) => {
                    next.get_mut().more += counted.more;
                    return;
                }
                hash_map::Entry::Vacant(next) => drop(next.insert(counted)),
            }
        }
    }
}

impl Counted {
    fn entry(&self, key: IpAddr, category: Category, action: &str) -> Entry {
        let entry = Entry::new(category, action)
            .outcome(Outcome::Denied)
            .reason(&self.last_reason)
            .description(format!("{} more requests were refused", self.more))
            .detail("counts", serde_json::json!({ "refused": self.more }))
            .detail("window_seconds", self.since.elapsed().as_secs());
        if key == UNKNOWN { entry } else { entry.ip_address(key) }
    }
}

/// Returns the action of the entry with the count: `http.refused_repeatedly` for both `http.post` and `http.get`.
fn repeated(action: &str) -> String {
    format!("{}.refused_repeatedly", action.split('.').next().unwrap_or(action))
}
