//! The one thread that writes segments: what waits for it goes to the disk together.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::record::Kept;
use super::segment::path_of;
use super::{SpoolError, Waiting};

/// A segment that is longer is followed by another one; it can only be removed as a whole.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

pub(super) enum Job {
    Keep { kept: Kept, sync: bool, reply: oneshot::Sender<Result<(), SpoolError>> },
    TurnOver { reply: oneshot::Sender<()> },
}

pub(super) struct Writer {
    folder: PathBuf,
    next: u64,
    open: Option<Open>,
    waiting: Arc<Waiting>,
}

struct Open {
    file: File,
    /// Behind the last whole record.
    end: u64,
    /// The file's name is on the disk, without which its content is lost with the machine.
    is_named: bool,
}

type Reply = oneshot::Sender<Result<(), SpoolError>>;

impl Writer {
    pub(super) fn new(folder: PathBuf, next: u64, waiting: Arc<Waiting>) -> Self {
        Self { folder, next, open: None, waiting }
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut group = vec![job];
            while let Ok(job) = jobs.try_recv() {
                group.push(job);
            }
            let (mut bytes, mut entries, mut replies, mut sync) = (Vec::new(), 0, Vec::new(), false);
            for job in group {
                match job {
                    Job::Keep { kept, sync: this, reply } => {
                        bytes.extend(kept.to_bytes());
                        entries += 1;
                        sync |= this;
                        replies.push(reply);
                    }
                    Job::TurnOver { reply } => {
                        self.keep(&bytes, entries, sync, std::mem::take(&mut replies));
                        (entries, sync) = (0, false);
                        bytes.clear();
                        self.open = None;
                        let _ = reply.send(());
                    }
                }
            }
            self.keep(&bytes, entries, sync, replies);
        }
    }

    fn keep(&mut self, bytes: &[u8], entries: u64, sync: bool, replies: Vec<Reply>) {
        if bytes.is_empty() {
            return;
        }
        let written = self.write(bytes, sync);
        if let Err(error) = &written {
            tracing::error!(%error, folder = %self.folder.display(), "entries could not be kept in the spool");
        } else {
            self.waiting.add(entries, bytes.len() as u64);
        }
        for reply in replies {
            let result = written
                .as_ref()
                .map(|()| ())
                .map_err(|error| SpoolError::Write { folder: self.folder.clone(), problem: error.to_string() });
            let _ = reply.send(result);
        }
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.end >= SEGMENT_BYTES) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(begin(&self.folder, &mut self.next)?),
        };
        let written = open.file.write_all(bytes).and_then(|()| if sync { open.sync(&self.folder) } else { Ok(()) });
        match written {
            Ok(()) => open.end += bytes.len() as u64,
            Err(_) => {
                // What of it is there would be taken for acknowledged. If it cannot even be cut off, the file is left to its
                // torn end, and what comes next goes into another one.
                let _ = open.file.set_len(open.end);
                self.open = None;
            }
        }
        written
    }
}

impl Open {
    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        if !self.is_named {
            File::open(folder)?.sync_all()?;
            self.is_named = true;
        }
        Ok(())
    }
}

fn begin(folder: &Path, next: &mut u64) -> io::Result<Open> {
    let path = path_of(folder, *next);
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
    *next += 1;
    Ok(Open { file, end: 0, is_named: false })
}
