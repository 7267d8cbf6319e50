//! Verifies one row, and a sequence of rows.

use serde::{Deserialize, Serialize};

use crate::entry::{NOT_ONE_ENTRY, Prefix, is_one_entry};
use crate::ids::{Generation, NodeId};
use crate::mac::KeyRing;
use crate::time::Timestamp;

/// Verification result of one row, shown with the row in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Integrity {
    /// The mac matches the bytes, and the bytes match the row's columns.
    Ok,
    /// The bytes, their position or their mac were changed.
    Violation,
    /// The row names an epoch whose secret is not available here.
    UnknownKey,
    /// The content was erased, as recorded by an authentic `log.erased` entry.
    Erased,
}

impl Integrity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Violation => "violation",
            Self::UnknownKey => "unknown_key",
            Self::Erased => "erased",
        }
    }
}

/// A row as stored or sent: its body together with the unauthenticated columns that make claims about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    pub seq: u64,
    pub timestamp: Timestamp,
    pub epoch: u32,
    /// The mac as stored: possibly absent, too short or wrong.
    pub mac: &'a [u8],
    pub body: &'a [u8],
}

/// Reason given for a row without a mac, unless a `log.erased` entry accounts for it.
pub const NO_MAC: &str = "the signature is missing";

/// Checks rows of one node in one generation.
pub struct RowChecker {
    ring: KeyRing,
    generation: Generation,
    generation_text: String,
    /// The rows sealed under each epoch, if known; see [`EpochSpan`].
    epochs: Vec<EpochSpan>,
}

/// The contiguous range of rows sealed under one epoch: from `first_seq` up to the next span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSpan {
    pub epoch: u32,
    pub first_seq: u64,
}

/// Result of checking a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub integrity: Integrity,
    /// Explanation, if the row is not `ok`.
    pub reason: Option<&'static str>,
    /// Era from the body, if its prefix could be read.
    pub era: Option<u32>,
}

impl RowChecker {
    pub fn new(ring: KeyRing, generation: Generation) -> Self {
        Self { ring, generation, generation_text: generation.to_string(), epochs: Vec::new() }
    }

    /// Sets the epoch spans. From then on, `check` accepts a row only if its epoch is the one that the spans give for its
    /// position. The holder of a secret that was rotated out can still compute macs, but no such mac is accepted after the end of
    /// its epoch. Spans ascend; rows before the first span may have any epoch.
    pub fn know_epochs(&mut self, epochs: Vec<EpochSpan>) {
        self.epochs = epochs;
    }

    pub fn node_id(&self) -> &NodeId {
        self.ring.node_id()
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Checks a row. The mac is verified before any content of the body is trusted.
    pub fn check(&mut self, claim: &Claim<'_>) -> Checked {
        let bad = |reason| Checked { integrity: Integrity::Violation, reason: Some(reason), era: None };
        let Some(key) = self.ring.key(self.generation, claim.epoch) else {
            return Checked {
                integrity: Integrity::UnknownKey,
                reason: Some("this reader has no secret for the row's key epoch"),
                era: None,
            };
        };
        let behind = self.epochs.partition_point(|span| span.first_seq <= claim.seq);
        if behind.checked_sub(1).is_some_and(|at| self.epochs[at].epoch != claim.epoch) {
            return bad("the row is sealed under an epoch other than that of its position");
        }
        if claim.mac.is_empty() {
            return bad(NO_MAC);
        }
        if !key.verify(claim.body, claim.mac) {
            return bad("the signature does not match the entry's bytes");
        }
        let Some(prefix) = Prefix::parse(claim.body) else {
            return bad("the entry's first fields are not in the signed form");
        };
        if prefix.node_id != self.ring.node_id().as_str() {
            return bad("the entry was written by another node");
        }
        if prefix.generation != self.generation_text {
            return bad("the entry belongs to another generation of this node's log");
        }
        if prefix.seq != claim.seq {
            return bad("the entry was signed for a different position");
        }
        if prefix.timestamp != claim.timestamp {
            return bad("the time column differs from the signed time");
        }
        // A holder of the secret can seal arbitrary bytes; only a single entry on one line is accepted as a row.
        if !is_one_entry(claim.body) {
            return bad(NOT_ONE_ENTRY);
        }
        Checked { integrity: Integrity::Ok, reason: None, era: Some(prefix.era) }
    }
}

/// Fault in the sequence of consecutive rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceFault {
    /// Rows `first..=last` are missing.
    Missing { first: u64, last: u64 },
    /// A row out of order or a repeated row.
    OutOfOrder { seq: u64 },
    /// The time decreases inside an era, or the era decreases.
    TimeDecreases { seq: u64 },
}

/// Follows rows in ascending `seq` and detects gaps; the rows themselves are checked by [`RowChecker`].
#[derive(Debug, Clone, Default)]
pub struct SequenceWalk {
    next: Option<u64>,
    last: Option<(u32, Timestamp)>,
}

impl SequenceWalk {
    /// Creates a walk that expects `first` to be the first row.
    pub fn starting_at(first: u64) -> Self {
        Self { next: Some(first), last: None }
    }

    /// Creates a walk that begins at `first`, just after the last pruned row. `era` and `timestamp` are those of the pruned row;
    /// the `log.pruned` entry contains them.
    pub fn going_on(first: u64, era: u32, timestamp: Timestamp) -> Self {
        Self { next: Some(first), last: Some((era, timestamp)) }
    }

    /// Checks the position of the next row; `signed` is the era and timestamp from its signed bytes, `None` for a row that failed
    /// its check.
    pub fn step(&mut self, seq: u64, signed: Option<(u32, Timestamp)>) -> Option<SequenceFault> {
        let expected = self.next.unwrap_or(seq);
        let mut fault = match seq.cmp(&expected) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(SequenceFault::Missing { first: expected, last: seq - 1 }),
            std::cmp::Ordering::Less => Some(SequenceFault::OutOfOrder { seq }),
        };
        self.next = Some(seq.saturating_add(1));
        if let Some((era, timestamp)) = signed {
            let decreases = self
                .last
                .is_some_and(|(last_era, last_time)| era < last_era || (era == last_era && timestamp < last_time));
            if decreases && fault.is_none() {
                fault = Some(SequenceFault::TimeDecreases { seq });
            }
            self.last = Some((era, timestamp));
        }
        fault
    }

    /// Ends the walk. Returns a fault if rows are missing at the end, up to and including `last`.
    pub fn finish(&self, last: Option<u64>) -> Option<SequenceFault> {
        let (last, next) = (last?, self.next?);
        (next <= last).then_some(SequenceFault::Missing { first: next, last })
    }
}

impl std::fmt::Display for SequenceFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { first, last } if first == last => write!(f, "row {first} is missing"),
            Self::Missing { first, last } => {
                write!(f, "rows {first} to {last} are missing ({} rows)", last - first + 1)
            }
            Self::OutOfOrder { seq } => write!(f, "row {seq} is out of order or occurs twice"),
            Self::TimeDecreases { seq } => write!(f, "the time of row {seq} is before that of the previous row"),
        }
    }
}
