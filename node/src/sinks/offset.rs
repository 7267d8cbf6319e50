//! Stores the offset of each destination in a small file of its own, which is replaced atomically.

use std::path::{Path, PathBuf};

use piperoll_format::time::Timestamp;
use piperoll_net::atomic_file::replace;
use piperoll_siem::Format;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::config::ForwardConfig;
use crate::store::AdminError;

/// An error while reading or writing an offset.
#[derive(Debug, thiserror::Error)]
pub enum OffsetError {
    #[error("{path}: {source}; the forwarding offset is stored there, so check the disk and the directory's owner")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} does not contain a valid forwarding offset ({problem}); move it away to forward everything again")]
    Content { path: PathBuf, problem: String },
}

impl From<OffsetError> for AdminError {
    fn from(error: OffsetError) -> Self {
        Self::Read(error.to_string())
    }
}

/// Contents of an offset file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredOffset {
    pub(super) generation: String,
    /// Number of the next row: all rows before it have arrived.
    pub(super) next_seq: u64,
    /// The configuration at the last start; it is compared with the current one to detect changes.
    pub(super) wanted: DesiredConfig,
    pub(super) paused: Option<Pause>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DesiredConfig {
    pub(super) to: String,
    pub(super) format: Format,
    pub(super) filter: String,
    /// Digest of all settings, so that a change of the certificate authority, or of the receiver at the same address, counts as
    /// well.
    pub(super) settings: String,
}

impl DesiredConfig {
    pub(super) fn of(config: &ForwardConfig) -> Self {
        let ForwardConfig { target, format, filter_text, confirm_every, .. } = config;
        let settings = hex::encode(Sha256::digest(format!("{target:?} {confirm_every:?}")));
        Self { to: target.shown(), format: *format, filter: filter_text.clone(), settings }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) since: Timestamp,
}

#[derive(Clone)]
pub(super) struct OffsetFile {
    path: PathBuf,
}

impl OffsetFile {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{name}.json")) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the offset; `None` before the first start with this destination.
    pub(super) fn read(&self) -> Result<Option<StoredOffset>, OffsetError> {
        let text = match std::fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io(source)),
        };
        let place = serde_json::from_str(&text)
            .map_err(|e| OffsetError::Content { path: self.path.clone(), problem: e.to_string() })?;
        Ok(Some(place))
    }

    /// Renames a damaged file, and returns its new path.
    pub(super) fn set_aside(&self) -> Result<PathBuf, OffsetError> {
        let aside = self.path.with_extension("json.damaged");
        std::fs::rename(&self.path, &aside).map_err(|e| self.io(e))?;
        Ok(aside)
    }

    /// Writes the offset; it is on disk when this returns.
    pub(super) fn write(&self, place: &StoredOffset) -> Result<(), OffsetError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| self.io(e))?;
        let text = serde_json::to_string_pretty(place)
            .map_err(|e| OffsetError::Content { path: self.path.clone(), problem: e.to_string() })?;
        replace(&self.path, text.as_bytes()).map_err(|e| self.io(e))
    }

    pub(super) fn remove(&self) -> Result<(), OffsetError> {
        std::fs::remove_file(&self.path).map_err(|e| self.io(e))
    }

    fn io(&self, source: std::io::Error) -> OffsetError {
        OffsetError::Io { path: self.path.clone(), source }
    }
}

/// Reads the offsets of destinations that are no longer configured.
pub(super) fn others(folder: &Path, configs: &[ForwardConfig]) -> Result<Vec<(String, StoredOffset)>, OffsetError> {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(OffsetError::Io { path: folder.to_owned(), source }),
    };
    let mut others = Vec::new();
    for found in listed {
        let path = found.map_err(|source| OffsetError::Io { path: folder.to_owned(), source })?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")).map(str::to_owned);
        let Some(name) = name.filter(|name| configs.iter().all(|config| config.name != *name)) else { continue };
        match OffsetFile::new(folder, &name).read() {
            Ok(Some(place)) => others.push((name, place)),
            Ok(None) => {}
            // Not fatal: the offset of a destination that is no longer configured is not needed.
            Err(error) => {
                tracing::warn!(%error, "cannot read the offset of a destination that is no longer configured")
            }
        }
    }
    Ok(others)
}
