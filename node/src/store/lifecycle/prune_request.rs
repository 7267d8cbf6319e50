//! Request for a prune.

use piperoll_format::time::Timestamp;

/// Rows and archived logs that a prune should remove.
#[derive(Debug, Clone, Copy)]
pub struct PruneTarget {
    /// Prune rows recorded before this time.
    pub before: Timestamp,
    /// Prune no row at this seq or above.
    pub to_max: u64,
    /// Remove archived logs only if what was recorded in them after they were archived is older than this, and, where `before` is a
    /// time, all of their rows are.
    pub earlier_before: Timestamp,
}
