//! Keys for the MACs and the signatures of a log.

use piperoll_format::ids::Generation;
use piperoll_format::mac::{KeyRing, Origin};
use piperoll_format::note::{SigningSeed, VerifyingKey};

/// Keys for the MACs and the signatures of a log.
#[derive(Clone)]
pub struct LogKeys {
    pub ring: KeyRing,
    /// Signs checkpoints.
    pub checkpoint: SigningSeed,
    /// Next checkpoint key, which also signs during a rotation.
    pub next_checkpoint: Option<SigningSeed>,
    /// Keys of the cluster's witnesses; cosignatures by other keys do not count. Without witnesses, retention never removes rows
    /// automatically.
    pub witnesses: Vec<VerifyingKey>,
    /// Mirror key of the cluster's archive. If it is set, only rows that the archive has are pruned.
    pub archive: Option<VerifyingKey>,
}

impl LogKeys {
    /// Returns the origin of a generation: the name of its log and of the key that signs the log's checkpoints.
    pub fn origin(&self, generation: Generation) -> String {
        let (cluster, node_id) = (self.ring.cluster().clone(), self.ring.node_id().clone());
        Origin { cluster, node_id, generation }.to_text()
    }
}
