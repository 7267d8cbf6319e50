//! Results of verifying a node's log.

use serde::{Deserialize, Serialize};

use piperoll_format::ids::{Generation, NodeId};

/// One line of a `verify` stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum VerifyLine {
    Finding(Finding),
    /// Not a fault: the row's content was erased, and a `log.erased` entry records that.
    Erased {
        seq: u64,
        entry_seq: u64,
        reason: String,
    },
    Progress {
        checked: u64,
        of: u64,
    },
    Final(VerifySummary),
}

/// A problem that verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The affected row, if the finding concerns a single one.
    pub seq: Option<u64>,
    pub kind: FindingKind,
    pub detail: String,
    /// Whether a checkpoint has no signature of the node's present key at all, as in an archived log whose key was replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unsigned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Wrong bytes, position or mac of a row.
    Row,
    /// A row sealed under an epoch whose secret is not available.
    UnknownKey,
    /// Missing or misplaced rows.
    Sequence,
    /// A column or table derived from the bodies does not match them.
    Derived,
    /// An index block that does not match the rows it covers, or is missing.
    Index,
    /// A stored tile that does not match its rows.
    Tree,
    /// Rows that do not match a signed checkpoint, or a checkpoint that is not valid.
    Checkpoint,
    /// Tables, triggers or views that differ from the expected schema.
    Schema,
    /// A fault reported by SQLite's own integrity check of the file.
    File,
}

/// The end of a `verify` stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySummary {
    pub node_id: NodeId,
    pub generation: Generation,
    pub rows: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    /// Rows whose content was erased, as recorded by `log.erased` entries.
    #[serde(default)]
    pub erased: u64,
    /// Rows that searches have to read because no index block covers them. Rows of the newest block, which is not full yet,
    /// are not counted.
    #[serde(default)]
    pub unindexed: u64,
    /// Log start (first retained seq) according to the newest `log.pruned` entry; `None` if no rows were pruned.
    #[serde(default)]
    pub pruned: Option<u64>,
    pub findings: u64,
    /// Number of findings listed; further findings are only counted.
    pub listed: u64,
}
