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

/// What is known of how far a source was read.
pub(super) enum Known {
    /// Nothing was read yet.
    Nothing,
    Mark(Mark),
    /// Something was read once: begin at the beginning, also where only what comes from now on was wanted.
    Lost,
}

#[derive(Clone)]
pub(super) struct MarkFile {
    path: PathBuf,
}

impl MarkFile {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{name}.json")) }
    }

    /// A file that is damaged is set aside: the log does not wait for it.
    pub(super) fn read(&self) -> Result<Known, String> {
        match std::fs::read(&self.path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(mark) => Ok(Known::Mark(mark)),
                Err(error) => {
                    let aside = self.path.with_extension("json.damaged");
                    std::fs::rename(&self.path, &aside).map_err(|e| format!("{}: {e}", self.path.display()))?;
                    tracing::error!(
                        file = %self.path.display(), aside = %aside.display(), %error,
                        "how far a source was read is not known any more; it is read from its beginning, and what is recorded is known by its ids"
                    );
                    Ok(Known::Lost)
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::Nothing),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    pub(super) fn write(&self, mark: &Mark) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        replace(&self.path, serde_json::to_string(mark)?.as_bytes())
    }
}
