//! An archived log of a node, and whether it was checked.

use std::time::Instant;

use piperoll_protocol::node::LogAside;

/// A log that was asked about.
#[derive(Debug, Clone)]
pub(crate) struct LookedAt {
    pub(crate) aside: LogAside,
    pub(crate) at: Instant,
    /// The node said which times it has, and which log was there before it.
    pub(crate) is_known: bool,
}

impl LookedAt {
    /// What the node says of a log now is what was looked at.
    pub(crate) fn knows(&self, aside: &LogAside) -> bool {
        self.is_known && self.aside == *aside
    }
}
