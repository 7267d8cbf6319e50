//! Verifies one node's rows against its witnessed checkpoint.
//!
//! A node proves its rows in batches, so rows wait here until their proof has arrived. Batches are small, so memory use does not
//! grow with the answer.

use std::ops::Range;

use piperoll_format::completeness::{Coverage, ProvenRow, Unproven};
use piperoll_format::merkle::{Hash, RangeProof};
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::ScanRequest;

use crate::cluster::witness::pinned::Pinned;
use crate::scan::position_range::{positions, up_to};
use crate::scan::verified_row::{BorderRow, VerifiedRow};

/// Limits for rows that wait for their proof. Between two proofs, a node sends a few hundred rows, at most a quarter of a
/// megabyte plus one row, and a few border rows per era.
const WAITING_ROWS_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;
pub(crate) const BORDERS_MAX: usize = 16_384;

/// Whether an answer contains every witnessed row of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RangeCompleteness {
    /// No witnessed row of the range is missing.
    Whole,
    /// No row is missing from this time on; older rows were pruned.
    Since(Timestamp),
    /// Completeness is not shown, for this reason.
    Not(String),
}

impl RangeCompleteness {
    /// Combines two consecutive parts. Two complete parts are complete together, because the second one begins after
    /// the last row of the first.
    pub(crate) fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Not(message), _) | (_, Self::Not(message)) => Self::Not(message),
            (Self::Since(one), Self::Since(other)) => Self::Since(one.max(other)),
            (Self::Since(time), Self::Whole) | (Self::Whole, Self::Since(time)) => Self::Since(time),
            (Self::Whole, Self::Whole) => Self::Whole,
        }
    }
}

impl Default for RangeCompleteness {
    fn default() -> Self {
        Self::Not("the answer ended early".to_owned())
    }
}

/// A row whose MAC is valid, with the data that a proof needs.
struct Sound {
    place: ProvenRow,
    leaf: Hash,
    /// Index among the waiting rows; `None` for a border row.
    index: Option<usize>,
    /// Set if the row states that rows were pruned: the first retained seq, and the time of the newest pruned row.
    pruned: Option<(u64, Timestamp)>,
}

/// Returns the log start that a row states, and the time of the newest pruned row.
fn pruned(body: &[u8]) -> Option<(u64, Timestamp)> {
    match Statement::read(body)? {
        Statement::Pruned(pruned) => Some((pruned.to_seq, pruned.newest)),
        _ => None,
    }
}

/// Rows of one answer while they are being proven.
pub(crate) struct ProofVerifier {
    pinned: Pinned,
    waiting: Vec<VerifiedRow>,
    sound: Vec<Sound>,
    borders: Vec<Sound>,
    /// `None` if the query has a filter: rows that do not match cannot be distinguished from withheld ones.
    shown: Option<Coverage>,
    range: Range<Position>,
    order: Order,
    /// Number of rows that the answer covers: the witnessed ones, or fewer on a page of an older snapshot. This number is never
    /// taken from the node.
    size: u64,
    waiting_bytes: usize,
}

impl ProofVerifier {
    pub(crate) fn new(pinned: Pinned, request: &ScanRequest) -> Self {
        let size = pinned.size.min(request.head.map_or(u64::MAX, |head| head.saturating_add(1)));
        Self {
            pinned,
            size,
            waiting_bytes: 0,
            waiting: Vec::new(),
            sound: Vec::new(),
            borders: Vec::new(),
            shown: request.filter.is_empty().then(Coverage::default),
            range: positions(request),
            order: request.order,
        }
    }

    /// Whether more rows wait than a node sends between two proofs. A node that never sends a proof must not fill the memory.
    pub(crate) fn is_overfull(&self) -> bool {
        self.waiting.len() > WAITING_ROWS_MAX
            || self.waiting_bytes > WAITING_BYTES_MAX
            || self.borders.len() > BORDERS_MAX
    }

    /// Adds a row that waits for its proof. `era` is set for a row whose MAC is valid.
    pub(crate) fn row(&mut self, row: VerifiedRow, era: Option<u32>) {
        if let Some(era) = era {
            let place = ProvenRow { seq: row.key.seq, era, timestamp: row.key.timestamp };
            let leaf = row.leaf();
            let pruned = if row.erased.is_none() { pruned(&row.body) } else { None };
            self.sound.push(Sound { place, leaf, index: Some(self.waiting.len()), pruned });
        }
        self.waiting_bytes += row.body.len();
        self.waiting.push(row);
    }

    /// Adds a border row whose MAC is valid.
    pub(crate) fn border(&mut self, place: ProvenRow, row: &BorderRow) {
        let pruned = if row.erased_under.is_none() { pruned(&row.body) } else { None };
        self.borders.push(Sound { place, leaf: row.leaf, index: None, pruned });
    }

    /// Verifies the proof of the rows that arrived since the previous proof. Returns a message if the rows do not match the
    /// proof.
    pub(crate) fn prove(&mut self, proof: &RangeProof) -> Result<(), String> {
        let of_borders = self.waiting.is_empty();
        if proof.runs.is_empty() {
            return Ok(());
        }
        let rows = if of_borders { &mut self.borders } else { &mut self.sound };
        if !proof.runs.is_sorted_by(|a, b| a.end < b.start) {
            return Err("the row ranges of a proof are not sorted".to_owned());
        }
        let covered = |row: &mut Sound| {
            let seq = row.place.seq;
            let behind = proof.runs.partition_point(|run| run.end <= seq);
            proof.runs.get(behind).is_some_and(|run| run.contains(&seq))
        };
        let mut sound: Vec<Sound> = rows.extract_if(.., covered).collect();
        sound.sort_by_key(|row| row.place.seq);
        let size = self.pinned.size;
        let leaves = sound.iter().map(|row| (row.place.seq, row.leaf));
        proof.verify(leaves, size, &self.pinned.root).map_err(|problem| {
            let (first, last) = (proof.runs.first().map_or(0, |run| run.start), proof.runs.last().map_or(0, |r| r.end));
            format!(
                "rows {first} to {} do not match the witnessed checkpoint of {size} rows ({problem})",
                last.saturating_sub(1)
            )
        })?;
        for row in sound {
            if let Some(index) = row.index {
                self.waiting[index].witnessed = true;
            }
            if let (Some(shown), Some((to, newest))) = (&mut self.shown, row.pruned) {
                shown.pruned(to, newest);
            }
            match (&mut self.shown, of_borders) {
                (Some(shown), true) => shown.border(row.place),
                (Some(shown), false) => shown.row(row.place),
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Returns the waiting rows in order, proven or not, and a message if one of them should have been proven.
    pub(crate) fn release(&mut self) -> (Vec<VerifiedRow>, Option<String>) {
        let without = self.sound.iter().find(|row| row.place.seq < self.pinned.size);
        let fault = without.map(|row| format!("row {} was witnessed, but no proof was sent for it", row.place.seq));
        self.sound.clear();
        self.waiting_bytes = 0;
        (std::mem::take(&mut self.waiting), fault)
    }

    /// Whether the complete answer proves that no row from the log start on is missing. Older rows are proven elsewhere.
    pub(crate) fn is_retained_whole(&self, last: Option<Position>, start: u64) -> bool {
        let Range { start: begin, end } = up_to(&self.range, self.order, last);
        self.shown.as_ref().is_some_and(|shown| shown.is_whole_from(start, begin, end, self.size).is_ok())
    }

    /// Determines what the complete answer proves, once no more rows arrive. `last` is the last row of the answer if
    /// more rows follow it.
    pub(crate) fn conclude(&mut self, last: Option<Position>) -> RangeCompleteness {
        let Some(shown) = self.shown.take() else {
            return RangeCompleteness::Not("the query has a filter".to_owned());
        };
        let Range { start: begin, end } = up_to(&self.range, self.order, last);
        let problem = match shown.is_whole(begin, end, self.size) {
            Ok(()) => return RangeCompleteness::Whole,
            Err(problem) => problem,
        };
        let rest = shown.since().filter(|_| matches!(problem, Unproven::Pruned { .. }));
        let rest = rest.filter(|since| {
            let begin = begin.max(Position { timestamp: *since, seq: 0 });
            shown.is_whole(begin, end.max(begin), self.size).is_ok()
        });
        rest.map_or_else(|| RangeCompleteness::Not(problem.to_string()), RangeCompleteness::Since)
    }
}
