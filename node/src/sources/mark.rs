//! Stores the position of each source in a small file of its own, which is replaced atomically.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use piperoll_net::atomic_file::replace;
use serde::{Deserialize, Serialize};

/// Position of a source: everything before it has been recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Mark {
    /// Cursor of the journal entry that was read last. Versions before 0.2 wrote this; it is still read, but no longer written.
    Journal { cursor: String },
    /// Position in each number sequence of a journal, by the sequence's id.
    Journals { sequences: BTreeMap<String, Reached> },
    /// Digest of the file's first line, and offset in bytes. Versions before 0.2 wrote this; it is still read, but no longer written.
    File { life: String, offset: u64 },
    /// Positions in the followed file and in the files that had its name earlier, oldest first. `next` is the number that the
    /// next new file will get. Rotated files that have not changed since `since` (nanoseconds since 1970) need not be read.
    Files { files: Vec<FilePosition>, next: u64, since: i64 },
}

/// Position in one sequence of numbers of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reached {
    /// Number of the last entry that was recorded or passed over.
    pub(super) read: u64,
    /// Number of the last entry that was reached; entries of other units count as well.
    pub(super) through: u64,
    /// Time of the last entry, in microseconds since 1970.
    pub(super) time: u64,
    /// Boot, times and hash of the last entry.
    pub(super) content: String,
    /// Number of entries with the same `content` that directly precede the last entry.
    pub(super) repeats: u32,
    /// Set if a journal file of this sequence had not been rotated yet and may therefore have grown since.
    pub(super) is_open: bool,
}

/// Position in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePosition {
    /// SHA-256 of the file's first line.
    pub(super) first: String,
    /// Number of the file among those that have had the followed name. Ids are derived from it, unless it is 0.
    pub(super) number: u64,
    /// Number of bytes that were read, after decompression.
    pub(super) offset: u64,
    /// SHA-256 of the bytes that were read.
    pub(super) prefix: String,
    /// Time of the file's last change, as of the last poll, in nanoseconds since 1970.
    pub(super) modified: i64,
    /// Inode of the file at the last poll; 0 if the file was truncated in place.
    pub(super) inode: u64,
    /// Length of the file at the last poll, in bytes.
    pub(super) length: u64,
    /// Set if the file no longer has the followed name, was read to its end, and has not grown for a while.
    pub(super) is_ended: bool,
}

/// Outcome of reading the position of a source.
pub(super) enum Known {
    /// Nothing has been read from the source yet.
    Nothing,
    Mark(Mark),
    /// The source was read before, but its position is lost: start at the beginning, even if only new records were requested.
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

    /// Reads the position. A damaged file is renamed, so that reading can continue without it.
    pub(super) fn read(&self) -> Result<Known, String> {
        match std::fs::read(&self.path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(mark) => Ok(Known::Mark(mark)),
                Err(error) => {
                    let aside = self.path.with_extension("json.damaged");
                    std::fs::rename(&self.path, &aside).map_err(|e| format!("{}: {e}", self.path.display()))?;
                    tracing::error!(
                        file = %self.path.display(), aside = %aside.display(), %error,
                        "the offset of a source is lost; reading the source again from its beginning (entries already recorded are recognized by their ids)"
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
