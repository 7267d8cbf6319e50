//! Keys that seal and sign a log.

use piperoll_format::ids::Generation;
use piperoll_format::mac::{KeyRing, Origin};
use piperoll_format::note::{SigningSeed, VerifyingKey};

/// What a log is sealed and signed with.
#[derive(Clone)]
pub struct LogKeys {
    pub ring: KeyRing,
    /// Signs checkpoints.
    pub checkpoint: SigningSeed,
    /// Signs them too, while it takes over.
    pub next_checkpoint: Option<SigningSeed>,
    /// Whose cosignatures count: the cluster's witnesses. Without any no row goes by itself.
    pub witnesses: Vec<VerifyingKey>,
}

impl LogKeys {
    /// The name of a generation's log, and of the key that signs its checkpoints.
    pub fn origin(&self, generation: Generation) -> String {
        let (cluster, node_id) = (self.ring.cluster().clone(), self.ring.node_id().clone());
        Origin { cluster, node_id, generation }.to_text()
    }
}
