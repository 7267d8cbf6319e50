//! Request for a prune.

use piperoll_format::time::Timestamp;

/// Rows and archived logs that a prune should remove.
#[derive(Debug, Clone, Copy)]
pub struct PruneTarget {
    /// Time before which rows are pruned.
    pub before: Timestamp,
    /// Seq at which pruning stops: no row from this seq on is pruned.
    pub to_max: u64,
    /// An archived log is removed only if all entries that were recorded in it after it was archived are older than this time. If
    /// `before` is a time, this applies to all rows of the log.
    pub earlier_before: Timestamp,
}
