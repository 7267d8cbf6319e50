//! Result of verifying a bundle and each node in it.

use serde::Serialize;

use super::archive_head::ArchiveHead;
use super::manifest::Manifest;
use super::policy::PolicyFit;
use piperoll_format::statement::Begun;
use piperoll_format::time::Timestamp;

/// Maximum number of findings that are listed; further ones are only counted.
const FINDINGS_LISTED_MAX: usize = 100;

/// The aggregator's verdict on a node that pruned entries earlier than the policy allows.
pub const PRUNED_EARLY: &str = "pruned_early";

/// One fault in a bundle. It shows that the bundle differs from what its signers signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The node concerned, if the fault concerns only one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    pub what: String,
}

/// Verdict on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeVerdict {
    pub node_id: String,
    /// Status of the node according to the exporter: `ok`, or why its part is missing or incomplete.
    pub status: String,
    pub generation: Option<String>,
    /// Number of entries that the checkpoint covers.
    pub size: Option<u64>,
    /// Number of entries in the timeline, as counted by the verifier.
    pub rows: u64,
    pub borders: u64,
    /// Number of entries that the checkpoint covers and that are not in the bundle.
    pub withheld: u64,
    /// Number of entries in the timeline whose content was erased, each with a proven erasure statement in the bundle.
    pub erased: u64,
    /// Number of erased entries of the range that may have matched the filter and are not in the timeline, according to the
    /// exporter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_apart: Option<u64>,
    /// First `seq` of the log according to a proven `log.pruned` entry in the bundle; entries below it were pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<u64>,
    pub witnesses: Vec<String>,
    pub witnessed_at: Option<Timestamp>,
    /// The node's archived logs in the bundle, each with a verdict of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<NodeVerdict>,
    /// Reason why entries of the range could be missing; `None` if it is proven that no entry is missing.
    pub unproven: Option<String>,
    /// Reason why the node's part, which was expected, is missing or incomplete.
    pub missing: Option<String>,
    /// Time from which no entry of the node is missing. The bundle proves that older entries of the range were pruned after they
    /// had been kept for as long as the policy in the trust file requires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<Timestamp>,
    /// For a log with pruned entries: the time from which the log is proven to be complete, and whether the pruned entries had
    /// been kept for long enough.
    #[serde(skip)]
    pub(super) rest: Option<(Timestamp, PolicyFit)>,
    /// Statement in the log's first entry about the log that it replaced.
    #[serde(skip)]
    pub(super) begun: Option<Begun>,
    /// Reason why the checkpoint does not cover the whole range.
    #[serde(skip)]
    pub(super) stale: Option<String>,
    #[serde(skip)]
    pub(super) faults: Vec<String>,
}

impl NodeVerdict {
    pub(super) fn fault(&mut self, message: String) {
        self.faults.push(message);
    }

    pub(super) fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }
}

/// One check that a verifier performs. The variants exist for the negative control of the tests, which disables each check in
/// turn and shows that a bundle that must be refused is then accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    ManifestSignature,
    Cluster,
    Digests,
    NodeSignature,
    KeySpan,
    Witness,
    Identity,
    Root,
    TimeOrder,
    EntryForm,
    Question,
    Erasure,
    Whole,
    Fresh,
    Counts,
    Rejected,
    Expected,
    Timeline,
    Csv,
    Report,
    Readme,
}

/// The checks to perform: all of them, except in the negative control.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Checks {
    pub(super) without: Option<Check>,
}

impl Checks {
    pub(super) fn without(check: Check) -> Self {
        Self { without: Some(check) }
    }

    /// Returns whether all checks are performed.
    pub(super) fn without_none(self) -> bool {
        self.without.is_none()
    }

    pub(super) fn on(self, check: Check) -> bool {
        self.without != Some(check)
    }
}

/// Verdict on a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the bundle was checked against a trust file. If `false`, it was checked only against the keys that it contains,
    /// which proves nothing.
    pub trusted: bool,
    /// Whether the bundle contains every expected node in full.
    pub complete: bool,
    /// Whether the bundle is complete and no entry of the range can be missing.
    pub proven: bool,
    /// Set if the bundle is incomplete only because of pruned entries that had been kept for as long as the policy requires: from
    /// this time on, the bundle contains every expected node in full, and no entry can be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<Timestamp>,
    /// Changed membership instants: remarks for the user, not faults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    pub rows: u64,
    pub nodes: Vec<NodeVerdict>,
    /// Faults of the bundle. The bundle is refused if there are any.
    pub findings: Vec<Finding>,
    pub findings_count: usize,
    /// Whether the file could not be checked with this trust file. This alone does not mean that the file was altered or forged.
    /// The only finding contains the reason.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_checked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Head of the verified file, if the file is an archive of pruned entries. An archive has no manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveHead>,
}

impl Verdict {
    pub(super) fn find(&mut self, node_id: Option<&str>, what: impl Into<String>) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_LISTED_MAX {
            self.findings.push(Finding { node_id: node_id.map(str::to_owned), what: what.into() });
        }
    }

    /// Ends the verification without a conclusion, because the file or the trust file is not the intended one.
    pub(super) fn set_aside(mut self, why: impl Into<String>) -> Self {
        self.find(None, why);
        self.not_checked = true;
        self
    }

    pub fn is_sound(&self) -> bool {
        self.findings_count == 0
    }
}
