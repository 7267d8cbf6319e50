//! Runs a tail: follows all nodes and emits rows that are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::time::Duration;

use piperoll_format::limits::CALLER_ENTRY_BYTES_MAX;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::event::{Event, GRACE, ROW_OVERHEAD_BYTES};
use super::follow::{News, Room, follow};
use super::order::Ordering;
use super::position::{Positions, TailPosition};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;
use crate::scan::query::Query;

/// Interval at which the client receives the progress of all nodes.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Interval at which the tail checks whether the grace period (`GRACE`) of waiting rows is over.
const TICK: Duration = Duration::from_millis(100);
/// Maximum number of news items queued between the followers of the nodes and the merge. Followers wait when the queue is full.
const NEWS_WAITING: usize = 64;
/// Maximum bytes of rows in the merge, divided among the nodes. Each node has room for at least one row.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
const HELD_BYTES_MIN: usize = CALLER_ENTRY_BYTES_MAX + ROW_OVERHEAD_BYTES;
/// Maximum number of events and bytes queued between the merge and the client. A live tail that lags by this much is dropped.
const EVENTS_WAITING: usize = 4_096;
const EVENTS_BYTES_WAITING: usize = 16 * 1024 * 1024;
/// Maximum time that a backlog waits for a client that reads nothing.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Events queued for the client; reading an event makes room.
pub(crate) struct Events {
    incoming: mpsc::Receiver<Event>,
    waiting: Arc<AtomicUsize>,
}

impl Events {
    pub(crate) async fn recv(&mut self) -> Option<Event> {
        let event = self.incoming.recv().await?;
        self.waiting.fetch_sub(event.bytes(), Atomic::Relaxed);
        Some(event)
    }
}

/// A running tail. It ends when its events are dropped.
pub(crate) struct Tail {
    pub(crate) events: Events,
    /// Positions at which the tail begins.
    pub(crate) positions: Positions,
    /// Signals that the client was dropped, long before such a slow client would read the `Dropped` event.
    pub(crate) given_up: oneshot::Receiver<()>,
}

/// Starts following all nodes.
pub(crate) fn start(cluster: &Cluster, query: &Query, positions: Positions, since: Timestamp) -> Tail {
    let filter = &query.filter;
    let (send, events) = mpsc::channel(EVENTS_WAITING);
    let (give_up, given_up) = oneshot::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&waiting);
    let (news, incoming) = mpsc::channel(NEWS_WAITING);
    let mut followers = JoinSet::new();
    let wanted = |member: &&Arc<NodeHandle>| filter.concerns_node(member.node.id.as_str());
    let members: Vec<Arc<NodeHandle>> =
        cluster.members.iter().filter(|member| !member.has_left()).filter(wanted).cloned().collect();
    let mut from = positions;
    for member in &members {
        if from.of(&member.node.id).is_none() {
            from.set(&member.node.id, TailPosition::Since(since));
        }
    }
    let recent = SystemClock.now().minus(GRACE);
    let begins_behind =
        |place: Option<TailPosition>| !matches!(place, Some(TailPosition::Since(time)) if time >= recent);
    let nodes = members.iter().map(|member| (member.node.id.clone(), begins_behind(from.of(&member.node.id))));
    let mut ordering = Ordering::new(nodes);
    let room = HELD_BYTES_MAX.checked_div(members.len()).unwrap_or(0).max(HELD_BYTES_MIN);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    for (index, member) in members.into_iter().enumerate() {
        let place = from.of(&member.node.id).unwrap_or(TailPosition::Since(since));
        followers.spawn(follow(member, index, place, query.clone(), cluster.limits, Room::new(room), news.clone()));
    }
    drop(news);
    tokio::spawn(async move {
        tokio::select! {
            slow = run(&mut ordering, incoming, &send, &waiting) => if slow { let _ = give_up.send(()); },
            () = send.closed() => {}
        }
        followers.shutdown().await;
    });
    Tail { events: Events { incoming: events, waiting: counted }, positions: from, given_up }
}

/// Emits events until the client disconnects or no node is followed any longer. Returns whether the client was too slow.
async fn run(
    ordering: &mut Ordering,
    mut incoming: mpsc::Receiver<News>,
    send: &mpsc::Sender<Event>,
    waiting: &AtomicUsize,
) -> bool {
    let mut tick = tokio::time::interval(TICK);
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    let mut is_live = false;
    loop {
        tokio::select! {
            news = incoming.recv() => match news {
                Some(news) => ordering.take(news),
                None => return false,
            },
            _ = tick.tick() => {}
            _ = heartbeat.tick() => ordering.beat(),
        }
        // Apply news that arrived while this task waited for the client; only then check which waits have taken too long.
        while let Ok(news) = incoming.try_recv() {
            ordering.take(news);
        }
        is_live = !ordering.has_backlog() && (is_live || send.capacity() == EVENTS_WAITING);
        if !is_live && !has_room(send, waiting).await {
            return dropped(send, waiting);
        }
        loop {
            // One slot is reserved for the `Dropped` event; the client resumes after the last event it received.
            let is_full = send.capacity() <= 1 || waiting.load(Atomic::Relaxed) >= EVENTS_BYTES_WAITING;
            if is_full && !is_live {
                break;
            }
            let Some(event) = ordering.next() else { break };
            if is_full {
                return dropped(send, waiting);
            }
            waiting.fetch_add(event.bytes(), Atomic::Relaxed);
            if send.try_send(event).is_err() {
                return false;
            }
        }
    }
}

/// Sends the final event, `Dropped`. Returns whether the client is still connected.
fn dropped(send: &mpsc::Sender<Event>, waiting: &AtomicUsize) -> bool {
    waiting.fetch_add(Event::Dropped.bytes(), Atomic::Relaxed);
    send.try_send(Event::Dropped).is_ok()
}

/// Waits until the client has read half of the queue; returns `false` if the client reads nothing for `STALL_MAX`.
async fn has_room(send: &mpsc::Sender<Event>, waiting: &AtomicUsize) -> bool {
    let (mut least, mut stalled) = (usize::MAX, tokio::time::Instant::now());
    loop {
        let bytes = waiting.load(Atomic::Relaxed);
        if send.capacity() > EVENTS_WAITING / 2 && bytes < EVENTS_BYTES_WAITING / 2 {
            return true;
        }
        if bytes < least {
            (least, stalled) = (bytes, tokio::time::Instant::now());
        } else if stalled.elapsed() >= STALL_MAX {
            return false;
        }
        tokio::time::sleep(TICK / 10).await;
    }
}
