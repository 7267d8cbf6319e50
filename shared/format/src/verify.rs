//! Verifies one row, and a sequence of rows.

use serde::{Deserialize, Serialize};

use crate::entry::{NOT_ONE_ENTRY, Prefix, is_one_entry};
use crate::ids::{Generation, NodeId};
use crate::mac::KeyRing;
use crate::time::Timestamp;

/// The state of one row, shown beside it in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Integrity {
    /// The mac fits the bytes, and the bytes say what the row claims.
    Ok,
    /// The bytes, their place or their mac were changed.
    Violation,
    /// The row names an epoch whose secret this reader does not hold.
    UnknownKey,
    /// Emptied by an authentic `log.erased` entry.
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

/// A row as a store holds it or a wire carries it: the claim beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    pub seq: u64,
    pub timestamp: Timestamp,
    pub epoch: u32,
    /// As stored: possibly absent, short or foreign.
    pub mac: &'a [u8],
    pub body: &'a [u8],
}

/// Why an empty row fails, unless an entry erased it.
pub const NO_MAC: &str = "the signature is missing";

/// Checks rows of one node in one generation.
pub struct RowChecker {
    ring: KeyRing,
    generation: Generation,
    generation_text: String,
    /// Which epoch seals which rows, when that is known; see [`EpochSpan`].
    epochs: Vec<EpochSpan>,
}

/// One epoch's rows are one contiguous range: from `first_seq` up to the next span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSpan {
    pub epoch: u32,
    pub first_seq: u64,
}

/// A checked row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub integrity: Integrity,
    /// In words, when not `ok`.
    pub reason: Option<&'static str>,
    /// From the body, when its prefix could be read.
    pub era: Option<u32>,
}

impl RowChecker {
    pub fn new(ring: KeyRing, generation: Generation) -> Self {
        Self { ring, generation, generation_text: generation.to_string(), epochs: Vec::new() }
    }

    /// From here on a row counts only under the epoch of its place: whoever holds a secret that was rotated away can
    /// still make macs with it, and none that fits where the epoch had ended. Spans ascend; rows in front of the first
    /// one may have any epoch.
    pub fn know_epochs(&mut self, epochs: Vec<EpochSpan>) {
        self.epochs = epochs;
    }

    pub fn node_id(&self) -> &NodeId {
        self.ring.node_id()
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The mac is checked before anything the bytes say is believed.
    pub fn check(&mut self, claim: &Claim<'_>) -> Checked {
        let bad = |reason| Checked { integrity: Integrity::Violation, reason: Some(reason), era: None };
        let Some(key) = self.ring.key(self.generation, claim.epoch) else {
            return Checked {
                integrity: Integrity::UnknownKey,
                reason: Some("the row names a key epoch that this reader does not hold"),
                era: None,
            };
        };
        let behind = self.epochs.partition_point(|span| span.first_seq <= claim.seq);
        if behind.checked_sub(1).is_some_and(|at| self.epochs[at].epoch != claim.epoch) {
            return bad("the row is sealed under an epoch that is not the one of its place");
        }
        if claim.mac.is_empty() {
            return bad(NO_MAC);
        }
        if !key.verify(claim.body, claim.mac) {
            return bad("the signature does not fit the entry's bytes");
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
            return bad("the entry stands at another place than the one it was signed for");
        }
        if prefix.timestamp != claim.timestamp {
            return bad("the time column differs from the signed time");
        }
        // A holder of the secret can seal anything; only one entry on one line is a row.
        if !is_one_entry(claim.body) {
            return bad(NOT_ONE_ENTRY);
        }
        Checked { integrity: Integrity::Ok, reason: None, era: Some(prefix.era) }
    }
}

/// What a walk over consecutive rows found wrong with their sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceFault {
    /// Rows `first..=last` are missing.
    Missing { first: u64, last: u64 },
    /// A row out of place or twice.
    OutOfOrder { seq: u64 },
    /// The time decreases inside an era, or the era decreases.
    TimeDecreases { seq: u64 },
}

/// Follows rows in ascending `seq` and notices gaps; the rows themselves are checked by [`RowChecker`].
#[derive(Debug, Clone, Default)]
pub struct SequenceWalk {
    next: Option<u64>,
    last: Option<(u32, Timestamp)>,
}

impl SequenceWalk {
    /// Expects `first` to be the first row.
    pub fn starting_at(first: u64) -> Self {
        Self { next: Some(first), last: None }
    }

    /// Goes on behind the row before `first`, whose era and time were stated when it was pruned.
    pub fn going_on(first: u64, era: u32, timestamp: Timestamp) -> Self {
        Self { next: Some(first), last: Some((era, timestamp)) }
    }

    /// Takes the next row; `era` and `timestamp` from its signed bytes, `None` for a violated row.
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

    /// Closes the walk: rows up to and including `last` were expected.
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
            Self::OutOfOrder { seq } => write!(f, "row {seq} is out of order or stands twice"),
            Self::TimeDecreases { seq } => write!(f, "the time of row {seq} is before the row in front of it"),
        }
    }
}
