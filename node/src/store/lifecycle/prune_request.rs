//! Request for a prune.

use piperoll_format::time::Timestamp;

/// What should go.
#[derive(Debug, Clone, Copy)]
pub struct PruneWish {
    /// Rows recorded before this time.
    pub before: Timestamp,
    /// No row at this seq or above.
    pub to_max: u64,
    /// Logs that stood here before go only if what was recorded in them after they were put aside is older than this, and all of it
    /// where `before` is a time.
    pub earlier_before: Timestamp,
}
