//! Counters of spooled entries, the readable extent of the current segment, and the errors of spooling.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Reason why an entry could not be spooled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The spool has reached its size limit.
    #[error(
        "the spool in {folder} is full ({bytes} bytes); entries are accepted again once the node has recorded some of those in the spool"
    )]
    Full {
        /// The spool directory.
        folder: PathBuf,
        /// Its limit.
        bytes: u64,
    },
    /// A file cannot be written or synced.
    #[error("cannot write to the spool in {folder}: {problem}")]
    Write {
        /// The spool directory.
        folder: PathBuf,
        /// Error message of the operating system.
        problem: String,
    },
    /// The directory cannot be created or used.
    #[error("cannot use the spool directory {folder}: {problem}")]
    Open {
        /// The spool directory.
        folder: PathBuf,
        /// Reason why the directory cannot be used.
        problem: String,
    },
    /// Another process holds the directory's lock.
    #[error("the spool directory {folder} is in use by another process; give each process its own")]
    Locked {
        /// The spool directory.
        folder: PathBuf,
    },
    /// The recorder was closed.
    #[error("the spool is closed")]
    Closed,
}

/// Counts of the entries that wait in the spool.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Wakes the task that reads the spool.
    pub(crate) more: Notify,
    /// Entries and bytes of each existing segment, including entries that have been sent already.
    segments: Mutex<HashMap<u64, (u64, u64)>>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.load(Ordering::Acquire) == 0
    }

    /// Counts an entry before it is written, so that `settled` cannot deduct it before it is counted. Returns false if the spool
    /// is full.
    pub(super) fn reserve(&self, bytes: u64, max: u64) -> bool {
        let more = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= max);
        if self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return false;
        }
        self.entries.fetch_add(1, Ordering::AcqRel);
        true
    }

    pub(super) fn in_segment(&self, number: u64, entries: u64, bytes: u64) {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = segments.entry(number).or_default();
        *counts = (counts.0 + entries, counts.1 + bytes);
    }

    pub(super) fn without_segment(&self, number: u64) -> (u64, u64) {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner).remove(&number).unwrap_or_default()
    }

    pub(crate) fn settled(&self, entries: u64, bytes: u64) {
        let less = |of: &AtomicU64, by: u64| {
            let _ = of.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(now.saturating_sub(by)));
        };
        less(&self.bytes, bytes);
        less(&self.entries, entries);
    }
}

/// Number of the segment that is being written, and how far it may be read: bytes after `end` are not acknowledged yet.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Written {
    pub(super) number: u64,
    pub(super) end: u64,
}
