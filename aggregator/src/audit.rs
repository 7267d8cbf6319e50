//! The aggregator's own entries: every request, allowed or denied, becomes exactly one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, Method};
use piperoll_client::{ClientError, NodeClient};
use piperoll_shared::net::serve::TlsPeer;
use serde_json::{Value, json};

/// Refusals of one address inside this time become one entry with a count, so that a stranger cannot fill
/// the log.
const REFUSAL_WINDOW: Duration = Duration::from_secs(60);
/// Addresses watched at once; beyond it all others share one count.
const ADDRESSES_MAX: usize = 10_000;

/// Where this aggregator's entries go.
pub(crate) struct Audit {
    node: NodeClient,
    refusals: Mutex<HashMap<IpAddr, Refusals>>,
}

struct Refusals {
    since: Instant,
    /// Behind the first one, which was recorded at once.
    count: u64,
    last_reason: String,
}

/// A request as the log tells it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) action: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) auth_method: Option<&'static str>,
    pub(crate) ip: IpAddr,
    pub(crate) user_agent: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) details: Value,
}

impl Audit {
    pub(crate) fn new(node: NodeClient) -> Self {
        Self { node, refusals: Mutex::default() }
    }

    /// Records one event; an error means that it is not on disk, and the request must not succeed.
    pub(crate) async fn record(&self, event: Event) -> Result<(), ClientError> {
        self.node.append(&event.to_entry()).await.map(|_| ())
    }

    /// Records what the aggregator has to say by itself.
    pub(crate) async fn note(&self, entry: &Value) -> Result<(), ClientError> {
        self.node.append(entry).await.map(|_| ())
    }

    /// Records a refused request, unless this address was refused just now: then it is counted.
    pub(crate) async fn refuse(&self, event: Event) {
        if self.count(&event) {
            return;
        }
        if let Err(error) = self.record(event).await {
            tracing::error!(%error, "a refused request could not be recorded");
        }
    }

    fn count(&self, event: &Event) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let key = network(event.ip);
        let key = if refusals.len() >= ADDRESSES_MAX && !refusals.contains_key(&key) {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            key
        };
        match refusals.get_mut(&key) {
            Some(known) => {
                known.count += 1;
                known.last_reason = event.reason.clone().unwrap_or_default();
                true
            }
            None => {
                refusals.insert(key, Refusals { since: Instant::now(), count: 0, last_reason: String::new() });
                false
            }
        }
    }

    /// Writes the counts of windows that are over; runs for ever.
    pub(crate) async fn flush_refusals(&self) {
        loop {
            tokio::time::sleep(REFUSAL_WINDOW / 12).await;
            self.flush(REFUSAL_WINDOW).await;
        }
    }

    /// Writes every count, before a stop.
    pub(crate) async fn flush_now(&self) {
        self.flush(Duration::ZERO).await;
    }

    async fn flush(&self, age: Duration) {
        let over: Vec<(IpAddr, Refusals)> = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.extract_if(|_, known| known.since.elapsed() >= age).collect()
        };
        for (ip, known) in over.into_iter().filter(|(_, known)| known.count > 0) {
            let entry = json!({
                "category": "audit", "action": "audit.refused_repeatedly", "outcome": "denied", "reason": known.last_reason,
                "ip_address": ip, "description": format!("{} more requests were refused", known.count),
                "details": { "counts": { "refused": known.count }, "window_seconds": known.since.elapsed().as_secs() },
            });
            if let Err(error) = self.node.append(&entry).await {
                tracing::error!(%error, count = known.count, %ip, "refused requests could not be recorded");
            }
        }
    }
}

/// One person can have a whole /64; it counts as one address.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

impl Event {
    /// A request that nothing was decided about yet.
    pub(crate) fn of(peer: &TlsPeer, method: &Method, path: &str, headers: &HeaderMap) -> Self {
        Self {
            action: "audit.request",
            outcome: "denied",
            reason: None,
            user: None,
            auth_method: None,
            ip: peer.address.ip(),
            user_agent: headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).map(str::to_owned),
            method: method.to_string(),
            path: format!("/api/v1{path}"),
            details: json!({}),
        }
    }

    fn to_entry(&self) -> Value {
        let cut = |text: &str, max: usize| text.chars().filter(|c| !c.is_control()).take(max).collect::<String>();
        let mut entry = json!({
            "category": "audit",
            "action": self.action,
            "outcome": self.outcome,
            "ip_address": self.ip.to_canonical(),
            "method": cut(&self.method, 32),
            // The path only: a query string is shown, checked, in `details`.
            "path": cut(&self.path, 1_000),
            "details": self.details,
        });
        for (name, value) in [
            ("reason", self.reason.as_deref().map(|r| cut(r, 60))),
            ("user", self.user.clone()),
            ("auth_method", self.auth_method.map(str::to_owned)),
            ("user_agent", self.user_agent.as_deref().map(|a| cut(a, 500))),
        ] {
            if let Some(value) = value {
                entry[name] = Value::String(value);
            }
        }
        entry
    }
}

impl Audit {
    /// Whether the node that records our entries does so now.
    pub(crate) async fn ready(&self) -> Result<(), ClientError> {
        self.node.health().await
    }
}
