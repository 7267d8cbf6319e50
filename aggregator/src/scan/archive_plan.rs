//! Plans which rows of a node are read from the archive: those that the node has pruned, all of them if the node does not answer, and
//! those of logs that the node no longer has.

use std::ops::Range;
use std::time::Duration;

use piperoll_archive::read::{CatalogLog, Reader};
use piperoll_archive::row::LogId;
use piperoll_format::cursor::Incomplete;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::encode_hash;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::ScanRequest;

use crate::cluster::archive::ClusterArchive;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::archived::ReplacedRows;
use crate::scan::plan::{ArchivedPart, ArchivedRows, AsideOf, NodeRequest, position_for, request_for};
use crate::scan::query::Query;

/// Longest time between the signature of a checkpoint and the request that returns it: a node signs at most once a second.
const SIGNED_BEFORE_MAX: Duration = Duration::from_secs(1);

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
    let silent = matches!(live.status, Status::Unreachable | Status::Timeout | Status::Retired);
    let needs_current = match live.generation {
        Some(_) => live.log_start.is_some(),
        None => silent,
    };
    if query.all_there || (live.generation.is_none() && !silent) {
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
                plans.push(ArchivePlan::Not { part: planner.unusable(), reason });
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

/// Plans the read of one row, if the archive has it. Without a generation, the row is one of the witnessed log. `is_live` tells whether the
/// node answered from this log.
pub(crate) fn ask_archive_row(
    archive: &ClusterArchive,
    member: &NodeHandle,
    query: &Query,
    generation: Option<Generation>,
    seq: u64,
    is_live: bool,
) -> Option<NodeRequest> {
    let reader = archive.reader().ok()?;
    let generation = generation.or_else(|| member.witness.pinned().map(|pinned| pinned.generation))?;
    let log = LogId { node_id: member.node.id.clone(), generation };
    let archived = reader.catalog().log(&log)?;
    archived.range_of(seq)?;
    if member.witness.common_rows(generation).is_some_and(|common| seq >= common) {
        return None;
    }
    let planner = Planner { archive, member, query, limit: Some(1) };
    let instead_of_node = (!is_live).then(|| Err("only one row was requested".to_owned()));
    let part = ArchivedPart { seqs: seq..seq.saturating_add(1), instead_of_node, ..planner.part(archived) };
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
        let (verdict, step) = self.archive.standing();
        let archive = self.archive.name();
        ArchivedPart { archive, verdict, step, seqs: 0..0, through: None, lacking: None, instead_of_node: None }
    }

    /// The current log: rows below the log start, or all archived rows if the node does not answer.
    fn current(&self, reader: &Reader, generation: Generation, log_start: Option<u64>) -> Option<ArchivePlan> {
        let log = LogId { node_id: self.member.node.id.clone(), generation };
        let Some(archived) = reader.catalog().log(&log) else {
            let reason = "the archive has no rows of this log".to_owned();
            return log_start.map(|_| ArchivePlan::Not { part: self.unusable(), reason });
        };
        let request = self.request(generation)?;
        let to_seq = archived.ranges().last().map_or(0, |range| range.to_seq);
        // Later archived rows are those of a log that was replaced by a copy of its beginning.
        let common = self.member.witness.common_rows(generation).unwrap_or(u64::MAX);
        let part = match log_start {
            Some(start) => {
                let lacking = self.lacking(archived, start.min(common));
                let lacking = lacking.or((common < start).then_some(common..start));
                ArchivedPart { seqs: 0..start.min(common), lacking, ..self.part(archived) }
            }
            None => {
                let lacking = self.lacking(archived, to_seq.min(common));
                let instead_of_node = match to_seq > common {
                    true => Err(format!("rows from {common} on are those of a log that was replaced")),
                    false => self.instead_of_node(archived, generation, lacking.as_ref(), request.head),
                };
                // Without rows in the range, the archive matters only if it shows that the node has none either.
                if instead_of_node.is_err() && !archived.touches(self.query.from, self.query.to) {
                    return None;
                }
                let instead_of_node = Some(instead_of_node);
                ArchivedPart { seqs: 0..to_seq.min(common), lacking, instead_of_node, ..self.part(archived) }
            }
        };
        Some(self.read(reader, log, part, request, None))
    }

    /// A log that the current one replaced and that the node can no longer read.
    fn superseded(&self, reader: &Reader, log: &LogId, archived: &CatalogLog) -> Option<ArchivePlan> {
        let request = self.request(log.generation)?;
        let common = self.member.witness.common_rows(log.generation).unwrap_or(u64::MAX);
        let archived_to = archived.ranges().last().map_or(0, |range| range.to_seq);
        let to_seq = archived_to.min(common);
        let lacking = self.lacking(archived, to_seq);
        let rows = self.member.witness.rows_of_replaced(log.generation);
        // Rows that were recorded after the log was last witnessed are not known, unless its successor states how many it had.
        let is_all = |rows: &ReplacedRows| match rows.stated {
            Some(stated) => stated <= to_seq,
            None => rows.witnessed <= to_seq && self.query.to <= rows.seen,
        };
        let whole = lacking.is_none() && archived_to <= common && rows.as_ref().is_some_and(is_all);
        let why = rows.map_or_else(
            || "it is not known how many rows it had".to_owned(),
            |rows| {
                format!(
                    "its rows are from {}, and rows that it recorded after {} may be missing",
                    self.archive.name(),
                    rows.seen
                )
            },
        );
        let instead_of_node = (!whole).then_some(Err(why));
        let part = ArchivedPart { seqs: 0..to_seq, lacking, instead_of_node, ..self.part(archived) };
        let aside = AsideOf { generation: log.generation, whole };
        Some(self.read(reader, log.clone(), part, request, Some(aside)))
    }

    /// The first rows below `end` that are not archived and may be in the range. A log that was pruned before it was archived begins
    /// later; in its first era, no time decreases, so the rows before the first archived one are not newer than that one.
    fn lacking(&self, archived: &CatalogLog, end: u64) -> Option<Range<u64>> {
        let begin = archived.ranges().first().map_or(0, |range| range.from_seq);
        let is_older = archived.first().is_some_and(|(era, first)| era == 0 && first < self.query.from)
            || archived.removed_newest().is_some_and(|newest| newest < self.query.from);
        lacking(archived, if is_older { begin.min(end)..end } else { 0..end })
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
        head: Option<u64>,
    ) -> Result<Timestamp, String> {
        let is_lost = |lost: &Incomplete| lost.node_id == self.member.node.id;
        if self.query.cursor.as_ref().is_some_and(|cursor| cursor.incomplete.iter().any(is_lost)) {
            return Err("rows are missing since an earlier page".to_owned());
        }
        if let Some(lacking) = lacking {
            return Err(format!("rows {} to {} are not in the archive", lacking.start, lacking.end - 1));
        }
        let unknown = || "its witnessed checkpoint is not known".to_owned();
        let pinned = self.member.witness.pinned().filter(|pinned| pinned.generation == generation);
        let (pinned, range) = pinned.zip(archived.ranges().last()).ok_or_else(unknown)?;
        // A node may have signed the checkpoint a moment before it was requested.
        let as_of = pinned.seen.minus(SIGNED_BEFORE_MAX);
        if let Some(head) = head.filter(|head| *head >= range.to_seq) {
            return Err(format!("rows {} to {head} were recorded and are not archived", range.to_seq));
        }
        if pinned.size <= range.to_seq {
            let is_last =
                self.member.has_left() && self.member.node.last_seq.is_some_and(|last_seq| last_seq < range.to_seq);
            let why = || format!("it was last witnessed at {as_of}, and may have recorded entries since then");
            return if is_last || self.query.to <= as_of { Ok(as_of) } else { Err(why()) };
        }
        // Times never decrease within an era.
        let root = encode_hash(&pinned.root);
        let edge = self.member.witness.edge().filter(|edge| edge.size == pinned.size && edge.root == root);
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
