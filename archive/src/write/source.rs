//! Interface through which the writer reads rows of the nodes.

use std::future::Future;
use std::ops::Range;

use piperoll_format::merkle::Hash;
use piperoll_format::verify::EpochSpan;

use crate::row::{ArchivedRow, LogId};

/// Reason why a node's rows could not be read, as text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Consecutive rows of one log, in the order of seq.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    pub rows: Vec<ArchivedRow>,
    /// All epochs of the log's MAC keys, according to its node.
    pub epochs: Vec<EpochSpan>,
}

/// Rows that are due: those of one log up to a cosigned checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub log: LogId,
    /// Checkpoint with the log's signature and the cosignature of a witness.
    pub checkpoint: String,
}

/// Reads rows of nodes.
pub trait Source: Send + Sync {
    /// First row that the log still has.
    fn first_seq(&self, log: &LogId) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Reads the rows of `range` and verifies their MACs. May return fewer rows than requested, but at least one.
    fn rows(&self, log: &LogId, range: Range<u64>) -> impl Future<Output = Result<Chunk, SourceError>> + Send;

    /// Returns the range proof of `range` in the tree of `size` rows: hashes that cover the rows before and after it. The caller
    /// verifies it.
    fn proof(
        &self,
        log: &LogId,
        range: Range<u64>,
        size: u64,
    ) -> impl Future<Output = Result<Vec<Hash>, SourceError>> + Send;
}
