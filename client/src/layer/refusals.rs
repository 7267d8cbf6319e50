//! Strangers who are turned away again and again: the first time is recorded at once, the others are counted, so that nobody
//! can fill the log.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use piperoll_shared::net::address::network;
use tokio::time::Instant;

use super::policy_of_what_happened;
use crate::entry::{Category, Entry, Outcome};
use crate::recorder::Recorder;

/// Refusals of one address inside this time become one entry with a count.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses watched at once; beyond it all others share one count.
const ADDRESSES_MAX: usize = 10_000;

/// Who was turned away in the last minute, and how often.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<IpAddr, Counted>>);

#[derive(Debug)]
struct Counted {
    since: Instant,
    /// Behind the first one, which has an entry of its own.
    more: u64,
    last_reason: String,
}

impl Refusals {
    /// True when this one is counted and needs no entry of its own. The first of an address begins to count, and the count is
    /// recorded when the window is over or the recorder is closed.
    pub(super) fn is_counted(self: &Arc<Self>, recorder: &Recorder, entry: &Entry) -> bool {
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let mut key = entry.address().map_or(unknown, network);
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&key) {
            key = unknown;
        }
        if let Some(known) = addresses.get_mut(&key) {
            known.more += 1;
            known.last_reason = entry.reason_word().to_owned();
            return true;
        }
        addresses.insert(key, Counted { since: Instant::now(), more: 0, last_reason: String::new() });
        drop(addresses);
        let (refusals, closing, weak) = (Arc::clone(self), recorder.closing(), recorder.downgrade());
        let (category, action) = (entry.category, repeated(&entry.action));
        recorder.operation(async move {
            // Waits for whoever closes the recorder, too, and keeps nobody from dropping it.
            let _ = tokio::time::timeout(WINDOW, closing.cancelled()).await;
            let counted = refusals.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            let Some(counted) = counted.filter(|counted| counted.more > 0) else { return };
            match weak.upgrade() {
                Some(recorder) => {
                    counted.record(&recorder, Some(key).filter(|key| *key != unknown), category, action).await
                }
                None => tracing::error!(
                    count = counted.more,
                    "refused requests are not recorded: nobody closed the recorder"
                ),
            }
        });
        false
    }
}

impl Counted {
    async fn record(self, recorder: &Recorder, ip: Option<IpAddr>, category: Category, action: String) {
        let mut entry = Entry::new(category, action)
            .outcome(Outcome::Denied)
            .reason(self.last_reason)
            .description(format!("{} more requests were refused", self.more))
            .detail("counts", serde_json::json!({ "refused": self.more }))
            .detail("window_seconds", self.since.elapsed().as_secs());
        if let Some(ip) = ip {
            entry = entry.ip_address(ip);
        }
        if let Err(error) = recorder.emit_under(entry, policy_of_what_happened(recorder, category)).await {
            tracing::error!(%error, count = self.more, "refused requests could not be recorded");
        }
    }
}

/// The action of the count: `http.post` and `http.get` are both counted as `http.refused_repeatedly`.
fn repeated(action: &str) -> String {
    format!("{}.refused_repeatedly", action.split('.').next().unwrap_or(action))
}
