//! Result of verifying a bundle and each node in it.

use serde::Serialize;

use super::archive_head::ArchiveHead;
use super::manifest::Manifest;
use super::policy::PolicyFit;
use piperoll_format::statement::Begun;
use piperoll_format::time::Timestamp;

/// Faults spelled out; the rest is counted.
const FINDINGS_LISTED_MAX: usize = 100;

/// What an aggregator concludes of a node that pruned rows earlier than the policy says.
pub const PRUNED_EARLY: &str = "pruned_early";

/// The same where the aggregator does not know that the policy was kept.
pub const PRUNED_UNSHOWN: &str = "pruned_unshown";

/// One thing that is wrong: the bundle is not what its signers made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The node it is about, when it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    pub what: String,
}

/// What is concluded about one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeVerdict {
    pub node_id: String,
    /// The exporter's word on whether the node answered.
    pub status: String,
    pub generation: Option<String>,
    /// Rows under the checkpoint.
    pub size: Option<u64>,
    /// Rows in the timeline, counted here.
    pub rows: u64,
    pub borders: u64,
    /// Rows under the checkpoint that are not in the bundle.
    pub withheld: u64,
    /// Rows in the timeline whose content was erased under an entry that is proven here.
    pub erased: u64,
    /// Erased rows of the range that may have matched the filter and are not in the timeline, by the exporter's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_apart: Option<u64>,
    /// Where the log begins, by an entry that is proven here; rows below were pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<u64>,
    pub witnesses: Vec<String>,
    pub witnessed_at: Option<Timestamp>,
    /// Its logs that another one took the place of, as far as they are here; each says the same of itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<NodeVerdict>,
    /// Why no one can say that nothing of the range is missing; none when that is proven.
    pub unproven: Option<String>,
    /// Why its part is missing or not whole, when it was expected.
    pub missing: Option<String>,
    /// Its rows of the range were pruned up to here, by entries that are proven here, after they had stayed for as long as the policy in the
    /// trust file says; from here on nothing of it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<Timestamp>,
    /// From when on everything is proven where rows were pruned, and whether those had stayed as long as they should.
    #[serde(skip)]
    pub(super) rest: Option<(Timestamp, PolicyFit)>,
    /// What its first row says of the log that it took the place of.
    #[serde(skip)]
    pub(super) begun: Option<Begun>,
    /// Why its checkpoint does not speak for the whole range.
    #[serde(skip)]
    pub(super) stale: Option<String>,
    #[serde(skip)]
    pub(super) faults: Vec<String>,
}

impl NodeVerdict {
    pub(super) fn fault(&mut self, words: String) {
        self.faults.push(words);
    }

    pub(super) fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }
}

/// What a verifier looks at. The names serve the negative control of the tests: with any one of them switched off, some
/// bundle that must be refused is not.
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

/// Which checks are made: all of them, but in the negative control.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Checks {
    pub(super) without: Option<Check>,
}

impl Checks {
    pub(super) fn without(check: Check) -> Self {
        Self { without: Some(check) }
    }

    /// All of them are made.
    pub(super) fn without_none(self) -> bool {
        self.without.is_none()
    }

    pub(super) fn on(self, check: Check) -> bool {
        self.without != Some(check)
    }
}

/// What is concluded about a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// False when the bundle was checked against the keys it brings along, which shows nothing.
    pub trusted: bool,
    /// Every node that was expected is here in full.
    pub complete: bool,
    /// Complete, and no row of the range can be missing.
    pub proven: bool,
    /// Not complete only because rows were pruned that had outlived the policy: from here on every node that was expected is here in full,
    /// and nothing can be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<Timestamp>,
    /// What a reader should know and nobody is accused of: instants of members that were moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    pub rows: u64,
    pub nodes: Vec<NodeVerdict>,
    /// What is wrong. Empty, or the bundle is refused.
    pub findings: Vec<Finding>,
    pub findings_count: usize,
    /// The file could not be checked with this trust file; its author is not accused of anything. The only finding says why.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_checked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Of an archive of pruned rows, which has no manifest.
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

    /// Nothing is concluded: the file, or the trust file, is another one than was meant.
    pub(super) fn set_aside(mut self, why: impl Into<String>) -> Self {
        self.find(None, why);
        self.not_checked = true;
        self
    }

    pub fn is_sound(&self) -> bool {
        self.findings_count == 0
    }
}
