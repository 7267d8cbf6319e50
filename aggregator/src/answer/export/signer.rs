//! Holds the key that signs bundles and the directory in which they are assembled.

use std::io;
use std::path::{Path, PathBuf};

use piperoll_evidence::bundle::{KeepPolicy, KeySpan, NodeTrust, Trust};
use piperoll_format::ids::ClusterName;
use piperoll_format::note::{SigningKey, VerifyingKey};

use crate::config::RosterNode;

/// Key that signs bundles, and the directory in which they are assembled.
pub(crate) struct Exporter {
    pub(crate) cluster: ClusterName,
    pub(crate) key: SigningKey,
    pub(crate) dir: PathBuf,
    /// Text of the trust file that is included in a bundle.
    pub(crate) trust: String,
}

impl Exporter {
    pub(crate) fn new(
        cluster: ClusterName,
        key: SigningKey,
        witness: &VerifyingKey,
        state_dir: &Path,
        roster: &[RosterNode],
        retention: &[KeepPolicy],
    ) -> io::Result<Self> {
        let dir = state_dir.join("exports");
        if !dir.exists() {
            std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700).create(&dir)?;
        }
        let nodes = roster.iter().map(|node| NodeTrust {
            id: node.id.clone(),
            life: node.life,
            moved: node.moved.clone(),
            keys: node
                .checkpoint_key
                .map(|public| KeySpan { public, generation: None, from_size: 0, to_size: None, until: None })
                .into_iter()
                .collect(),
        });
        let trust = Trust {
            cluster: cluster.clone(),
            nodes: nodes.collect(),
            witnesses: vec![witness.clone()],
            exporters: vec![key.public().clone()],
            retention: retention.to_vec(),
            archives: Vec::new(),
        };
        Ok(Self { cluster, key, dir, trust: trust.to_text() })
    }
}
