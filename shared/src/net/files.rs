//! Secret files: 0600 or they are not read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A file of a configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}; check the path in the configuration and the file's owner")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} holds a secret but others may read it (mode {mode:o}); run `chmod 600 {path}`", path = path.display())]
    TooOpen { path: PathBuf, mode: u32 },
}

pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::Io { path: path.to_owned(), source })
}

/// Reads a private file; one that group or others could read is refused, because then it is no secret.
pub fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let meta = std::fs::metadata(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::TooOpen { path: path.to_owned(), mode });
    }
    read(path)
}
