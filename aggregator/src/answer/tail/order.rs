//! Decides which row is emitted next, and which changes of nodes are reported before it. Never waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::order::Key;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::Status;
use tokio::sync::OwnedSemaphorePermit;

use super::event::{BACKLOG_WAIT_MAX, Event, GRACE, NodeEvent};
use super::follow::News;
use super::position::TailPosition;
use crate::scan::verified_row::VerifiedRow;

/// Rows of one node that were not emitted yet, in the node's order.
struct Followed {
    /// Reason why rows of the node that belong to the tail are not in any readable log.
    superseded: Option<String>,
    id: NodeId,
    rows: VecDeque<Held>,
    /// Lower bound for the times of the rows that have not arrived yet.
    time: Option<Timestamp>,
    /// Position at which the node continues once its waiting rows have been emitted.
    marked: Option<TailPosition>,
    state: NodeState,
    backlog: Backlog,
    /// Time at which the node last sent a row or a mark, or began to answer.
    heard: Instant,
}

/// A row that waits for its turn.
struct Held {
    came: Instant,
    generation: Generation,
    row: Box<VerifiedRow>,
    /// The row's share of the `Room` of the node's follower. The share is released when the row is emitted, so that the
    /// follower can read more.
    _room: OwnedSemaphorePermit,
}

/// Rows that a node recorded before it was followed. The backlog ends with the node's first mark.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backlog {
    None,
    /// Backlog since the start of the tail: rows of other nodes wait for this node, so that all rows are in order.
    SinceStart,
    /// Backlog since the node was missing or sent nothing for too long: rows of other nodes were emitted meanwhile, so
    /// this node's rows are late.
    SinceAbsence,
}

enum NodeState {
    /// The node has not answered since `since`: either it never did, or it no longer does.
    Silent {
        since: Instant,
        at: Timestamp,
        status: Status,
        reason: Option<String>,
    },
    Answering {
        since: Timestamp,
    },
    /// The node was reported as missing; no row waits for it.
    Missing(NodeEvent),
}

pub(super) struct Ordering {
    nodes: Vec<Followed>,
    last: Option<Key>,
    /// Positions that no event has reported yet, by index of the node.
    moved: BTreeMap<usize, TailPosition>,
    /// Events of nodes to emit before the next row.
    said: VecDeque<NodeEvent>,
    beat: bool,
}

impl Ordering {
    /// Creates the ordering. The flag of a node is true if the node is followed from a time in the past.
    pub(super) fn new(nodes: impl Iterator<Item = (NodeId, bool)>) -> Self {
        let (now, at) = (Instant::now(), SystemClock.now());
        let silent =
            || NodeState::Silent { since: now, at, status: Status::Timeout, reason: Some("no answer yet".to_owned()) };
        let followed = |(id, with_backlog)| {
            let backlog = if with_backlog { Backlog::SinceStart } else { Backlog::None };
            Followed {
                superseded: None,
                id,
                rows: VecDeque::new(),
                time: None,
                marked: None,
                state: silent(),
                backlog,
                heard: now,
            }
        };
        let nodes = nodes.map(followed).collect();
        Self { nodes, last: None, moved: BTreeMap::new(), said: VecDeque::new(), beat: false }
    }

    /// Returns whether an answering node has not reached the end of its log yet.
    pub(super) fn has_backlog(&self) -> bool {
        self.nodes.iter().any(|node| node.backlog != Backlog::None)
    }

    /// Removes and returns the positions that no event has reported yet.
    fn moved(&mut self) -> Vec<(NodeId, TailPosition)> {
        let moved = std::mem::take(&mut self.moved);
        moved.into_iter().map(|(index, place)| (self.nodes[index].id.clone(), place)).collect()
    }

    /// Requests a heartbeat event.
    pub(super) fn beat(&mut self) {
        self.beat = true;
    }

    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Begun { node } => {
                let node = &mut self.nodes[node];
                let since = SystemClock.now();
                if let NodeState::Missing(_) = &node.state {
                    let reason = Some("the node is answering again".to_owned());
                    self.said.push_back(NodeEvent { node_id: node.id.clone(), status: Status::Ok, reason, since });
                    node.backlog = Backlog::SinceAbsence;
                }
                node.state = NodeState::Answering { since };
                node.heard = Instant::now();
            }
            News::Row { node, generation, row, room } => {
                let node = &mut self.nodes[node];
                node.time = node.time.max(Some(row.key.timestamp));
                node.heard = Instant::now();
                node.rows.push_back(Held { came: Instant::now(), generation, row, _room: room });
            }
            News::Mark { node: index, generation, next_seq, time } => {
                let node = &mut self.nodes[index];
                node.time = node.time.max(Some(time));
                node.backlog = Backlog::None;
                node.heard = Instant::now();
                let place = TailPosition::At { generation, next_seq };
                if node.rows.is_empty() {
                    self.moved.insert(index, place);
                } else {
                    node.marked = Some(place);
                }
            }
            News::Fault { node, message } => {
                let (node_id, since) = (self.nodes[node].id.clone(), SystemClock.now());
                self.said.push_back(NodeEvent { node_id, status: Status::Invalid, reason: Some(message), since });
            }
            News::Superseded { node: index, message } => {
                let node = &mut self.nodes[index];
                let (node_id, since) = (node.id.clone(), SystemClock.now());
                let reason = Some(message.clone());
                node.superseded.get_or_insert(message);
                self.said.push_back(NodeEvent { node_id, status: Status::Superseded, reason, since });
            }
            News::Lost { node, status, reason } => {
                let node = &mut self.nodes[node];
                match &mut node.state {
                    NodeState::Answering { .. } => {
                        let (since, at) = (Instant::now(), SystemClock.now());
                        node.state = NodeState::Silent { since, at, status, reason: Some(reason) };
                    }
                    NodeState::Silent { status: known, reason: why, .. } => (*known, *why) = (status, Some(reason)),
                    NodeState::Missing(event) => (event.status, event.reason) = (status, Some(reason)),
                }
            }
        }
    }

    /// Returns the event that is due now.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.miss();
        if let Some(event) = self.said.pop_front() {
            return Some(Event::Node(event));
        }
        if let Some(event) = self.next_row() {
            return Some(event);
        }
        std::mem::take(&mut self.beat).then(|| Event::Heartbeat {
            watermark: self.watermark().flatten(),
            is_current: self.nodes.iter().all(|node| node.time.is_some() && node.backlog == Backlog::None),
            nodes: self.nodes.iter().map(Followed::event).collect(),
            after: self.moved(),
        })
    }

    /// Marks nodes that were silent for longer than `GRACE` as missing. Stops holding back the rows of other nodes for a node
    /// that searches its backlog for too long without sending a row.
    fn miss(&mut self) {
        for node in &mut self.nodes {
            if node.backlog == Backlog::SinceStart && node.rows.is_empty() && node.heard.elapsed() >= BACKLOG_WAIT_MAX {
                node.backlog = Backlog::SinceAbsence;
            }
            if let NodeState::Silent { since, .. } = &node.state
                && since.elapsed() >= GRACE
            {
                let event = node.event();
                self.said.push_back(event.clone());
                node.state = NodeState::Missing(event);
                node.backlog = Backlog::None;
            }
        }
    }

    /// Returns the time up to which no awaited node has more rows: `Some(None)` if that is not known yet, `None` if no
    /// node is awaited.
    fn watermark(&self) -> Option<Option<Timestamp>> {
        let waited_for = self.nodes.iter().filter(|node| !matches!(node.state, NodeState::Missing(_)));
        waited_for.map(|node| node.time).min()
    }

    fn next_row(&mut self) -> Option<Event> {
        let fronts = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.rows.front()?)));
        let (index, Held { came, row, .. }) = fronts.min_by(|(_, a), (_, b)| a.row.key.cmp(&b.row.key))?;
        let late = self.last.as_ref().is_some_and(|last| row.key < *last);
        let settled = match self.watermark() {
            None => true,
            Some(time) => time.is_some_and(|time| row.key.timestamp < time),
        };
        // A node that reads its backlog may have an earlier row; `miss` bounds how long the other nodes' rows wait for it.
        let is_over = || came.elapsed() >= GRACE && self.nodes.iter().all(|node| node.backlog != Backlog::SinceStart);
        if !late && !settled && !is_over() {
            return None;
        }
        let node = &mut self.nodes[index];
        let Held { generation, row, .. } = node.rows.pop_front()?;
        let place = TailPosition::At { generation, next_seq: row.key.seq.saturating_add(1) };
        let place = if node.rows.is_empty() { node.marked.take().unwrap_or(place) } else { place };
        self.moved.insert(index, place);
        if !late {
            self.last = Some(row.key.clone());
        }
        let after = self.moved();
        Some(Event::Row { row, late, after })
    }
}

impl Followed {
    fn event(&self) -> NodeEvent {
        let (status, reason, since) = match &self.state {
            NodeState::Silent { at, status, reason, .. } => (*status, reason.clone(), *at),
            NodeState::Answering { since } => match &self.superseded {
                Some(message) => (Status::Superseded, Some(message.clone()), *since),
                None => (Status::Ok, None, *since),
            },
            NodeState::Missing(event) => return event.clone(),
        };
        NodeEvent { node_id: self.id.clone(), status, reason, since }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use piperoll_format::verify::Integrity;
    use tokio::sync::Semaphore;

    use super::*;

    fn ordering(with_backlog: bool) -> Ordering {
        let ids = ["mx1", "mx2"].map(|id| (id.parse().expect("an id"), with_backlog));
        let mut ordering = Ordering::new(ids.into_iter());
        (0..2).for_each(|node| ordering.take(News::Begun { node }));
        ordering
    }

    fn row(node: usize, micros: i64, seq: u64) -> News {
        let node_id = ["mx1", "mx2"][node].parse().expect("an id");
        let key = Key { timestamp: Timestamp::from_micros(micros), node_id, seq };
        let (body, mac, integrity) = (Bytes::new(), Bytes::new(), Integrity::Ok);
        let row = VerifiedRow {
            archived: false,
            key,
            body,
            mac,
            epoch: 0,
            integrity,
            witnessed: false,
            reason: None,
            erased: None,
            withheld: false,
        };
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room");
        News::Row { node, generation: Generation::from_bytes([1; 16]), row: Box::new(row), room }
    }

    fn mark(node: usize, micros: i64) -> News {
        let generation = Generation::from_bytes([1; 16]);
        News::Mark { node, generation, next_seq: 9, time: Timestamp::from_micros(micros) }
    }

    /// Returns the seqs of the rows that are emitted now, with an `!` for late ones.
    fn emitted(ordering: &mut Ordering) -> String {
        let mut said = String::new();
        while let Some(event) = ordering.next() {
            if let Event::Row { row, late, .. } = event {
                said += &format!("{}{}", row.key.seq, if late { "!" } else { "" });
            }
        }
        said
    }

    /// Simulates the passing of `time`.
    fn pass(ordering: &mut Ordering, time: std::time::Duration) {
        for node in &mut ordering.nodes {
            node.heard = node.heard.checked_sub(time).expect("a time");
            for held in &mut node.rows {
                held.came = held.came.checked_sub(time).expect("a time");
            }
        }
    }

    #[test]
    fn rows_of_a_backlog_wait_for_every_node() {
        let mut ordering = ordering(true);
        ordering.take(row(0, 20, 2));
        pass(&mut ordering, GRACE * 2);
        assert_eq!(emitted(&mut ordering), "", "the other node may have an earlier one");
        ordering.take(row(1, 10, 1));
        ordering.take(mark(0, 100));
        ordering.take(mark(1, 100));
        assert_eq!(emitted(&mut ordering), "12");
        assert!(!ordering.has_backlog());
    }

    /// A node that answers but sends nothing delays the rows of a backlog by `BACKLOG_WAIT_MAX`, only once, and a row of a live
    /// tail by `GRACE`.
    #[test]
    fn a_node_that_gives_nothing_holds_nobody_back_for_ever() {
        let mut behind = ordering(true);
        behind.take(row(0, 20, 2));
        behind.take(mark(0, 100));
        pass(&mut behind, BACKLOG_WAIT_MAX);
        assert_eq!(emitted(&mut behind), "2");
        behind.beat();
        let Some(Event::Heartbeat { is_current, .. }) = behind.next() else { panic!("a heartbeat") };
        assert!(!is_current, "that node has not got to its end");
        behind.take(row(1, 10, 1));
        assert_eq!(emitted(&mut behind), "1!");

        let mut live = ordering(false);
        live.take(row(0, 20, 2));
        assert_eq!(emitted(&mut live), "");
        pass(&mut live, GRACE);
        assert_eq!(emitted(&mut live), "2");
    }
}
