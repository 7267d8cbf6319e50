//! Request for a prune.

use piperoll_format::time::Timestamp;

/// Rows and archived logs that a prune should remove.
#[derive(Debug, Clone, Copy)]
pub struct PruneTarget {
    /// Time before which rows are pruned.
    pub before: Timestamp,
    /// Seq at which pruning stops: no row from this seq on is pruned.
    pub to_max: u64,
    /// An archived log is removed only if all of its rows are older than this time. If `before` is [`Timestamp::MAX`], only the
    /// rows that were added after the log was archived count.
    pub earlier_before: Timestamp,
}
