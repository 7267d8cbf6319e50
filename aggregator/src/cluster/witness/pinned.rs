//! The checkpoint of a node that an answer is verified against.

use std::sync::Arc;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::Hash;
use piperoll_format::time::Timestamp;

/// A cosigned checkpoint of one log of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) generation: Generation,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    /// The node's checkpoint with this witness's cosignature.
    pub(crate) note: Arc<str>,
    /// Time of the last cosignature.
    pub(crate) seen: Timestamp,
}
