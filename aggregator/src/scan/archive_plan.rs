//! Plans which rows of a node are read from the archive: those that the node has pruned, all of them if the node does not answer, and
//! those of logs that the node no longer has.

use std::ops::Range;

use piperoll_archive::read::{CatalogLog, Reader};
use piperoll_archive::row::LogId;
use piperoll_format::ids::Generation;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::ScanRequest;

use crate::cluster::archive::ClusterArchive;
use crate::cluster::node_handle::NodeHandle;
use crate::scan::plan::{ArchivedPart, ArchivedRows, AsideOf, NodeRequest, position_for, request_for};
use crate::scan::query::Query;

/// Outcome of the requests to the node itself.
pub(crate) struct LivePart {
    pub(crate) status: Status,
    /// Generation of the log that answered; `None` if none did.
    pub(crate) generation: Option<Generation>,
    /// First retained row, if the range may reach back to pruned rows.
    pub(crate) log_start: Option<u64>,
    /// Generations of superseded logs that the node was asked for.
    pub(crate) asides: Vec<Generation>,
}

/// Decision about the archive's part of one log.
pub(crate) enum ArchivePlan {
    Read(Box<NodeRequest>),
    /// Rows of the log are needed from the archive, but it cannot be used.
    Not {
        part: ArchivedPart,
        aside: Option<AsideOf>,
        reason: String,
    },
}

/// Plans the reads from the archive for one node.
pub(crate) fn ask_archive(
    archive: &ClusterArchive,
    member: &NodeHandle,
    query: &Query,
    limit: Option<u64>,
    live: &LivePart,
) -> Vec<ArchivePlan> {
    let silent = matches!(live.status, Status::Unreachable | Status::Timeout | Status::Error | Status::Retired);
    let needs_current = match live.generation {
        Some(_) => live.log_start.is_some(),
        None => silent,
    };
    if query.sealed || query.all_there || (live.generation.is_none() && !silent) {
        return Vec::new();
    }
    let planner = Planner { archive, member, query, limit };
    let current = live.generation.or_else(|| member.witness.pinned().map(|pinned| pinned.generation));
    let mut plans = Vec::new();
    let reader = match archive.reader() {
        Ok(reader) => reader,
        Err(reason) => {
            // For a node that does not answer, it is not known whether the archive has its rows.
            if needs_current && live.generation.is_some() {
                plans.push(ArchivePlan::Not { part: planner.unusable(), aside: None, reason });
            }
            return plans;
        }
    };
    if let Some(generation) = current.filter(|_| needs_current) {
        plans.extend(planner.current(&reader, generation, live.log_start));
    }
    for (log, archived) in reader.catalog().logs_of(&member.node.id) {
        let known = Some(log.generation) == current || live.asides.contains(&log.generation);
        if !known && archived.touches(query.from, query.to) {
            plans.extend(planner.superseded(&reader, log, archived));
        }
    }
    plans
}

/// Plans the read of one row, if the archive has it. Without a generation, the row is one of the witnessed log.
pub(crate) fn ask_archive_row(
    archive: &ClusterArchive,
    member: &NodeHandle,
    query: &Query,
    generation: Option<Generation>,
    seq: u64,
) -> Option<NodeRequest> {
    let reader = archive.reader().ok()?;
    let generation = generation.or_else(|| member.witness.pinned().map(|pinned| pinned.generation))?;
    let log = LogId { node_id: member.node.id.clone(), generation };
    let archived = reader.catalog().log(&log)?;
    archived.range_of(seq)?;
    let planner = Planner { archive, member, query, limit: Some(1) };
    let part = ArchivedPart { seqs: seq..seq.saturating_add(1), ..planner.part(archived) };
    match planner.read(&reader, log, part, planner.request(generation)?, None) {
        ArchivePlan::Read(asked) => Some(*asked),
        ArchivePlan::Not { .. } => None,
    }
}

struct Planner<'a> {
    archive: &'a ClusterArchive,
    member: &'a NodeHandle,
    query: &'a Query,
    limit: Option<u64>,
}

impl Planner<'_> {
    fn unusable(&self) -> ArchivedPart {
        let (verdict, _, step) = self.archive.standing();
        let archive = self.archive.name();
        ArchivedPart { archive, verdict, step, seqs: 0..0, through: None, lacking: None, instead_of_node: None }
    }

    /// The current log: rows below the log start, or all archived rows if the node does not answer.
    fn current(&self, reader: &Reader, generation: Generation, log_start: Option<u64>) -> Option<ArchivePlan> {
        let log = LogId { node_id: self.member.node.id.clone(), generation };
        let Some(archived) = reader.catalog().log(&log) else {
            let reason = "the archive has no rows of this log".to_owned();
            return log_start.map(|_| ArchivePlan::Not { part: self.unusable(), aside: None, reason });
        };
        let request = self.request(generation)?;
        let to_seq = archived.ranges().last().map_or(0, |range| range.to_seq);
        let part = match log_start {
            Some(start) => ArchivedPart { seqs: 0..start, lacking: lacking(archived, 0..start), ..self.part(archived) },
            None if !archived.touches(self.query.from, self.query.to) => return None,
            None => {
                let lacking = lacking(archived, 0..to_seq);
                let instead_of_node = Some(self.instead_of_node(archived, generation, lacking.as_ref()));
                ArchivedPart { seqs: 0..to_seq, lacking, instead_of_node, ..self.part(archived) }
            }
        };
        Some(self.read(reader, log, part, request, None))
    }

    /// A log that the current one replaced and that the node can no longer read.
    fn superseded(&self, reader: &Reader, log: &LogId, archived: &CatalogLog) -> Option<ArchivePlan> {
        let request = self.request(log.generation)?;
        let to_seq = archived.ranges().last().map_or(0, |range| range.to_seq);
        let lacking = lacking(archived, 0..to_seq);
        let witnessed = self.member.witness.witnessed_size(log.generation);
        let whole = lacking.is_none() && witnessed.is_some_and(|witnessed| witnessed <= to_seq);
        let part = ArchivedPart { seqs: 0..to_seq, lacking, ..self.part(archived) };
        let aside = AsideOf { generation: log.generation, whole };
        Some(self.read(reader, log.clone(), part, request, Some(aside)))
    }

    fn part(&self, archived: &CatalogLog) -> ArchivedPart {
        ArchivedPart { through: archived.ranges().last().map(|range| range.last), ..self.unusable() }
    }

    fn read(
        &self,
        reader: &Reader,
        log: LogId,
        part: ArchivedPart,
        request: ScanRequest,
        aside: Option<AsideOf>,
    ) -> ArchivePlan {
        let archived = Some(ArchivedRows { reader: reader.clone(), log, part });
        let (scope, all_there) = (self.query.scope.clone(), self.query.all_there);
        ArchivePlan::Read(Box::new(NodeRequest { request, pinned: None, all_there, scope, aside, archived }))
    }

    /// The request for a log, within the snapshot of the first page; `None` if the log is not in that snapshot.
    fn request(&self, generation: Generation) -> Option<ScanRequest> {
        let (id, query) = (&self.member.node.id, self.query);
        let mut request = request_for(id, query, self.limit);
        request.generation = Some(generation);
        // The aggregator counts archived rows itself.
        request.count = None;
        if let Some(cursor) = &query.cursor {
            if cursor.without_archive.contains(id) {
                return None;
            }
            let head = cursor.heads.iter().find(|head| &head.node_id == id && head.generation == generation)?;
            request.head = Some(head.head_seq?);
            request.after = query.after.as_ref().map(|last| position_for(last, id, query.order));
        }
        Some(request)
    }

    /// Whether the archived rows of the range are all rows of the range that were witnessed.
    fn instead_of_node(
        &self,
        archived: &CatalogLog,
        generation: Generation,
        lacking: Option<&Range<u64>>,
    ) -> Result<Timestamp, String> {
        if let Some(lacking) = lacking {
            return Err(format!("rows {} to {} are not in the archive", lacking.start, lacking.end - 1));
        }
        let unknown = || "its witnessed checkpoint is not known".to_owned();
        let pinned = self.member.witness.pinned().filter(|pinned| pinned.generation == generation);
        let (pinned, range) = pinned.zip(archived.ranges().last()).ok_or_else(unknown)?;
        let as_of = pinned.seen;
        if pinned.size <= range.to_seq {
            let is_last =
                self.member.has_left() && self.member.node.last_seq.is_some_and(|last_seq| last_seq < range.to_seq);
            let why = || format!("it was last witnessed at {as_of}, and may have recorded entries since then");
            return if is_last || self.query.to <= as_of { Ok(as_of) } else { Err(why()) };
        }
        // Times never decrease within an era.
        let edge = self.member.witness.edge().filter(|edge| edge.size == pinned.size);
        let is_after = edge.is_some_and(|edge| edge.era == range.era && self.query.to <= range.last);
        let (from, last) = (range.to_seq, pinned.size - 1);
        if is_after { Ok(as_of) } else { Err(format!("rows {from} to {last} were witnessed and are not archived")) }
    }
}

/// The first rows of a range that are not archived.
fn lacking(archived: &CatalogLog, rows: Range<u64>) -> Option<Range<u64>> {
    let mut next = rows.start;
    for range in archived.ranges() {
        if range.from_seq > next {
            return Some(next..range.from_seq.min(rows.end));
        }
        next = next.max(range.to_seq);
        if next >= rows.end {
            return None;
        }
    }
    (next < rows.end).then_some(next..rows.end)
}
