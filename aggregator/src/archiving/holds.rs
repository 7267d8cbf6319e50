//! Holds of a node: time ranges whose rows must not be removed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use piperoll_archive::read::{LogScan, Reader, ScanRange};
use piperoll_archive::row::{Content, LogId};
use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::{Hold, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::ScanRequest;
use piperoll_query::filter::Filter;

use crate::access::scope::Scope;
use crate::cluster::connection::Channel;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;
use crate::scan::node_reader::{NodeReader, conclude};
use crate::scan::plan::NodeRequest;

/// Filter that selects the entries about holds.
const HOLDS_FILTER: &str = "action:log.hold_added,log.hold_released";

/// Time ranges of the holds that were not released.
pub(super) type HeldRanges = Vec<Range<Timestamp>>;

/// Returns the holds of a node. A node that is a member is asked for those of its current log, which never loses the entry of a hold that was
/// not released; those of logs that it replaced are in the archive as well. Of a node that left, all of them are.
pub(super) async fn holds_of(cluster: &Cluster, reader: &Reader, node: &NodeId) -> Result<HeldRanges, String> {
    let member = cluster.members.iter().find(|member| &member.node.id == node);
    let member = member.ok_or("it is not in the roster")?;
    if member.is_out_of_reach() {
        return archived_holds(reader, member, None).await;
    }
    let (current, mut ranges) = live_holds(member, cluster, None).await?;
    // Entries about a replaced log may have been recorded in it after it was archived.
    for (generation, _) in member.witness.asides_in(Timestamp::MIN, Timestamp::MAX) {
        ranges.extend(live_holds(member, cluster, Some(generation)).await?.1);
    }
    ranges.extend(archived_holds(reader, member, Some(current)).await?);
    Ok(ranges)
}

/// Asks a node for the holds in one of its logs; returns the generation of that log, too.
async fn live_holds(
    member: &Arc<NodeHandle>,
    cluster: &Cluster,
    generation: Option<Generation>,
) -> Result<(Generation, HeldRanges), String> {
    if let Some((_, reason)) = member.circuit_open() {
        return Err(reason);
    }
    if let Some(alarm) = member.alarm() {
        return Err(alarm);
    }
    let pinned = member.witness.pinned().filter(|_| generation.is_none());
    let request = ScanRequest {
        filter: HOLDS_FILTER.to_owned(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: Order::Asc,
        limit: None,
        after: None,
        from_seq: None,
        head: None,
        generation,
        prove: None,
        count: None,
        follow: false,
    };
    let asked =
        NodeRequest { request, pinned: None, all_there: true, scope: Scope::default(), aside: None, archived: None };
    let opened = NodeReader::open(member, &asked, &cluster.limits, Channel::Own).await;
    let mut reader = opened.map_err(|failure| failure.reason().to_owned())?;
    let mut holds = Holds::default();
    loop {
        match reader.next().await {
            Ok(Some(row)) if row.integrity == Integrity::Ok => holds.note(row.key.seq, &row.body),
            Ok(Some(row)) => return Err(format!("row {} fails verification", row.key.seq)),
            Ok(None) => break,
            Err(failure) => return Err(failure.reason().to_owned()),
        }
    }
    // A prune keeps the entries of holds.
    if let (status, Some(reason)) = conclude(&reader.counters, true, None)
        && !matches!(status, Status::Ok | Status::Pruned)
    {
        return Err(reason);
    }
    let head = &reader.head;
    let rows = head.head_seq.map_or(0, |head| head.saturating_add(1));
    if pinned.is_some_and(|pinned| pinned.generation != head.generation || rows < pinned.size) {
        return Err("it has another log than the one that was witnessed".to_owned());
    }
    Ok((head.generation, holds.ranges()))
}

/// Holds in the archived logs of a node, except its current one.
async fn archived_holds(
    reader: &Reader,
    member: &NodeHandle,
    current: Option<Generation>,
) -> Result<HeldRanges, String> {
    let mut ranges = Vec::new();
    if current.is_none() {
        check_is_archived(reader, member)?;
    }
    let logs = reader.catalog().logs_of(&member.node.id).filter(|(log, _)| Some(log.generation) != current);
    for (log, _) in logs {
        let range = ScanRange {
            log: log.clone(),
            begin: Position { timestamp: Timestamp::MIN, seq: 0 },
            end: Position { timestamp: Timestamp::MAX, seq: u64::MAX },
            order: Order::Asc,
            rows: 0..u64::MAX,
            filter: Arc::new(Filter::parse_stored(HOLDS_FILTER, Timestamp::MIN).map_err(|error| error.to_string())?),
            erased: Arc::default(),
        };
        let Some(mut scan) = LogScan::new(reader.clone(), range) else { continue };
        let mut holds = Holds::default();
        while let Some(row) = scan.next().await.map_err(|error| error.to_string())? {
            if let Content::Entry { body, .. } = &row.content {
                holds.note(row.seq, body);
            }
        }
        let of_log = holds.ranges();
        if current.is_none() && !of_log.is_empty() {
            // The entries of these holds must stay as well, so nothing of the node is removed.
            return Ok(vec![Timestamp::MIN..Timestamp::MAX]);
        }
        ranges.extend(of_log);
    }
    Ok(ranges)
}

/// The last rows of a node that left may have set a hold, so all witnessed ones must be archived.
fn check_is_archived(reader: &Reader, member: &NodeHandle) -> Result<(), String> {
    let Some(pinned) = member.witness.pinned() else { return Err("its log was never witnessed".to_owned()) };
    let log = LogId { node_id: member.node.id.clone(), generation: pinned.generation };
    let ranges = reader.catalog().log(&log).map(|log| log.ranges()).unwrap_or_default();
    let archived_to = ranges.last().map_or(0, |range| range.to_seq);
    if ranges.len() > 1 || archived_to < pinned.size {
        return Err("it left the cluster, and the archive does not have all of its rows".to_owned());
    }
    Ok(())
}

/// Entries about holds, by seq: rows of several eras arrive in the order of their times.
#[derive(Default)]
struct Holds(BTreeMap<u64, Statement>);

impl Holds {
    fn note(&mut self, seq: u64, body: &[u8]) {
        self.0.extend(Statement::read(body).map(|statement| (seq, statement)));
    }

    fn ranges(self) -> HeldRanges {
        let mut active: BTreeMap<String, Hold> = BTreeMap::new();
        for statement in self.0.into_values() {
            match statement {
                Statement::HoldAdded(hold) => drop(active.insert(hold.name.clone(), hold)),
                Statement::HoldReleased(release) => drop(active.remove(&release.name)),
                _ => {}
            }
        }
        active.into_values().map(|hold| hold.from..hold.to).collect()
    }
}
