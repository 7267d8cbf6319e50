//! Outcome of one node while an answer is being assembled.

use std::sync::Arc;
use std::time::Instant;

use piperoll_format::ids::Generation;
use piperoll_format::order::Key;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;

use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::status::LostHere;
use crate::scan::node_reader::NodeCounters;
use crate::scan::plan::{ArchivedPart, AsideOf};
use crate::scan::proof_verifier::RangeCompleteness;

/// Outcome of one node while an answer is being assembled.
pub(crate) struct NodeOutcome {
    pub(crate) member: Arc<NodeHandle>,
    pub(crate) generation: Option<Generation>,
    pub(crate) head_seq: Option<u64>,
    pub(crate) oldest_seq: Option<u64>,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) counters: NodeCounters,
    /// Key of the last row that arrived.
    pub(crate) last: Option<Key>,
    pub(crate) took: Option<std::time::Duration>,
    /// Rows of the range that are not in any readable log.
    pub(crate) lost: Option<LostHere>,
    /// Time from which no row is missing, if rows of the range were pruned after the period that the retention policy
    /// requires.
    pub(crate) since: Option<Timestamp>,
    /// Whether rows were pruned earlier than the policy allows.
    pub(crate) early: bool,
    /// Whether the pruned rows were already compared with the policy.
    pub(crate) held: bool,
    /// The superseded log that this outcome is about; `None` for the node's current log.
    pub(crate) aside: Option<AsideOf>,
    /// Superseded logs of the node that were read in full.
    pub(crate) read: Vec<Generation>,
    /// Reasons why other superseded logs were not read in full.
    pub(crate) unread: Vec<String>,
    /// Set if this outcome is about rows that were read from the archive.
    pub(crate) archived: Option<ArchivedPart>,
    /// The archive's parts of this node's answer.
    pub(crate) from_archive: Vec<FromArchive>,
}

/// The archive's part of one node's answer.
#[derive(Debug, Clone)]
pub(crate) struct FromArchive {
    pub(super) part: ArchivedPart,
    /// Rows in the answer.
    pub(super) rows: u64,
    pub(super) status: Status,
    pub(super) reason: Option<String>,
}

impl NodeOutcome {
    pub(crate) fn unasked(member: &Arc<NodeHandle>, status: Status, reason: String) -> Self {
        Self {
            member: Arc::clone(member),
            generation: None,
            head_seq: None,
            oldest_seq: None,
            status,
            reason: Some(reason),
            counters: NodeCounters::default(),
            last: None,
            took: None,
            lost: None,
            since: None,
            early: false,
            held: false,
            aside: None,
            read: Vec::new(),
            unread: Vec::new(),
            archived: None,
            from_archive: Vec::new(),
        }
    }

    /// Returns the outcome of a node whose reading task failed, which should not happen.
    pub(crate) fn given_up(member: &Arc<NodeHandle>, error: &tokio::task::JoinError) -> Self {
        tracing::error!(%error, node = %member.node.id, "reading a node failed");
        Self::unasked(member, Status::Error, "reading the node failed; see the aggregator's log".to_owned())
    }

    pub(crate) fn asked(member: &Arc<NodeHandle>, started: Instant) -> Self {
        let mut part = Self::unasked(member, Status::Ok, String::new());
        part.reason = None;
        part.took = Some(started.elapsed());
        part
    }

    pub(crate) fn snapshot(&self) -> Self {
        Self {
            member: Arc::clone(&self.member),
            generation: self.generation,
            head_seq: self.head_seq,
            oldest_seq: self.oldest_seq,
            status: self.status,
            reason: self.reason.clone(),
            counters: self.counters.clone(),
            last: self.last.clone(),
            took: self.took,
            lost: self.lost.clone(),
            since: self.since,
            early: self.early,
            held: self.held,
            aside: self.aside,
            read: self.read.clone(),
            unread: self.unread.clone(),
            archived: self.archived.clone(),
            from_archive: self.from_archive.clone(),
        }
    }

    /// Merges the outcome of a superseded log of the same node: a node has one outcome in a statement, even if its rows
    /// are in several logs.
    pub(super) fn take_in(&mut self, earlier: &Self) {
        let Some(AsideOf { generation, whole }) = earlier.aside else { return };
        let said = |message: &str| format!("the log of generation {generation}: {message}");
        let counters = earlier.counters.clone();
        let faults = counters.faults.iter().map(|fault| said(fault)).collect();
        let proof = match counters.proof {
            RangeCompleteness::Not(message) => RangeCompleteness::Not(said(&message)),
            proof => proof,
        };
        let (more, ended) = (self.counters.more || counters.more, self.counters.ended && counters.ended);
        let (pruned, floor, start_moved) =
            (self.counters.pruned.clone(), self.counters.floor, self.counters.start_moved);
        // Each log has its own erased rows, so the counts are added.
        let erased = self.counters.erased + counters.erased;
        let both = std::mem::take(&mut self.counters).and(NodeCounters { faults, proof, ..counters });
        self.counters = NodeCounters { more, ended, pruned, floor, start_moved, erased, ..both };
        match earlier.status {
            Status::Ok if whole => self.read.push(generation),
            Status::Invalid => {
                let message = earlier.reason.as_deref().map(said);
                self.status = Status::Invalid;
                self.reason = Some([self.reason.take(), message].into_iter().flatten().collect::<Vec<_>>().join("; "));
            }
            // Record only the reason here. Which rows are lost with the log depends on the range of the query (see `within`).
            _ => self.unread.extend(earlier.reason.as_deref().map(said)),
        }
    }

    pub(super) fn missing(&self) -> bool {
        !matches!(self.status, Status::Ok | Status::Archived | Status::Excluded)
    }

    /// Returns whether the node's answer ended early. Rows that fail verification and pruned rows do not end an answer:
    /// reading continues after both.
    pub(super) fn cut_short(&self) -> bool {
        let readable = matches!(self.status, Status::Invalid | Status::Pruned | Status::Superseded);
        self.missing() && !(readable && self.counters.ended)
    }

    pub(super) fn has_gaps(&self) -> bool {
        self.missing() && !self.counters.faults.is_empty()
    }
}
