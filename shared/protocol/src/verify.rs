//! Results of verifying a node's log.

use serde::{Deserialize, Serialize};

use piperoll_format::ids::{Generation, NodeId};

/// One line of a `verify` stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum VerifyLine {
    Finding(Finding),
    /// Nothing is wrong: the row's content was erased, and an entry says so.
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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The row it is about, when it is about one.
    pub seq: Option<u64>,
    pub kind: FindingKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A row's bytes, place or mac.
    Row,
    /// A row sealed under an epoch whose secret is not here.
    UnknownKey,
    /// Missing or misplaced rows.
    Sequence,
    /// A column or table made from the bodies disagrees with them.
    Derived,
    /// A block of the index that is not of the rows it stands for, or is gone.
    Index,
    /// A stored tile that does not fit its rows.
    Tree,
    /// Rows that do not fit a signed checkpoint, or a checkpoint that does not count.
    Checkpoint,
    /// Tables, triggers or views that are not exactly ours.
    Schema,
    /// SQLite's own check of the file.
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
    /// Rows whose content was erased under an entry that says so.
    #[serde(default)]
    pub erased: u64,
    /// Rows that searches have to read because no block of the index stands for them. Those of the newest block, which
    /// is not full yet, do not count.
    #[serde(default)]
    pub unindexed: u64,
    /// Where the log begins, when rows were pruned under an entry that says so.
    #[serde(default)]
    pub pruned: Option<u64>,
    pub findings: u64,
    /// Findings beyond this many are counted, not listed.
    pub listed: u64,
}
