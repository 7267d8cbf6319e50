//! Appends lines to a file that other programs read and may rotate.

use std::fs::{File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::batch::SinkError;

/// Mode of the file: readable by the group, because log shippers read as group members.
const MODE: u32 = 0o640;

pub(super) struct FileSink {
    path: PathBuf,
    open: Option<File>,
    /// Set if data was written since the last confirmation. Once the file that received the data is closed, it can no longer be
    /// confirmed that the data is on disk.
    is_written: bool,
}

impl FileSink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None, is_written: false }
    }

    pub(super) fn reset(&mut self) {
        (self.open, self.is_written) = (None, false);
    }

    /// Writes all lines. If writing fails, leaves none of them in the file, as far as the file system allows.
    pub(super) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), SinkError> {
        if self.open.is_none() && self.is_written {
            return Err(self.problem("a write to the file was aborted"));
        }
        self.is_written = true;
        let (path, open) = (self.path.clone(), self.open.take());
        let written = tokio::task::spawn_blocking(move || append(&path, open, &bytes));
        self.open = Some(written.await.map_err(|e| self.problem(e))?.map_err(|e| self.problem(e))?);
        Ok(())
    }

    pub(super) async fn confirm(&mut self) -> Result<(), SinkError> {
        if !self.is_written {
            return Ok(());
        }
        let file = self.open.take().ok_or_else(|| self.problem("a write to the file was aborted"))?;
        let synced = tokio::task::spawn_blocking(move || file.sync_data().map(|()| file));
        self.open = Some(synced.await.map_err(|e| self.problem(e))?.map_err(|e| self.problem(e))?);
        self.is_written = false;
        Ok(())
    }

    fn problem(&self, problem: impl std::fmt::Display) -> SinkError {
        SinkError::new(self.path.display(), problem)
    }
}

fn append(path: &Path, open: Option<File>, bytes: &[u8]) -> std::io::Result<File> {
    let mut file = match open {
        Some(file) if is_still_there(path, &file) => file,
        Some(rotated) => {
            // Lines that were written to the rotated file must be confirmed too.
            rotated.sync_data()?;
            open_to_append(path)?
        }
        None => open_to_append(path)?,
    };
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(bytes) {
        // Remove a partial line, which would be read as a complete one. If the file has grown by more than this write, another
        // process has appended to it: in that case, keep everything.
        let cut = file.metadata()?.len();
        if cut <= before + bytes.len() as u64 {
            let _ = file.set_len(before);
        }
        return Err(error);
    }
    Ok(file)
}

/// Whether `path` still names the open file. After a rotation or removal, the next lines are written to the file that then has
/// this name.
fn is_still_there(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(held)) = (std::fs::metadata(path), file.metadata()) else { return false };
    (named.dev(), named.ino()) == (held.dev(), held.ino())
}

fn open_to_append(path: &Path) -> std::io::Result<File> {
    let is_new = !path.exists();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).read(true).open(path)?;
    if is_new {
        // Set the mode explicitly, regardless of the daemon's umask.
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    // A crash in the middle of a line leaves a fragment without a line end; the next line must not be joined to it.
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}
