//! Events of a tail.

use std::time::Duration;

use piperoll_format::ids::NodeId;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;

use super::position::Place;
use crate::scan::verified_row::PlacedRow;

/// How long a row waits for a node that has not said whether it has an earlier one, and how long a node may be silent
/// before it is reported.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long the rows of other nodes wait for a node that searches its backlog and gives neither a row nor a mark: a search for something
/// rare in a large log may take that long.
pub(super) const BACKLOG_WAIT_MAX: Duration = Duration::from_secs(30);
/// What an event takes besides the bytes of its row.
pub(super) const ROW_OVERHEAD_BYTES: usize = 512;

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
        /// Every node has got to the end of its log since the tail began.
        is_current: bool,
        nodes: Vec<NodeEvent>,
        after: Vec<(NodeId, Place)>,
    },
    /// The last event: the client was too slow. It resumes after the previous event.
    Dropped,
}

impl Event {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Row { row, .. } => row.body.len() + ROW_OVERHEAD_BYTES,
            Self::Heartbeat { nodes, .. } => nodes.len() * ROW_OVERHEAD_BYTES,
            Self::Node(_) | Self::Dropped => ROW_OVERHEAD_BYTES,
        }
    }
}

/// A node as a tail sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEvent {
    pub(crate) node_id: NodeId,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    /// Since when, by this aggregator's clock.
    pub(crate) since: Timestamp,
}
