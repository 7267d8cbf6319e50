//! Writes segments on a thread of its own; queued entries share one sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::extent::Extent;
use super::record::SpooledEntry;
use super::segment::path_of;
use super::waiting::{SpoolError, Waiting, Written};
use crate::loss_counters::{Cause, LossCounters};

/// Size at which a new segment is started. A segment can only be removed as a whole.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

pub(super) enum Job {
    Keep { kept: SpooledEntry, sync: bool, reply: oneshot::Sender<Result<(), SpoolError>> },
    TurnOver { reply: oneshot::Sender<()> },
}

pub(super) struct Writer {
    folder: PathBuf,
    next: u64,
    open: Option<OpenSegment>,
    waiting: Arc<Waiting>,
    /// Number and readable end of the current segment; used by `Spool::end_of`.
    written: Arc<Mutex<Written>>,
    /// Counts entries that cannot be written; their callers may have stopped waiting and so cannot count them.
    ledger: Arc<LossCounters>,
}

struct OpenSegment {
    number: u64,
    file: File,
    /// Offset of the end of the last complete record.
    end: u64,
    /// Count of acknowledged records, in a separate file; `None` if that file cannot be created.
    extent: Option<Extent>,
    /// Whether the file's directory entry is synced; otherwise a power failure would lose the content.
    is_named: bool,
}

type Reply = oneshot::Sender<Result<(), SpoolError>>;

impl Writer {
    pub(super) fn new(
        folder: PathBuf,
        next: u64,
        waiting: Arc<Waiting>,
        written: Arc<Mutex<Written>>,
        ledger: Arc<LossCounters>,
    ) -> Self {
        Self { folder, next, open: None, waiting, written, ledger }
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut group = vec![job];
            while let Ok(job) = jobs.try_recv() {
                group.push(job);
            }
            let mut waiting = Vec::new();
            for job in group {
                match job {
                    Job::Keep { kept, sync, reply } => waiting.push((kept, sync, reply)),
                    Job::TurnOver { reply } => {
                        self.keep(std::mem::take(&mut waiting));
                        self.close();
                        let _ = reply.send(());
                    }
                }
            }
            self.keep(waiting);
        }
    }

    fn keep(&mut self, group: Vec<(SpooledEntry, bool, Reply)>) {
        if group.is_empty() {
            return;
        }
        let bytes: Vec<u8> = group.iter().flat_map(|(kept, ..)| kept.to_bytes()).collect();
        let sync = group.iter().any(|(_, sync, _)| *sync);
        let written = self.write(group.len() as u64, &bytes, sync);
        if let Err(error) = &written {
            tracing::error!(%error, folder = %self.folder.display(), "cannot write entries to the spool; counting them as lost");
        }
        for (kept, _, reply) in group {
            let result = written.as_ref().copied().map_err(|error| {
                self.waiting.settled(1, kept.bytes());
                self.ledger.lost(Cause::Unwritable, Some(1), kept.time);
                SpoolError::Write { folder: self.folder.clone(), problem: error.to_string() }
            });
            let _ = reply.send(result);
        }
        self.waiting.more.notify_one();
    }

    /// Closes the open segment, so that all of it can be read.
    fn close(&mut self) {
        self.open = None;
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Written::default();
    }

    fn write(&mut self, entries: u64, bytes: &[u8], sync: bool) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.end >= SEGMENT_BYTES) {
            self.close();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                // Publish the number before creating the file; otherwise `Spool::end_of` would take the new segment for a closed one.
                *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Written { number: self.next, end: 0 };
                self.open.insert(begin(&self.folder, &mut self.next)?)
            }
        };
        let written = open.file.write_all(bytes).and_then(|()| if sync { open.sync(&self.folder) } else { Ok(()) });
        match written {
            Ok(()) => {
                open.end += bytes.len() as u64;
                if let Some(extent) = &mut open.extent {
                    extent.add(entries);
                }
                self.waiting.in_segment(open.number, entries, bytes.len() as u64);
                *self.written.lock().unwrap_or_else(PoisonError::into_inner) =
                    Written { number: open.number, end: open.end };
            }
            // Cut off the bytes that were written, which would otherwise be taken for acknowledged records. If that fails too,
            // leave the file with its torn end and write later records to another segment.
            Err(_) => {
                if open.file.set_len(open.end).is_err() {
                    self.close();
                }
            }
        }
        written
    }
}

impl OpenSegment {
    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        if !self.is_named {
            File::open(folder)?.sync_all()?;
            self.is_named = true;
        }
        Ok(())
    }
}

fn begin(folder: &Path, next: &mut u64) -> io::Result<OpenSegment> {
    let path = path_of(folder, *next);
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
    let number = *next;
    *next += 1;
    let extent = Extent::begin(folder, number).ok();
    Ok(OpenSegment { number, file, end: 0, extent, is_named: false })
}
