//! Log start of a node, and the cluster's retention policy.

use std::sync::Arc;

use piperoll_evidence::bundle::{KeepPolicy, PolicyFit};
use piperoll_format::ids::Generation;
use piperoll_format::note::VerifyingKey;
use piperoll_format::time::Timestamp;

/// What the cluster's administrators say about how long rows have to stay, and whose cosignatures show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keeping {
    pub(crate) policies: Arc<[KeepPolicy]>,
    pub(crate) witnesses: Arc<[VerifyingKey]>,
}

/// What an aggregator concluded of the rows that a node pruned last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The first row that is left.
    pub(crate) to_seq: u64,
    /// Of the log that it is about.
    pub(crate) generation: Generation,
    /// From here on nothing is missing for having been pruned.
    pub(crate) since: Timestamp,
    pub(crate) fit: PolicyFit,
}
