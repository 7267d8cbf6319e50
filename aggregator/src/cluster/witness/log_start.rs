//! Log start of a node, and the cluster's retention policy.

use std::sync::Arc;

use piperoll_evidence::bundle::{KeepPolicy, PolicyFit};
use piperoll_format::ids::Generation;
use piperoll_format::note::VerifyingKey;
use piperoll_format::time::Timestamp;

/// Retention policies set by the cluster's administrators, and the witnesses whose cosignatures show that the policies are
/// followed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keeping {
    pub(crate) policies: Arc<[KeepPolicy]>,
    pub(crate) witnesses: Arc<[VerifyingKey]>,
    /// Whether the last checkpoint of every day is kept for the archive.
    pub(crate) day_checkpoints: bool,
}

/// The aggregator's conclusion about the rows that a node pruned last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogStart {
    /// Seq of the first retained row.
    pub(crate) to_seq: u64,
    /// Generation of the pruned log.
    pub(crate) generation: Generation,
    /// Time from which on no row was pruned.
    pub(crate) since: Timestamp,
    pub(crate) fit: PolicyFit,
}
