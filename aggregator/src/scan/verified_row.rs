//! Rows in the aggregator: the received bytes with the result of their verification.

use std::sync::Arc;

use bytes::Bytes;
use piperoll_format::merkle::{Hash, leaf_hash};
use piperoll_format::order::Key;
use piperoll_format::row::{FoundAt, Row};
use piperoll_format::statement::Erased;
use piperoll_format::verify::Integrity;

/// A row with its position in the timeline.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedRow {
    pub(crate) key: Key,
    pub(crate) body: Bytes,
    pub(crate) mac: Bytes,
    /// Epoch of the MAC key.
    pub(crate) epoch: u32,
    pub(crate) integrity: Integrity,
    pub(crate) witnessed: bool,
    pub(crate) reason: Option<&'static str>,
    /// Set if the row was erased; `body` and `mac` are then those of the entry that records the erasure.
    pub(crate) erased: Option<Arc<ErasureStatement>>,
    /// Whether the content of the row is withheld, because the row is not known to be within the caller's scope.
    pub(crate) withheld: bool,
    /// Whether the row was read from the archive.
    pub(crate) archived: bool,
}

/// Statement of an authentic entry about a row that was erased.
#[derive(Debug)]
pub(crate) struct ErasureStatement {
    pub(crate) said: Erased,
    pub(crate) entry_seq: u64,
}

/// A row adjacent to the range. For an erased row, `body` and `mac` are those of the entry that records the erasure.
#[derive(Debug, Clone)]
pub(crate) struct BorderRow {
    pub(crate) seq: u64,
    pub(crate) leaf: Hash,
    pub(crate) body: Bytes,
    pub(crate) mac: Bytes,
    /// Seq of the entry that records the erasure; `None` if the row was not erased.
    pub(crate) erased_under: Option<u64>,
}

impl VerifiedRow {
    /// Returns the leaf hash of the row in the tree.
    pub(crate) fn leaf(&self) -> Hash {
        self.erased.as_ref().map_or_else(|| leaf_hash(&self.body, &self.mac), |gone| gone.said.leaf)
    }

    pub(crate) fn to_row(&self) -> Row<'_> {
        let found = FoundAt { node_id: self.key.node_id.to_string(), seq: self.key.seq };
        if self.withheld {
            return Row::withheld(found, self.integrity, self.witnessed);
        }
        if let Some(gone) = &self.erased {
            return Row::erased(self.key.node_id.as_str(), &gone.said, gone.entry_seq, self.witnessed);
        }
        Row {
            body: self.body.as_ref().into(),
            mac: self.mac.as_ref().into(),
            integrity: self.integrity,
            witnessed: self.witnessed,
            reason: self.reason.map(Into::into),
            found_at: (self.integrity != Integrity::Ok).then_some(found),
            erased: None,
            withheld: false,
        }
    }
}
