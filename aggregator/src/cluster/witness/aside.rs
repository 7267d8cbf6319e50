//! An archived log of a node, and whether it was checked.

use std::time::Instant;

use piperoll_protocol::node::LogAside;

/// An archived log that the node was asked about.
#[derive(Debug, Clone)]
pub(crate) struct PolledLog {
    pub(crate) aside: LogAside,
    pub(crate) at: Instant,
    /// Whether the node reported the time span of the log and which log preceded it.
    pub(crate) is_known: bool,
}

impl PolledLog {
    /// Whether the node answered for this log and has reported no change to the log since then.
    pub(crate) fn knows(&self, aside: &LogAside) -> bool {
        self.is_known && self.aside == *aside
    }
}
