//! The archive's parts of an answer.

use std::sync::Arc;

use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::{ArchiveReport, ArchivedReport, Status};

use crate::answer::outcome::{FromArchive, NodeOutcome};
use crate::cluster::archive::ClusterArchive;
use crate::cluster::node_handle::NodeHandle;
use crate::scan::archive_plan::{ArchivePlan, LivePart, ask_archive};
use crate::scan::node_reader::NodeCounters;
use crate::scan::plan::ArchivedPart;
use crate::scan::proof_verifier::RangeCompleteness;
use crate::scan::query::Query;

impl NodeOutcome {
    /// The outcome of rows that are needed from an archive that cannot be used.
    pub(super) fn without_archive(member: &Arc<NodeHandle>, part: ArchivedPart, reason: String) -> Self {
        Self { archived: Some(part), ..Self::unasked(member, Status::Unreachable, reason) }
    }

    /// Whether this outcome is about rows that the archive adds to a log that the node answered from.
    pub(super) fn adds_to_live_log(&self) -> bool {
        self.aside.is_none() && self.archived.as_ref().is_some_and(|part| part.instead_of_node.is_none())
    }

    /// Records that the one row of the answer was read from the archive.
    pub(super) fn note_archive(&mut self, part: ArchivedPart) {
        let (rows, status, reason) = (self.counters.rows, self.status, self.reason.clone());
        self.from_archive.push(FromArchive { part, rows, status, reason });
    }

    /// Merges the outcome of the archive's part of the node's current log, or of a superseded one.
    pub(super) fn take_archived(&mut self, other: &Self) {
        let Some(part) = &other.archived else { return };
        self.from_archive.push(FromArchive {
            part: part.clone(),
            rows: other.counters.rows,
            status: other.status,
            reason: other.reason.clone(),
        });
        if let Some(aside) = other.aside {
            self.take_in(other);
            if let (Status::Ok, false, Some(Err(why))) = (other.status, aside.whole, &part.instead_of_node) {
                self.unread.push(format!("the log of generation {}: {why}", aside.generation));
            }
            return;
        }
        let is_read = other.status == Status::Ok;
        let retained_whole = self.counters.retained_whole;
        let live = std::mem::take(&mut self.counters);
        let archived = other.counters.clone();
        let (more, erased) = (live.more || archived.more, live.erased + archived.erased);
        let (live_proof, archived_proof) = (live.proof.clone(), archived.proof.clone());
        let (pruned, floor, ended, start_moved) = (live.pruned.clone(), live.floor, live.ended, live.start_moved);
        self.counters =
            NodeCounters { more, erased, pruned, floor, ended, retained_whole, start_moved, ..live.and(archived) };
        self.counters.proof = live_proof;
        match &part.instead_of_node {
            Some(instead_of_node) => {
                self.generation = other.generation;
                self.head_seq = other.head_seq;
                self.take_instead(part, instead_of_node, is_read, archived_proof);
            }
            None if is_read => self.take_older(part, retained_whole, archived_proof),
            None => {
                let why = other.reason.clone().unwrap_or_default();
                self.add_reason(&format!("{}: {why}", part.archive));
                if other.status == Status::Invalid && matches!(self.status, Status::Ok | Status::Pruned) {
                    self.status = Status::Invalid;
                }
                if other.counters.rows > 0 {
                    // The rows of the archive ended early, so nothing is known after the last of them.
                    self.counters.ended = false;
                    self.last = other.last.clone();
                }
            }
        }
    }

    /// Takes over the archive's outcome for a node that does not answer: the archive has all rows of the range, or some of them.
    fn take_instead(
        &mut self,
        part: &ArchivedPart,
        instead_of_node: &Result<Timestamp, String>,
        is_read: bool,
        proof: RangeCompleteness,
    ) {
        match instead_of_node {
            Ok(as_of) if is_read => {
                self.status = Status::Archived;
                if let Some(alarm) = self.member.alarm() {
                    // The archived rows are those that were witnessed, but the finding against the node stays.
                    self.status = Status::Invalid;
                    self.add_reason(&alarm);
                }
                self.add_reason(&format!("answered from {}, as of {as_of}", part.archive));
                self.counters.proof = proof;
                self.counters.ended = true;
            }
            Ok(_) => self.add_reason(&format!("{} cannot be read in full", part.archive)),
            Err(why) => {
                let through = part.through.map(|time| format!(" up to {time}")).unwrap_or_default();
                self.add_reason(&format!("its rows{through} are from {}, but {why}", part.archive));
            }
        }
    }

    /// Adds the archive's outcome about the rows that the node pruned.
    fn take_older(&mut self, part: &ArchivedPart, retained_whole: bool, proof: RangeCompleteness) {
        if let Some(lacking) = &part.lacking {
            let (from, last) = (lacking.start, lacking.end.saturating_sub(1));
            self.add_reason(&format!("rows {from} to {last} are not in {} either", part.archive));
            return;
        }
        if self.counters.start_moved || self.counters.floor != Some(part.seqs.end) {
            self.add_reason("its log start moved while it was read; repeat the query");
            return;
        }
        // Rows that fail verification are worse than pruned ones, so that status stays.
        if self.status == Status::Pruned {
            self.status = Status::Ok;
            self.reason = None;
        }
        self.counters.pruned = None;
        self.counters.floor = None;
        self.counters.proof = match (proof, &self.counters.proof) {
            (RangeCompleteness::Whole, RangeCompleteness::Whole) => RangeCompleteness::Whole,
            (RangeCompleteness::Whole, _) if retained_whole => RangeCompleteness::Whole,
            (RangeCompleteness::Whole, RangeCompleteness::Since(_)) => RangeCompleteness::Not(
                "the node has not shown that it returned all rows from its log start on".to_owned(),
            ),
            (RangeCompleteness::Whole, live) => live.clone(),
            (archived, _) => archived,
        };
    }

    fn add_reason(&mut self, message: &str) {
        let known = self.reason.take().map(|reason| format!("{reason}; ")).unwrap_or_default();
        self.reason = Some(format!("{known}{message}"));
    }

    /// Time as of which the archive was read instead of the node.
    fn as_of(&self) -> Option<Timestamp> {
        let current = self.from_archive.iter().filter(|_| self.status == Status::Archived);
        current.filter_map(|from| from.part.instead_of_node.clone()?.ok()).min()
    }

    /// Report about the archive's parts of this node's answer.
    pub(super) fn archived_report(&self) -> Option<ArchivedReport> {
        let first = self.from_archive.first()?;
        Some(ArchivedReport {
            archive: first.part.archive.clone(),
            rows: self.from_archive.iter().map(|from| from.rows).sum(),
            archived_through: self
                .from_archive
                .iter()
                .filter_map(|from| from.part.through)
                .max()
                .map(Timestamp::to_text),
            as_of: self.as_of().map(Timestamp::to_text),
        })
    }
}

/// Groups items by the node that their outcome is about.
pub(super) fn by_member<T>(all: Vec<T>, part: impl Fn(&T) -> &NodeOutcome) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    for one in all {
        let id = &part(&one).member.node.id;
        match groups.last_mut().filter(|group| group.first().is_some_and(|first| &part(first).member.node.id == id)) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    groups
}

/// Plans which rows of a node are read from the archive. `parts` are the outcomes of the node's logs; its current log comes first.
pub(super) fn needed_from_archive(
    archive: Option<&ClusterArchive>,
    query: &Query,
    limit: Option<u64>,
    parts: &[&NodeOutcome],
) -> Vec<ArchivePlan> {
    let (Some(archive), Some(current)) = (archive, parts.first()) else { return Vec::new() };
    let live = LivePart {
        status: current.status,
        generation: current.generation,
        log_start: current.counters.floor.filter(|_| current.counters.pruned.is_some()),
        asides: parts.iter().filter_map(|part| Some(part.aside?.generation)).collect(),
    };
    ask_archive(archive, &current.member, query, limit, &live)
}

/// Reports about the archives that the answer needed.
pub(super) fn archives(parts: &[NodeOutcome]) -> Vec<ArchiveReport> {
    let mut reports: Vec<ArchiveReport> = Vec::new();
    for from in parts.iter().flat_map(|part| &part.from_archive) {
        let report = match reports.iter_mut().find(|report| report.archive == from.part.archive) {
            Some(report) => report,
            None => {
                let status = Status::Ok;
                let (archive, verdict, step) = (from.part.archive.clone(), from.part.verdict, from.part.step);
                reports.push(ArchiveReport { archive, status, verdict, step, reason: None, rows: 0 });
                let Some(report) = reports.last_mut() else { continue };
                report
            }
        };
        report.rows += from.rows;
        if report.status == Status::Ok && from.status != Status::Ok {
            report.status = from.status;
            report.reason.clone_from(&from.reason);
        }
    }
    reports
}

/// Time as of which the answer is complete, if an archive was read instead of nodes that did not answer.
pub(super) fn as_of(parts: &[NodeOutcome]) -> Option<Timestamp> {
    parts.iter().filter_map(NodeOutcome::as_of).min()
}

/// Addition to the completeness statement: the nodes for which an archive was read.
pub(super) fn read_instead(parts: &[NodeOutcome]) -> String {
    let Some(as_of) = as_of(parts) else { return String::new() };
    let nodes: Vec<&str> =
        parts.iter().filter(|part| part.as_of().is_some()).map(|part| part.member.node.id.as_str()).collect();
    format!("; as of {as_of}: all rows of {} are from the archive", nodes.join(", "))
}
