//! Which row comes next, and what is said about the nodes in between. Decides; waits for nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use piperoll_shared::api::aggregator::Status;
use piperoll_shared::log::ids::{Generation, NodeId};
use piperoll_shared::log::order::Key;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::net::clock::{Clock as _, SystemClock};

use super::follow::News;
use super::position::Place;
use super::{Event, GRACE, NodeEvent};
use crate::placed::PlacedRow;

/// Rows that wait for their turn, of all nodes. Beyond it they go out as if their grace were over.
const HELD_MAX: usize = 10_000;
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One node's rows that were not handed out yet, in its own order.
struct Followed {
    id: NodeId,
    rows: VecDeque<(Instant, Generation, Box<PlacedRow>)>,
    /// Nothing earlier comes any more.
    time: Option<Timestamp>,
    /// Where the node is once its rows are handed out.
    marked: Option<Place>,
    state: State,
}

enum State {
    /// Not heard of yet, or again not, since then.
    Silent {
        since: Instant,
        at: Timestamp,
        status: Status,
        reason: Option<String>,
    },
    Answering {
        since: Timestamp,
    },
    /// It was reported; nobody waits for it.
    Missing(NodeEvent),
}

pub(super) struct Ordering {
    nodes: Vec<Followed>,
    held: usize,
    last: Option<Key>,
    held_bytes: usize,
    /// Where nodes are gone on with, as far as no event has said it yet: by their number here.
    moved: BTreeMap<usize, Place>,
    /// Said before the next row.
    said: VecDeque<NodeEvent>,
    beat: bool,
}

impl Ordering {
    pub(super) fn new(ids: impl Iterator<Item = NodeId>) -> Self {
        let (now, at) = (Instant::now(), SystemClock.now());
        let silent =
            || State::Silent { since: now, at, status: Status::Timeout, reason: Some("no answer yet".to_owned()) };
        let nodes: Vec<Followed> =
            ids.map(|id| Followed { id, rows: VecDeque::new(), time: None, marked: None, state: silent() }).collect();
        Self { nodes, held: 0, held_bytes: 0, last: None, moved: BTreeMap::new(), said: VecDeque::new(), beat: false }
    }

    /// What no event has said yet.
    fn moved(&mut self) -> Vec<(NodeId, Place)> {
        let moved = std::mem::take(&mut self.moved);
        moved.into_iter().map(|(index, place)| (self.nodes[index].id.clone(), place)).collect()
    }

    /// The next event is a heartbeat.
    pub(super) fn beat(&mut self) {
        self.beat = true;
    }

    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Begun { node } => {
                let node = &mut self.nodes[node];
                let since = SystemClock.now();
                if let State::Missing(_) = &node.state {
                    let reason = Some("it answers again".to_owned());
                    self.said.push_back(NodeEvent { node_id: node.id.clone(), status: Status::Ok, reason, since });
                }
                node.state = State::Answering { since };
            }
            News::Row { node, generation, row } => {
                let node = &mut self.nodes[node];
                node.time = node.time.max(Some(row.key.timestamp));
                self.held_bytes += row.body.len();
                node.rows.push_back((Instant::now(), generation, row));
                self.held += 1;
            }
            News::Mark { node: index, generation, next_seq, time } => {
                let node = &mut self.nodes[index];
                node.time = node.time.max(Some(time));
                let place = Place::At { generation, next_seq };
                if node.rows.is_empty() {
                    self.moved.insert(index, place);
                } else {
                    node.marked = Some(place);
                }
            }
            News::Fault { node, words } => {
                let (node_id, since) = (self.nodes[node].id.clone(), SystemClock.now());
                self.said.push_back(NodeEvent { node_id, status: Status::Invalid, reason: Some(words), since });
            }
            News::Lost { node, status, reason } => {
                let node = &mut self.nodes[node];
                match &mut node.state {
                    State::Answering { .. } => {
                        let (since, at) = (Instant::now(), SystemClock.now());
                        node.state = State::Silent { since, at, status, reason: Some(reason) };
                    }
                    State::Silent { status: known, reason: why, .. } => (*known, *why) = (status, Some(reason)),
                    State::Missing(event) => (event.status, event.reason) = (status, Some(reason)),
                }
            }
        }
    }

    /// What is to be handed out now.
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
            nodes: self.nodes.iter().map(Followed::event).collect(),
            after: self.moved(),
        })
    }

    /// Whoever was silent for longer than the grace is missing from now on.
    fn miss(&mut self) {
        for node in &mut self.nodes {
            if let State::Silent { since, .. } = &node.state
                && since.elapsed() >= GRACE
            {
                let event = node.event();
                self.said.push_back(event.clone());
                node.state = State::Missing(event);
            }
        }
    }

    /// The time up to which no node that is waited for has more to say: `Some(None)` when that is not known yet, `None` when
    /// nobody is waited for.
    fn watermark(&self) -> Option<Option<Timestamp>> {
        let waited_for = self.nodes.iter().filter(|node| !matches!(node.state, State::Missing(_)));
        waited_for.map(|node| node.time).min()
    }

    fn next_row(&mut self) -> Option<Event> {
        let fronts = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.rows.front()?)));
        let (index, (came, _, row)) = fronts.min_by(|(_, (_, _, a)), (_, (_, _, b))| a.key.cmp(&b.key))?;
        let late = self.last.as_ref().is_some_and(|last| row.key < *last);
        let settled = match self.watermark() {
            None => true,
            Some(time) => time.is_some_and(|time| row.key.timestamp < time),
        };
        if !late && !settled && came.elapsed() < GRACE && self.held <= HELD_MAX && self.held_bytes <= HELD_BYTES_MAX {
            return None;
        }
        let node = &mut self.nodes[index];
        let (_, generation, row) = node.rows.pop_front()?;
        self.held -= 1;
        self.held_bytes = self.held_bytes.saturating_sub(row.body.len());
        let place = Place::At { generation, next_seq: row.key.seq.saturating_add(1) };
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
            State::Silent { at, status, reason, .. } => (*status, reason.clone(), *at),
            State::Answering { since } => (Status::Ok, None, *since),
            State::Missing(event) => return event.clone(),
        };
        NodeEvent { node_id: self.id.clone(), status, reason, since }
    }
}
