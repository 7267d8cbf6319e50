//! Request for a prune.

use piperoll_format::time::Timestamp;

/// Rows and archived logs that a prune should remove.
#[derive(Debug, Clone, Copy)]
pub struct PruneTarget {
    /// Time before which rows are pruned.
    pub before: Timestamp,
    /// Seq from which on no rows are pruned.
    pub to_max: u64,
    /// Time that all entries recorded in an archived log after it was archived must precede for the log to be removed. If
    /// `before` is a time, all rows of the log must precede it.
    pub earlier_before: Timestamp,
}
