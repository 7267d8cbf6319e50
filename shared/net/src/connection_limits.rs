//! Limits of one client: its share of the connections, and deadlines.
//!
//! A connection counts against its client from the first byte. One that nobody has been identified on gets little, and gives way
//! first, whatever it is doing: to others of the same client when that one has too many, and to anybody when all places are taken.
//! A stranger may hold an answer or a body back for as long as they like; only the newest places are worth something to them, and who
//! connects to say who they are has the newest. One that somebody was identified on gives way while it is idle. What keeps a connection
//! from being idle is a request under way, not traffic: pings are free.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Connections of one accept loop, and of one client (a network, or a user on a socket) among them: a client
/// that opens all it can must leave room for the others.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_PER_CLIENT_MAX: usize = 256;
/// Of those, the ones on which nobody was identified yet.
const STRANGERS_PER_CLIENT_MAX: usize = 32;
/// A connection without any request, one that is idle and nobody's, and one that is idle and somebody's are closed after these times.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const STRANGER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// An answer of which nothing was taken for so long is given up with its connection.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Counts open connections per client.
pub(super) struct Gate<K> {
    open: Arc<Mutex<HashMap<K, Vec<Arc<Activity>>>>>,
}

/// One admitted connection; leaving frees its place.
pub(super) struct Place<K: Eq + Hash + Clone> {
    open: Arc<Mutex<HashMap<K, Vec<Arc<Activity>>>>>,
    client: K,
    pub(super) activity: Arc<Activity>,
}

impl<K: Eq + Hash + Clone> Gate<K> {
    pub(super) fn new() -> Self {
        Self { open: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// A place for this client, or in words why there is none. `known` when it is identified by connecting.
    pub(super) fn admit(&self, client: K, known: bool) -> Result<Place<K>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.entry(client.clone()).or_default();
        let strangers = own.iter().filter(|activity| !activity.is_known()).count();
        if own.len() >= CONNECTIONS_PER_CLIENT_MAX && !give_way(own) {
            return Err(format!("this client has {CONNECTIONS_PER_CLIENT_MAX} connections open, and all are in use"));
        }
        if !known && strangers >= STRANGERS_PER_CLIENT_MAX && !give_way(own) {
            return Err(format!(
                "this client has {STRANGERS_PER_CLIENT_MAX} connections open without being identified"
            ));
        }
        if open.values().map(Vec::len).sum::<usize>() >= CONNECTIONS_MAX {
            // The client with the most connections loses one first.
            let mut clients: Vec<&mut Vec<Arc<Activity>>> = open.values_mut().collect();
            clients.sort_by_key(|connections| std::cmp::Reverse(connections.len()));
            if !clients.into_iter().any(give_way) {
                return Err(format!("{CONNECTIONS_MAX} connections are open, and all are in use"));
            }
        }
        let activity = Arc::new(Activity::new(known));
        open.entry(client.clone()).or_default().push(Arc::clone(&activity));
        Ok(Place { open: Arc::clone(&self.open), client, activity })
    }
}

/// Cuts the connection that can be spared most: a stranger's before somebody's, of strangers the oldest, so that the newest has time
/// to say who it is however many push in behind it; of others the one that was idle the longest. False when all are somebody's and in use.
fn give_way(connections: &mut Vec<Arc<Activity>>) -> bool {
    let since = |activity: &Activity| if activity.is_known() { activity.used() } else { activity.began };
    let spare = connections.iter().enumerate().filter(|(_, activity)| activity.is_idle() || !activity.is_known());
    let spare = spare.min_by_key(|(_, activity)| (activity.is_known(), since(activity))).map(|(at, _)| at);
    let Some(at) = spare else { return false };
    connections.swap_remove(at).cut.cancel();
    true
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
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

/// What happens on one connection: its requests and answers. Requests carry it as [`Connection`].
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    known: AtomicBool,
    asked: AtomicBool,
    /// Milliseconds after `began` at which the last request ended.
    used: AtomicU64,
    /// Requests under way, by number: since when a part of the answer waits to be taken, if one does.
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

    /// When the last request ended, or it was opened.
    fn used(&self) -> Instant {
        self.began + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }

    /// A request begins; it ends when what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.asked.store(true, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(number, None);
        UnderWay { activity: Arc::clone(self), number }
    }

    /// Resolves, with the reason, when the connection is to be closed.
    pub(super) async fn over(&self) -> &'static str {
        loop {
            tokio::select! {
                () = self.cut.cancelled() => return "it was idle or nobody's, and another one needed its place",
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let idle = self.used().elapsed();
            let (is_empty, unread) = {
                let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                let unread = under_way.values().flatten().any(|since| since.elapsed() >= UNREAD_TIMEOUT);
                (under_way.is_empty(), unread)
            };
            if unread {
                return "an answer was not read";
            }
            if !is_empty {
                continue;
            }
            if !self.asked.load(Ordering::Relaxed) && idle >= FIRST_REQUEST_TIMEOUT {
                return "nothing was ever asked";
            }
            if idle >= if self.is_known() { IDLE_TIMEOUT } else { STRANGER_IDLE_TIMEOUT } {
                return "idle for too long";
            }
        }
    }
}

/// One request of a connection, until its answer was taken or given up.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    number: u64,
}

impl UnderWay {
    /// Something of the answer waits to be taken, since now; or nothing does.
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
    /// Somebody was identified on this connection: it is not one of a stranger's any more.
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
        // The newest has not asked anything yet, and stays all the same.
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
