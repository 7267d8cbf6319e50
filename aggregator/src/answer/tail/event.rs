//! Events of a tail.

use std::time::Duration;

use piperoll_format::ids::NodeId;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;

use super::position::TailPosition;
use crate::scan::verified_row::VerifiedRow;

/// Maximum time that a row waits for a node that has not reported whether it has an earlier row, and maximum time that
/// a node may be silent before it is reported as missing.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Maximum time that the rows of other nodes wait for a node that searches its backlog and sends neither a row nor a
/// mark. A search for something rare in a large log may take that long.
pub(super) const BACKLOG_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes counted for an event in addition to the body of its row.
pub(super) const ROW_OVERHEAD_BYTES: usize = 512;

/// An event sent to the client of a tail.
#[derive(Debug)]
pub(crate) enum Event {
    Row {
        row: Box<VerifiedRow>,
        /// Whether a row with a larger key was emitted before this one.
        late: bool,
        /// Positions that changed since the previous event, from which the tail resumes after this row.
        after: Vec<(NodeId, TailPosition)>,
    },
    /// The state of a node changed: it stopped answering, came back, or has a fault.
    Node(NodeEvent),
    Heartbeat {
        /// Time up to which all rows of the nodes that are not missing were emitted.
        watermark: Option<Timestamp>,
        /// Whether every node has reached the end of its log since the tail began.
        is_current: bool,
        nodes: Vec<NodeEvent>,
        after: Vec<(NodeId, TailPosition)>,
    },
    /// The last event, sent when the client was too slow. The client can resume after the previous event.
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

/// State of a node in a tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEvent {
    pub(crate) node_id: NodeId,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    /// Time at which the state began, by this aggregator's clock.
    pub(crate) since: Timestamp,
}
