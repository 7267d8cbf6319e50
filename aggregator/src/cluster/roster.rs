//! The nodes of the roster, and the connections to them.

use std::path::Path;
use std::sync::Arc;

use piperoll_format::cursor::CursorKey;

use crate::cluster::archive::ClusterArchive;
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;

/// Nodes of the cluster, with the time limits and the cursor key for queries.
pub(crate) struct Cluster {
    /// Sorted by node ID, which the merge relies on.
    pub(crate) members: Vec<Arc<NodeHandle>>,
    pub(crate) limits: FanOutLimits,
    pub(crate) cursor_key: CursorKey,
    /// The archive from which rows are read that nodes no longer have, if one is configured.
    pub(crate) archive: Option<Arc<ClusterArchive>>,
}

/// Loads the cursor key, or creates it on first use. Cursors issued before a restart stay valid.
pub(crate) fn load_cursor_key(dir: &Path) -> std::io::Result<CursorKey> {
    use std::os::unix::fs::DirBuilderExt as _;

    if !dir.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let path = dir.join("cursor.key");
    let mut secret = zeroize::Zeroizing::new([0u8; 32]);
    let damaged = match piperoll_net::config_files::read_private(&path) {
        Ok(bytes) => hex::decode_to_slice(bytes.trim_ascii(), secret.as_mut_slice()).is_err(),
        Err(piperoll_net::config_files::FileError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            false
        }
        Err(error) => return Err(std::io::Error::other(error.to_string())),
    };
    if damaged {
        // The key protects only cursors. Losing it invalidates the cursors in use and nothing else.
        let aside = dir.join("cursor.key.damaged");
        std::fs::rename(&path, &aside)?;
        tracing::error!(
            file = %path.display(), aside = %aside.display(),
            "the cursor key was damaged; created a new one, so open pages have to be reloaded"
        );
    }
    if !path.exists() {
        getrandom::fill(secret.as_mut_slice()).map_err(|e| std::io::Error::other(e.to_string()))?;
        // Written atomically: a crash here must not leave a file that the next start would treat as damaged.
        piperoll_net::atomic_file::replace(&path, hex::encode(secret.as_slice()).as_bytes())?;
    }
    Ok(CursorKey::new(&secret))
}
