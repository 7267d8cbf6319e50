//! Lines appended to a file that others read, and may rotate away.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::sink::SinkError;

/// Readable for the group, which is how log shippers read.
const MODE: u32 = 0o640;

pub(super) struct FileSink {
    path: PathBuf,
    open: Option<std::fs::File>,
}

impl FileSink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    pub(super) fn reset(&mut self) {
        self.open = None;
    }

    /// Writes whole lines or, as far as the file system lets us, none.
    pub(super) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), SinkError> {
        let (path, open) = (self.path.clone(), self.open.take());
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<std::fs::File> {
            let mut file = match open.filter(|file| is_still_there(&path, file)) {
                Some(file) => file,
                None => open_to_append(&path)?,
            };
            let before = file.metadata()?.len();
            if let Err(error) = file.write_all(&bytes) {
                // A line that is cut off would be read as one. Whoever has appended meanwhile keeps what they wrote.
                let cut = file.metadata()?.len();
                if cut <= before + bytes.len() as u64 {
                    let _ = file.set_len(before);
                }
                return Err(error);
            }
            Ok(file)
        });
        let file = written.await.map_err(|e| self.problem(e))?.map_err(|e| self.problem(e))?;
        self.open = Some(file);
        Ok(())
    }

    pub(super) async fn confirm(&mut self) -> Result<(), SinkError> {
        let Some(file) = self.open.take() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || file.sync_data().map(|()| file));
        let file = synced.await.map_err(|e| self.problem(e))?.map_err(|e| self.problem(e))?;
        self.open = Some(file);
        Ok(())
    }

    fn problem(&self, problem: impl std::fmt::Display) -> SinkError {
        SinkError::new(self.path.display(), problem)
    }
}

/// False when it was rotated away or removed: the next lines belong into the file that is there now.
fn is_still_there(path: &Path, file: &std::fs::File) -> bool {
    let (Ok(named), Ok(held)) = (std::fs::metadata(path), file.metadata()) else { return false };
    (named.dev(), named.ino()) == (held.dev(), held.ino())
}

fn open_to_append(path: &Path) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).read(true).mode(MODE).open(path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    // A crash in the middle of a line leaves it without its end; what comes next must not be taken for the rest of it.
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
