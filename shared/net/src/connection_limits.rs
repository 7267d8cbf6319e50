//! Limits each client to its share of the connections, and closes connections that miss their deadlines.
//!
//! A connection counts against its client from the first byte. A client gets few slots for unidentified connections, that is,
//! connections on which no caller has been identified. If a client exceeds its limit, or if all slots are taken, an unidentified
//! connection is closed first, even with a request in progress, because its client can stall a request or a response
//! indefinitely. Among unidentified connections the oldest is closed first, so that a new connection has time to identify its
//! caller. A connection with an identified caller is closed early only while it is idle. A connection with a request in progress
//! is not idle; other traffic, such as pings, does not count.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Maximum number of connections of one accept loop, and maximum number of connections of one client (a network, or a user on a
/// Unix socket) in one loop, so that one client cannot occupy all of them.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_PER_CLIENT_MAX: usize = 256;
/// Maximum number of a client's connections on which no caller has been identified yet.
const STRANGERS_PER_CLIENT_MAX: usize = 32;
/// Timeouts after which a connection is closed: one that has had no request, one that is idle without an identified caller, and
/// one that is idle with an identified caller.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const STRANGER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Time after which a response is dropped, together with its connection, if the client does not read the next part of it.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Counts open connections per client.
pub(super) struct Gate<K> {
    open: Arc<Mutex<HashMap<K, Vec<Arc<Activity>>>>>,
}

/// Slot of one admitted connection; dropping it frees the slot.
pub(super) struct AdmissionSlot<K: Eq + Hash + Clone> {
    open: Arc<Mutex<HashMap<K, Vec<Arc<Activity>>>>>,
    client: K,
    pub(super) activity: Arc<Activity>,
}

impl<K: Eq + Hash + Clone> Gate<K> {
    pub(super) fn new() -> Self {
        Self { open: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// Admits a connection of this client, or returns the reason for the refusal. `known` is true if the client is already
    /// identified by the connection itself.
    pub(super) fn admit(&self, client: K, known: bool) -> Result<AdmissionSlot<K>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.entry(client.clone()).or_default();
        let strangers = own.iter().filter(|activity| !activity.is_known()).count();
        if own.len() >= CONNECTIONS_PER_CLIENT_MAX && !give_way(own) {
            return Err(format!("this client has {CONNECTIONS_PER_CLIENT_MAX} connections open, and all are in use"));
        }
        if !known && strangers >= STRANGERS_PER_CLIENT_MAX && !give_way(own) {
            return Err(format!("this client has {STRANGERS_PER_CLIENT_MAX} unidentified connections open"));
        }
        if open.values().map(Vec::len).sum::<usize>() >= CONNECTIONS_MAX {
            // Close a connection of the client with the most connections or, if none of them can be spared, of the next client.
            let mut clients: Vec<&mut Vec<Arc<Activity>>> = open.values_mut().collect();
            clients.sort_by_key(|connections| std::cmp::Reverse(connections.len()));
            if !clients.into_iter().any(give_way) {
                return Err(format!("{CONNECTIONS_MAX} connections are open, and all are in use"));
            }
        }
        let activity = Arc::new(Activity::new(known));
        open.entry(client.clone()).or_default().push(Arc::clone(&activity));
        Ok(AdmissionSlot { open: Arc::clone(&self.open), client, activity })
    }
}

/// Closes the connection that can best be spared: an unidentified one before an identified one. Among unidentified connections,
/// the oldest is closed, so that the newest has time to identify itself however many others arrive; among identified connections,
/// the one that has been idle the longest. Returns `false` if all connections are identified and in use.
fn give_way(connections: &mut Vec<Arc<Activity>>) -> bool {
    let since = |activity: &Activity| if activity.is_known() { activity.used() } else { activity.began };
    let spare = connections.iter().enumerate().filter(|(_, activity)| activity.is_idle() || !activity.is_known());
    let spare = spare.min_by_key(|(_, activity)| (activity.is_known(), since(activity))).map(|(at, _)| at);
    let Some(at) = spare else { return false };
    connections.swap_remove(at).cut.cancel();
    true
}

impl<K: Eq + Hash + Clone> Drop for AdmissionSlot<K> {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.client) {
            own.retain(|activity| !Arc::ptr_eq(activity, &self.activity));
            if own.is_empty() {
                open.remove(&self.client);
            }
        }
    }
}

/// State of one connection: its requests and responses. Requests carry it as [`Connection`].
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    known: AtomicBool,
    asked: AtomicBool,
    /// Time at which the last request ended, in milliseconds after `began`.
    used: AtomicU64,
    /// Requests in progress, by number. The value is the time since which a part of the response has been waiting for the client,
    /// or `None` if no part is waiting.
    under_way: Mutex<HashMap<u64, Option<Instant>>>,
    next: AtomicU64,
    pub(super) cut: CancellationToken,
}

impl Activity {
    fn new(known: bool) -> Self {
        Self {
            began: Instant::now(),
            known: AtomicBool::new(known),
            asked: AtomicBool::new(false),
            used: AtomicU64::new(0),
            under_way: Mutex::default(),
            next: AtomicU64::new(0),
            cut: CancellationToken::new(),
        }
    }

    fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Time at which the last request ended or, if there was none, the connection was opened.
    fn used(&self) -> Instant {
        self.began + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }

    /// Begins a request, which ends when the returned value is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.asked.store(true, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(number, None);
        UnderWay { activity: Arc::clone(self), number }
    }

    /// Resolves, with the reason, when the connection must be closed.
    pub(super) async fn over(&self) -> &'static str {
        loop {
            tokio::select! {
                () = self.cut.cancelled() => return "idle or unidentified, and another connection needed its slot",
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let idle = self.used().elapsed();
            let (is_empty, unread) = {
                let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                let unread = under_way.values().flatten().any(|since| since.elapsed() >= UNREAD_TIMEOUT);
                (under_way.is_empty(), unread)
            };
            if unread {
                return "the client did not read a response";
            }
            if !is_empty {
                continue;
            }
            if !self.asked.load(Ordering::Relaxed) && idle >= FIRST_REQUEST_TIMEOUT {
                return "no request was received";
            }
            if idle >= if self.is_known() { IDLE_TIMEOUT } else { STRANGER_IDLE_TIMEOUT } {
                return "idle for too long";
            }
        }
    }
}

/// One request in progress, until its response was sent or dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    number: u64,
}

impl UnderWay {
    /// Records whether, from now on, a part of the response is waiting for the client.
    pub(super) fn waits(&self, waits: bool) {
        let mut under_way = self.activity.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.insert(self.number, waits.then(Instant::now));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.activity.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        let now = u64::try_from(self.activity.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.activity.used.store(now, Ordering::Relaxed);
    }
}

/// Connection of a request, as a request extension. Authentication calls [`Connection::identified`].
#[derive(Debug, Clone)]
pub struct Connection(pub(super) Arc<Activity>);

impl Connection {
    /// Marks the connection as identified, so that the limits of unidentified connections no longer apply to it.
    pub fn identified(&self) {
        self.0.known.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_every_connection() {
        let gate = Gate::new();
        let held: Vec<_> = (0..CONNECTIONS_PER_CLIENT_MAX).map(|_| gate.admit("a", true).expect("room")).collect();
        let busy: Vec<_> = held.iter().map(|place| place.activity.request()).collect();
        assert!(gate.admit("a", true).is_err());
        assert!(gate.admit("b", false).is_ok());
        drop(busy);
        assert!(gate.admit("a", true).is_ok(), "an idle one gives way");
        assert_eq!(held.iter().filter(|place| place.activity.cut.is_cancelled()).count(), 1);
    }

    #[test]
    fn strangers_get_little_and_lose_it_first() {
        let gate = Gate::new();
        let strangers: Vec<_> = (0..STRANGERS_PER_CLIENT_MAX).map(|_| gate.admit("a", false).expect("room")).collect();
        let is_cut = |at: usize| strangers[at].activity.cut.is_cancelled();
        let busy: Vec<_> = strangers.iter().map(|place| place.activity.request()).collect();
        let known = gate.admit("a", true).expect("identified clients have more room");
        assert!(!is_cut(0));
        let newest = gate.admit("a", false).expect("a stranger gives way, also a busy one");
        // The newest connection is kept even though it has not sent a request yet.
        let _next = gate.admit("a", false).expect("so does the next one");
        assert!(is_cut(0) && is_cut(1) && !is_cut(2), "the oldest go first");
        assert!(!known.activity.cut.is_cancelled() && !newest.activity.cut.is_cancelled());
        drop(busy);
    }

    #[test]
    fn when_all_places_are_taken_idle_ones_of_the_greediest_give_way() {
        let gate = Gate::new();
        let mut held = Vec::new();
        for client in 0..CONNECTIONS_MAX / CONNECTIONS_PER_CLIENT_MAX {
            held.extend((0..CONNECTIONS_PER_CLIENT_MAX).map(|_| gate.admit(client, true).expect("room")));
        }
        let honest = gate.admit(999, false).expect("room that an idle one gave");
        assert_eq!(held.iter().filter(|place| place.activity.cut.is_cancelled()).count(), 1);
        let _busy: Vec<_> = held.iter().map(|place| place.activity.request()).collect();
        let _own = honest.activity.request();
        honest.activity.known.store(true, Ordering::Relaxed);
        assert!(gate.admit(1_000, false).is_err(), "requests of somebody under way are not cut");
    }
}
