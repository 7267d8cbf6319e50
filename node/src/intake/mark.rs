//! How far a source was read: one small file each, replaced whole.

use std::path::{Path, PathBuf};

use piperoll_shared::net::replaced::replace;
use serde::{Deserialize, Serialize};

/// Everything in front of it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Mark {
    /// The journal's own words for a place.
    Journal { cursor: String },
    /// Digest of the file's first line, and bytes.
    File { life: String, offset: u64 },
}

#[derive(Clone)]
pub(super) struct MarkFile {
    path: PathBuf,
}

impl MarkFile {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{name}.json")) }
    }

    /// None before the first record.
    pub(super) fn read(&self) -> Result<Option<Mark>, String> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| {
                format!("{} does not say how far was read ({e}); move it away to begin anew", self.path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    pub(super) fn write(&self, mark: &Mark) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        replace(&self.path, serde_json::to_string(mark)?.as_bytes())
    }
}
