//! Findings of a verification.

use serde::Serialize;

use crate::history::Head;
use crate::row::Day;

/// Maximum number of findings that are listed; all are counted.
const FINDINGS_MAX: usize = 1_000;

/// Kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The archive's identity, a step or a step's hashes were changed or removed.
    Step,
    /// Steps that an entry in the archive mentions are missing or different: the archive was rolled back or replaced.
    Rollback,
    /// A checkpoint is not signed by the log and a witness that the trust file names.
    Checkpoint,
    /// A file of rows is missing or was changed.
    File,
    /// The rows of a file do not lead to the checkpoint.
    Rows,
    /// A row is erased, but no entry in the archive declares its erasure. The entry may not be archived yet.
    Erased,
    /// A tile is missing or was changed.
    Tile,
    /// An object that no step names.
    Extra,
    /// A file that a step replaced or removed still exists, so content that was erased, or that was kept for long enough, is not gone.
    Leftover,
    /// The store did not answer, so something could not be verified.
    Unread,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// Name of the object.
    pub object: String,
    pub detail: String,
}

/// Result of a verification.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub cluster: String,
    pub archive: String,
    /// Newest step.
    pub head: Option<Head>,
    pub logs: usize,
    pub files: usize,
    /// Files that were read and verified, and their rows. This includes those of an interrupted verification.
    pub files_verified: usize,
    /// Files that an interrupted verification had read and verified.
    pub files_resumed: usize,
    pub rows_verified: u64,
    /// Rows of all steps.
    pub rows: u64,
    pub erased: u64,
    /// First and last day of the verified rows.
    pub first_day: Option<String>,
    pub last_day: Option<String>,
    /// Findings in the order in which they were made; at most 1,000.
    pub findings: Vec<Finding>,
    pub findings_count: u64,
    /// Files of an interrupted step, which the writer will use or delete, and files that the newest step replaced or removed.
    pub open: Vec<String>,
    /// Ranges of rows that the archive does not have, because their node pruned them first.
    pub gaps: Vec<String>,
    /// Logs whose first rows were removed by the writer. How long they had been kept is not verified.
    pub expired: Vec<String>,
    /// Whether every file was read; false if only some days were requested.
    pub whole: bool,
}

impl Report {
    pub(super) fn find(&mut self, kind: FindingKind, object: impl Into<String>, detail: impl Into<String>) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, object: object.into(), detail: detail.into() });
        }
    }

    /// Adds the day of verified rows.
    pub(super) fn cover(&mut self, day: &Day) {
        let day = day.to_string();
        if self.first_day.as_ref().is_none_or(|first| &day < first) {
            self.first_day = Some(day.clone());
        }
        if self.last_day.as_ref().is_none_or(|last| &day > last) {
            self.last_day = Some(day);
        }
    }

    /// Whether everything that was requested could be read.
    pub fn is_read(&self) -> bool {
        self.findings.iter().all(|finding| finding.kind != FindingKind::Unread)
    }

    /// Whether everything that was requested was verified, and nothing was found.
    pub fn is_verified(&self) -> bool {
        self.findings_count == 0
    }

    /// Whether anything was changed, removed or added.
    pub fn is_violated(&self) -> bool {
        // An erasure may be declared by an entry that is not archived yet. A file that was not deleted does not change the evidence.
        let is_open = |kind| matches!(kind, FindingKind::Unread | FindingKind::Erased | FindingKind::Leftover);
        self.findings.iter().any(|finding| !is_open(finding.kind)) || self.findings_count > self.findings.len() as u64
    }
}
