//! The live tail: what all nodes record, merged while it is recorded.
//!
//! Every node is followed from its own place. A row waits until every node that answers has said that it has nothing earlier,
//! but no longer than the grace; one that comes after its turn is handed out at once and marked as late. A node that is
//! silent for longer than the grace is reported as missing, and holds nobody back any more.

mod follow;
mod order;
mod position;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::time::Duration;

use piperoll_shared::api::aggregator::Status;
use piperoll_shared::log::ids::NodeId;
use piperoll_shared::log::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Cluster;
use super::member::Member;
use super::placed::PlacedRow;
use super::query::Query;
use follow::{News, follow};
use order::Ordering;
use position::Place;
pub(crate) use position::Positions;

/// How long a row waits for a node that has not said whether it has an earlier one, and how long a node may be silent
/// before it is reported.
const GRACE: Duration = Duration::from_secs(2);
/// How often the reader hears how far all nodes are.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often rows are looked at whose grace may be over.
const TICK: Duration = Duration::from_millis(100);
/// Between the nodes and the merge; nodes wait when it is full.
const NEWS_WAITING: usize = 64;
/// Between the merge and the reader, events and bytes. A reader that is behind by so many is dropped: nothing is kept for it.
const EVENTS_WAITING: usize = 4_096;
const EVENTS_BYTES_WAITING: usize = 16 * 1024 * 1024;

/// What the reader of a tail gets.
#[derive(Debug)]
pub(crate) enum Event {
    Row {
        row: Box<PlacedRow>,
        /// A later one was handed out before.
        late: bool,
        /// What changed since the event before, of where to go on behind this one.
        after: Vec<(NodeId, Place)>,
    },
    /// What became of a node: it stopped answering, came back, or does not fit.
    Node(NodeEvent),
    Heartbeat {
        /// Everything up to this time was handed out, of all nodes that are not missing.
        watermark: Option<Timestamp>,
        nodes: Vec<NodeEvent>,
        after: Vec<(NodeId, Place)>,
    },
    /// The last event: the client was too slow. It resumes after the previous event.
    Dropped,
}

impl Event {
    fn bytes(&self) -> usize {
        match self {
            Self::Row { row, .. } => row.body.len() + ROW_OVERHEAD_BYTES,
            Self::Heartbeat { nodes, .. } => nodes.len() * ROW_OVERHEAD_BYTES,
            Self::Node(_) | Self::Dropped => ROW_OVERHEAD_BYTES,
        }
    }
}

/// Events on their way to their reader; what is read makes room.
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

/// What an event takes besides the bytes of its row.
const ROW_OVERHEAD_BYTES: usize = 512;

/// A node as a tail sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEvent {
    pub(crate) node_id: NodeId,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    /// Since when, by this aggregator's clock.
    pub(crate) since: Timestamp,
}

/// A tail under way. It ends when its events are dropped.
pub(crate) struct Tail {
    pub(crate) events: Events,
    /// Where it begins.
    pub(crate) positions: Positions,
    /// Says that the reader was given up, long before a reader that slow gets to the last event.
    pub(crate) given_up: oneshot::Receiver<()>,
}

/// Follows all nodes.
pub(crate) fn start(cluster: &Cluster, query: &Query, positions: Positions, since: Timestamp) -> Tail {
    let filter = &query.filter;
    let (send, events) = mpsc::channel(EVENTS_WAITING);
    let (give_up, given_up) = oneshot::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&waiting);
    let (news, incoming) = mpsc::channel(NEWS_WAITING);
    let mut followers = JoinSet::new();
    let wanted =
        |member: &&Arc<Member>| filter.only_nodes().is_none_or(|names| names.contains(&member.node.id.as_str()));
    let members: Vec<Arc<Member>> =
        cluster.members.iter().filter(|member| !member.has_left()).filter(wanted).cloned().collect();
    let mut from = positions;
    for member in &members {
        if from.of(&member.node.id).is_none() {
            from.set(&member.node.id, Place::Since(since));
        }
    }
    let mut ordering = Ordering::new(members.iter().map(|member| member.node.id.clone()));
    for (index, member) in members.into_iter().enumerate() {
        let place = from.of(&member.node.id).unwrap_or(Place::Since(since));
        followers.spawn(follow(member, index, place, query.clone(), cluster.limits, news.clone()));
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

/// Whether it ended because the reader was too slow.
async fn run(
    ordering: &mut Ordering,
    mut incoming: mpsc::Receiver<News>,
    send: &mpsc::Sender<Event>,
    waiting: &AtomicUsize,
) -> bool {
    let mut tick = tokio::time::interval(TICK);
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            news = incoming.recv() => match news {
                Some(news) => ordering.take(news),
                None => return false,
            },
            _ = tick.tick() => {}
            _ = heartbeat.tick() => ordering.beat(),
        }
        loop {
            // One slot is reserved for the `Dropped` event; the client resumes after the last event it received.
            let is_full = send.capacity() <= 1 || waiting.load(Atomic::Relaxed) >= EVENTS_BYTES_WAITING;
            let Some(event) = ordering.next() else { break };
            let event = if is_full { Event::Dropped } else { event };
            waiting.fetch_add(event.bytes(), Atomic::Relaxed);
            if send.try_send(event).is_err() {
                return false;
            }
            if is_full {
                return true;
            }
        }
    }
}
