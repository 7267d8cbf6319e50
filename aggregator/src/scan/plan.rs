//! Plans the requests of a query: which logs of each node are queried, or why a node is not queried.

use std::ops::Range;

use piperoll_archive::read::Reader;
use piperoll_archive::row::LogId;
use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::order::{Key, Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::archive::ArchiveVerdict;
use piperoll_protocol::node::ScanRequest;
use piperoll_query::filter::{ErasedFit, Filter};

use crate::access::scope::Scope;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::pinned::Pinned;
use crate::scan::query::Query;

/// Decision about one roster entry for a query.
pub(crate) enum NodePlan {
    /// Query the node.
    Scan(Box<NodeRequest>),
    /// Skip the node, and report why.
    Not { status: Status, reason: String },
    /// The node cannot have rows in the range, so no answer is expected from it.
    Absent,
}

/// Request for one node, and the checkpoint that its rows are verified against.
#[derive(Debug, Clone)]
pub(crate) struct NodeRequest {
    pub(crate) request: ScanRequest,
    pub(crate) pinned: Option<Pinned>,
    /// Whether only existing rows are requested, so that pruned ones do not count as missing.
    pub(crate) all_there: bool,
    /// Scope of the caller: which of the node's rows may be shown.
    pub(crate) scope: Scope,
    /// Set if the request is for a log that the node's current one replaced.
    pub(crate) aside: Option<AsideOf>,
    /// Set if the rows are read from the archive instead of the node.
    pub(crate) archived: Option<ArchivedRows>,
}

/// Rows of one log that are read from the archive.
#[derive(Debug, Clone)]
pub(crate) struct ArchivedRows {
    pub(crate) reader: Reader,
    pub(crate) log: LogId,
    pub(crate) part: ArchivedPart,
}

/// The archive's part of the answer about one log.
#[derive(Debug, Clone)]
pub(crate) struct ArchivedPart {
    /// Name of the archive, and the verdict on it.
    pub(crate) archive: String,
    pub(crate) verdict: ArchiveVerdict,
    pub(crate) step: u64,
    /// Rows that the archive is asked for: those below the log start of the node, or all archived ones.
    pub(crate) seqs: Range<u64>,
    /// Time of the last archived row of the log; `None` if there is none, or if the archive cannot be used.
    pub(crate) through: Option<Timestamp>,
    /// The first rows of `seqs` that the archive does not have.
    pub(crate) lacking: Option<Range<u64>>,
    /// Set if the archive is read instead of a node that does not answer: the time as of which the archived rows are all rows of the
    /// range, or the reason why there may be others.
    pub(crate) instead_of_node: Option<Result<Timestamp, String>>,
}

/// A log that was replaced by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AsideOf {
    pub(crate) generation: Generation,
    /// Whether the log still has all of its witnessed rows, according to the node. If so, its rows are verified against
    /// the last pinned checkpoint.
    pub(crate) whole: bool,
}

/// Plans the requests for the logs of a node, other than its current one, that may contain rows of the query's range.
pub(crate) fn ask_asides(member: &NodeHandle, query: &Query, limit: Option<u64>) -> Vec<NodeRequest> {
    if query.one_row {
        return Vec::new();
    }
    let asides = member.witness.asides_in(query.from, query.to);
    if asides.is_empty() {
        return Vec::new();
    }
    // Plan the same request, but without the position in the current log.
    let NodePlan::Scan(base) = ask(member, &Query { cursor: None, ..query.clone() }, limit) else { return Vec::new() };
    let id = &member.node.id;
    let asides = asides.into_iter().filter_map(|(generation, pinned)| {
        if query.sealed && pinned.is_none() {
            // No row of this log could be proven.
            return None;
        }
        let mut asked = NodeRequest { pinned: pinned.clone(), ..(*base).clone() };
        if query.sealed {
            asked.request.head = pinned.as_ref().map(|pinned| pinned.size - 1);
        }
        asked.request.generation = Some(generation);
        asked.request.prove = pinned.as_ref().map(|pinned| pinned.size);
        asked.aside = Some(AsideOf { generation, whole: pinned.is_some() });
        if let Some(cursor) = &query.cursor {
            let head = cursor.heads.iter().find(|head| &head.node_id == id && head.generation == generation)?;
            asked.request.head = head.head_seq;
            asked.request.after = query.after.as_ref().map(|last| position_for(last, id, query.order));
        }
        Some(asked)
    });
    asides.collect()
}

/// Plans the request for one log of a node: the current one, or one that was replaced. Returns `None` if there is no such log to
/// read.
pub(crate) fn ask_log(
    member: &NodeHandle,
    query: &Query,
    limit: Option<u64>,
    generation: Option<Generation>,
) -> Option<NodePlan> {
    let ask = ask(member, query, limit);
    let Some(generation) = generation else { return Some(ask) };
    let NodePlan::Scan(mut asked) = ask else { return Some(ask) };
    // If the node was never witnessed, its current generation is unknown until it answers.
    if asked.pinned.as_ref().is_none_or(|pinned| pinned.generation == generation) {
        asked.request.generation = Some(generation);
        return Some(NodePlan::Scan(asked));
    }
    if member.witness.presents(generation) {
        // This log is not the witnessed one. The answer reports that.
        asked.request.generation = Some(generation);
        return Some(NodePlan::Scan(asked));
    }
    let pinned = match member.witness.aside(generation) {
        Some(pinned) => pinned,
        None if let Some(reason) = member.witness.gone(generation) => {
            return Some(NodePlan::Not { status: Status::Pruned, reason });
        }
        // The log existed, and either the node has not mentioned it since this aggregator started, or it was removed.
        None if member.witness.is_past(generation) => {
            let reason = format!("the node has not reported that it can still read its log of generation {generation}");
            return Some(NodePlan::Not { status: Status::Unreachable, reason });
        }
        None => return None,
    };
    asked.request.generation = Some(generation);
    asked.request.prove = pinned.as_ref().map(|pinned| pinned.size);
    asked.aside = Some(AsideOf { generation, whole: pinned.is_some() });
    asked.pinned = pinned;
    Some(NodePlan::Scan(asked))
}

/// Plans the request for the current log of one node.
pub(crate) fn ask(member: &NodeHandle, query: &Query, limit: Option<u64>) -> NodePlan {
    let id = &member.node.id;
    if !query.filter.concerns_node(id.as_str()) {
        return NodePlan::Not { status: Status::Excluded, reason: "the filter names other nodes".to_owned() };
    }
    if member.has_left() {
        match ask_retired(member, query) {
            // The node has left, but this aggregator reads its log from the folder.
            NodePlan::Not { status: Status::Retired, .. } if member.link.is_local() => {}
            other => return other,
        }
    }
    let mut request = request_for(id, query, limit);
    let pinned = member.witness.pinned();
    request.prove = pinned.as_ref().map(|pinned| pinned.size);
    if query.sealed {
        let Some(pinned) = &pinned else {
            return NodePlan::Not {
                status: Status::Error,
                reason: "no row of its log has been witnessed yet".to_owned(),
            };
        };
        // Request only rows that a cosigned checkpoint covers; newer rows belong to the next export.
        request.head = Some(pinned.size - 1);
        request.generation = Some(pinned.generation);
    }
    if let Some(cursor) = &query.cursor {
        if let Some(lost) = cursor.incomplete.iter().find(|lost| &lost.node_id == id) {
            return NodePlan::Not {
                status: status_named(&lost.status),
                reason: format!("missing since an earlier page: {}", lost.reason),
            };
        }
        let mut mine = cursor.heads.iter().filter(|head| &head.node_id == id).peekable();
        let was_there = mine.peek().is_some();
        let present = mine.find(|head| !member.witness.is_past(head.generation));
        if was_there && present.is_none() {
            let reason = "the log that the first page was read from has been replaced".to_owned();
            return NodePlan::Not { status: Status::Superseded, reason };
        }
        let Some(head) = present else {
            return NodePlan::Not {
                status: Status::Excluded,
                reason: "joined the roster after the first page".to_owned(),
            };
        };
        request.generation = Some(head.generation);
        request.head = head.head_seq;
        if head.head_seq.is_none() {
            // The log was empty at the first page, so none of its rows are in the snapshot.
            request.to = request.from;
        }
        request.after = query.after.as_ref().map(|last| position_for(last, id, query.order));
    }
    NodePlan::Scan(Box::new(NodeRequest {
        request,
        pinned,
        all_there: query.all_there,
        scope: query.scope.clone(),
        aside: None,
        archived: None,
    }))
}

/// The request for the rows of a query, before it is limited to a log.
pub(super) fn request_for(id: &NodeId, query: &Query, limit: Option<u64>) -> ScanRequest {
    let mut request = ScanRequest {
        filter: query.filter.to_string(),
        from: query.from,
        to: query.to,
        order: query.order,
        limit,
        after: None,
        from_seq: None,
        head: None,
        generation: None,
        prove: None,
        count: query.count.clone(),
        follow: false,
    };
    let place_decides = query.filter.names_seqs() || query.filter.on_erased(id.as_str(), 0) != ErasedFit::Unknown;
    if query.scope.text().is_some() && !query.one_row && place_decides {
        // The content of an erased row is gone, so it cannot be shown that the row was within the scope.
        request.filter = query.filter.clone().and(Filter::without_erased()).to_string();
    }
    request
}

/// Plans the request for a node that left: `Absent`, unless its rows may be in the range.
fn ask_retired(member: &NodeHandle, query: &Query) -> NodePlan {
    let left = member.node.life.until;
    let missing = |why: &str| {
        let folder = member.unreadable.iter().map(|message| format!("; its folder: {message}")).collect::<String>();
        let reason =
            format!("left the cluster at {left}, and this aggregator cannot read its rows of this range{why}{folder}");
        NodePlan::Not { status: Status::Retired, reason }
    };
    if member.node.life.overlaps(query.from, query.to) {
        return missing("");
    }
    // Rows that a witness saw take precedence over the time of leaving that an operator entered.
    if let Some(message) = member.witness.saw_rows_in(query.from, query.to) {
        return missing(&format!("; {message}"));
    }
    let unseen = member.node.last_seq.zip(member.witness.witnessed_rows()).filter(|(last, rows)| last >= rows);
    match unseen {
        Some((last, rows)) if query.to > left => {
            missing(&format!("; its last row is {last}, but only {rows} rows were witnessed"))
        }
        _ => NodePlan::Absent,
    }
}

/// Converts the merge key `(timestamp, node_id, seq)` into a position in one node's log. Whether the node's rows of the same
/// microsecond come after the position depends on how the node's id compares with the id in the key.
pub(super) fn position_for(last: &Key, id: &NodeId, order: Order) -> Position {
    let seq = match id.cmp(&last.node_id) {
        std::cmp::Ordering::Equal => last.seq,
        // In ascending order, rows of the same microsecond from nodes with larger ids come after the last row.
        std::cmp::Ordering::Greater => match order {
            Order::Asc => return Position { timestamp: last.timestamp.plus_micros(-1), seq: u64::MAX >> 1 },
            Order::Desc => 0,
        },
        std::cmp::Ordering::Less => match order {
            Order::Asc => u64::MAX >> 1,
            Order::Desc => return Position { timestamp: last.timestamp.plus_micros(1), seq: 0 },
        },
    };
    Position { timestamp: last.timestamp, seq }
}

fn status_named(name: &str) -> Status {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).unwrap_or(Status::Error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Asked to continue after a position, a node returns exactly the rows that sort after the previous page's last row by merge key.
        #[test]
        fn a_position_means_the_same_as_the_merge_key(
            time in 1i64..4, node in 0u8..3, seq in 0u64..4,
            last_time in 1i64..4, last_node in 0u8..3, last_seq in 0u64..4, asc: bool,
        ) {
            let name = |n: u8| -> NodeId { format!("n{n}").parse().expect("a node id") };
            let order = if asc { Order::Asc } else { Order::Desc };
            let key = Key { timestamp: Timestamp::from_micros(time), node_id: name(node), seq };
            let last = Key { timestamp: Timestamp::from_micros(last_time), node_id: name(last_node), seq: last_seq };
            let here = Position { timestamp: key.timestamp, seq };
            let place = position_for(&last, &key.node_id, order);
            prop_assert_eq!(order.before(&place, &here), order.before(&last, &key));
        }
    }
}
