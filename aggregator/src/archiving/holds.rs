//! Holds of a node: time ranges whose rows must not be removed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use piperoll_archive::read::{LogScan, Reader, ScanRange};
use piperoll_archive::row::Content;
use piperoll_format::ids::NodeId;
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::{Hold, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_protocol::node::ScanRequest;
use piperoll_query::filter::Filter;

use crate::access::scope::Scope;
use crate::cluster::connection::Channel;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;
use crate::scan::node_reader::NodeReader;
use crate::scan::plan::NodeRequest;

/// Filter that selects the entries about holds.
const HOLDS_FILTER: &str = "action:log.hold_added,log.hold_released";

/// Time ranges of the holds that were not released.
pub(super) type HeldRanges = Vec<Range<Timestamp>>;

/// Returns the holds of a node. A node that is a member is asked: its log never loses the entry of a hold that was not released. Of a node
/// that left, the archive has all entries.
pub(super) async fn holds_of(cluster: &Cluster, reader: &Reader, node: &NodeId) -> Result<HeldRanges, String> {
    let member = cluster.members.iter().find(|member| &member.node.id == node);
    match member.filter(|member| !member.is_out_of_reach()) {
        Some(member) => live_holds(member, cluster).await,
        None => archived_holds(reader, node).await,
    }
}

async fn live_holds(member: &Arc<NodeHandle>, cluster: &Cluster) -> Result<HeldRanges, String> {
    if let Some((_, reason)) = member.circuit_open() {
        return Err(reason);
    }
    let request = ScanRequest {
        filter: HOLDS_FILTER.to_owned(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: Order::Asc,
        limit: None,
        after: None,
        from_seq: None,
        head: None,
        generation: None,
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
            Ok(None) => return Ok(holds.ranges()),
            Err(failure) => return Err(failure.reason().to_owned()),
        }
    }
}

async fn archived_holds(reader: &Reader, node: &NodeId) -> Result<HeldRanges, String> {
    let mut ranges = Vec::new();
    for (log, _) in reader.catalog().logs_of(node) {
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
        ranges.extend(holds.ranges());
    }
    Ok(ranges)
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
