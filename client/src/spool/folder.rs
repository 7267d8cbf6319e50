//! The spool directory and its writer thread.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::now;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, oneshot};

use super::extent;
use super::record::SpooledEntry;
use super::segment::{self, SegmentReader, numbers, path_of};
use super::waiting::{SpoolError, Waiting, Written};
use super::writer::{Job, Writer};
use crate::loss_counters::{Cause, LossCounters};

/// Maximum number of entries queued for the writer thread.
const JOBS_MAX: usize = 8_192;
const LOCK: &str = "lock";

/// Counts as lost the acknowledged entries that are missing from a segment. After a crash before `extent::remove`, they are
/// counted again at the next start: counting a loss twice is better than missing it.
fn lost_from(folder: &Path, number: u64, missing: u64, ledger: &LossCounters) {
    tracing::error!(folder = %folder.display(), segment = number, missing, "a spool segment was truncated; counting the missing entries as lost");
    ledger.lost(Cause::Damaged, Some(missing), now().micros());
    if let Err(error) = extent::remove(folder, number) {
        tracing::warn!(%error, segment = number, "cannot remove the entry count of a spool segment; the loss is counted again at the next start");
    }
}

/// An open spool with a running writer thread.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    jobs: mpsc::Sender<Job>,
    waiting: Arc<Waiting>,
    written: Arc<Mutex<Written>>,
    bytes_max: u64,
    _lock: Flock<File>,
}

impl Spool {
    /// Opens the directory, which is created if it is missing, and counts the entries that wait in it and those known to be lost.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<(Self, Arc<LossCounters>), SpoolError> {
        let wrong = |e: std::io::Error| SpoolError::Open { folder: folder.to_owned(), problem: e.to_string() };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        let owner = std::fs::symlink_metadata(folder).map_err(wrong)?;
        if !owner.is_dir() || owner.uid() != nix::unistd::geteuid().as_raw() || owner.mode() & 0o022 != 0 {
            let problem =
                "it must be a directory that is owned by this user and not writable by others (chmod 700)".to_owned();
            return Err(SpoolError::Open { folder: folder.to_owned(), problem });
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join(LOCK));
        let lock = Flock::lock(lock.map_err(wrong)?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::Locked { folder: folder.to_owned() })?;
        let ledger = Arc::new(LossCounters::open(folder).map_err(wrong)?);
        let waiting = Arc::new(Waiting::default());
        let numbers = numbers(folder).map_err(wrong)?;
        for number in &numbers {
            let (entries, bytes, whole) = segment::count(&path_of(folder, *number)).map_err(wrong)?;
            // Do not count missing entries of a damaged segment here: when the segment is read, everything after the damage is
            // counted as lost, as an unknown number of entries.
            if let Some(missing) =
                extent::read(folder, *number).and_then(|kept| kept.checked_sub(entries)).filter(|n| *n > 0)
                && whole
            {
                lost_from(folder, *number, missing, &ledger);
            }
            waiting.entries.fetch_add(entries, Ordering::AcqRel);
            waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
            waiting.in_segment(*number, entries, bytes);
        }
        let counted = extent::numbers(folder).map_err(wrong)?;
        for number in counted.iter().filter(|number| !numbers.contains(number)) {
            if let Some(kept) = extent::read(folder, *number).filter(|kept| *kept > 0) {
                lost_from(folder, *number, kept, &ledger);
            }
            extent::remove(folder, *number).map_err(wrong)?;
        }
        let next = numbers.iter().chain(&counted).max().map_or(1, |last| last + 1);
        let (jobs, receive) = mpsc::channel(JOBS_MAX);
        let written = Arc::new(Mutex::new(Written::default()));
        let writer =
            Writer::new(folder.to_owned(), next, Arc::clone(&waiting), Arc::clone(&written), Arc::clone(&ledger));
        std::thread::Builder::new().name("audit-spool".to_owned()).spawn(move || writer.run(receive)).map_err(wrong)?;
        Ok((Self { folder: folder.to_owned(), jobs, waiting, written, bytes_max, _lock: lock }, ledger))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// Spools an entry; returns when the entry is in the file, and synced to the disk if `sync` is set. If the caller stops
    /// waiting, the writer thread still writes the entry, or counts it as lost.
    pub(crate) async fn keep(&self, kept: SpooledEntry, sync: bool) -> Result<(), SpoolError> {
        let bytes = kept.bytes();
        if !self.waiting.reserve(bytes, self.bytes_max) {
            return Err(SpoolError::Full {
                folder: self.folder.clone(),
                bytes: self.waiting.bytes.load(Ordering::Acquire),
            });
        }
        let (reply, answer) = oneshot::channel();
        if let Err(error) = self.jobs.try_send(Job::Keep { kept, sync, reply }) {
            self.waiting.settled(1, bytes);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => SpoolError::Full { folder: self.folder.clone(), bytes },
                mpsc::error::TrySendError::Closed(_) => SpoolError::Closed,
            });
        }
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Opens the oldest segment that is not in `done`, if there is one.
    pub(crate) fn oldest(&self, done: &HashSet<u64>) -> std::io::Result<Option<SegmentReader>> {
        match numbers(&self.folder)?.into_iter().find(|number| !done.contains(number)) {
            None => Ok(None),
            Some(number) => SegmentReader::open(path_of(&self.folder, number), number).map(Some),
        }
    }

    /// Returns how far a segment may be read; `None` if it is closed, so that all of it may be read.
    pub(crate) fn end_of(&self, segment: &SegmentReader) -> Option<u64> {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        (written.number == segment.number).then_some(written.end)
    }

    /// Removes a segment whose records are all in the log. If a crash undoes the removal, the records are sent again, and the
    /// node recognizes them as duplicates by their ids.
    pub(crate) fn remove(&self, segment: &SegmentReader) -> std::io::Result<()> {
        extent::remove(&self.folder, segment.number)?;
        segment.remove()?;
        self.waiting.without_segment(segment.number);
        Ok(())
    }

    /// Renames a segment whose remaining records cannot be read, so that an operator can try to recover them. Its entries no longer count
    /// as waiting.
    pub(crate) async fn quarantine(&self, segment: &SegmentReader) -> std::io::Result<PathBuf> {
        if self.end_of(segment).is_some() {
            // Close the segment first, so that later entries are not written to the renamed file.
            self.rotate().await;
        }
        let (entries, bytes) = self.waiting.without_segment(segment.number);
        // Records that were read have already been deducted one by one. The rest is lost, whether or not the file can be renamed.
        self.waiting.settled(entries.saturating_sub(segment.records), bytes.saturating_sub(segment.record_bytes));
        extent::remove(&self.folder, segment.number)?;
        segment.quarantine()
    }

    /// Closes the segment that is being written; later entries are written to a new one.
    pub(crate) async fn rotate(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::TurnOver { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::segment::Read;
    use std::io::Write as _;

    fn kept(n: u64) -> SpooledEntry {
        SpooledEntry { time: 7, text: format!("{{\"n\":{n}}}") }
    }

    async fn texts(spool: &Spool) -> Vec<String> {
        let mut reader = spool.oldest(&HashSet::new()).expect("a folder").expect("a segment");
        let mut texts = Vec::new();
        while let Read::Record(kept) = reader.next(None).expect("a file") {
            texts.push(kept.text);
        }
        texts
    }

    #[tokio::test]
    async fn what_is_kept_is_there_after_a_crash_and_a_torn_end_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let (spool, _) = Spool::open(dir.path(), 1_000_000).expect("a spool");
        for n in 0..3 {
            spool.keep(kept(n), true).await.expect("kept");
        }
        assert!(matches!(Spool::open(dir.path(), 1).expect_err("locked"), SpoolError::Locked { .. }));
        let segment = path_of(dir.path(), 1);
        drop(spool);
        let mut file = OpenOptions::new().append(true).open(&segment).expect("the segment");
        file.write_all(&kept(3).to_bytes()[..9]).expect("half a record");
        let (spool, _) = Spool::open(dir.path(), 1_000_000).expect("a spool");
        assert_eq!(spool.waiting().entries.load(Ordering::Acquire), 3);
        assert_eq!(texts(&spool).await, [r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":2}"#]);
        spool.keep(kept(4), true).await.expect("kept");
        assert_eq!(numbers(dir.path()).expect("a folder"), [1, 2], "nothing is written behind a torn end");
    }

    #[tokio::test]
    async fn a_full_spool_says_so_and_a_damaged_one_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let (spool, _) = Spool::open(dir.path(), 60).expect("a spool");
        spool.keep(kept(0), false).await.expect("kept");
        spool.keep(kept(1), true).await.expect("kept");
        assert!(matches!(spool.keep(kept(2), true).await, Err(SpoolError::Full { .. })));
        let segment = path_of(dir.path(), 1);
        let mut bytes = std::fs::read(&segment).expect("the segment");
        *bytes.get_mut(18).expect("a byte") ^= 1;
        std::fs::write(&segment, bytes).expect("written");
        let mut reader = spool.oldest(&HashSet::new()).expect("a folder").expect("a segment");
        assert!(matches!(reader.next(None).expect("a file"), Read::Damaged));
    }

    /// Cuts a segment at every byte, and also removes it: the acknowledged entries that are missing are counted as lost exactly
    /// once.
    #[tokio::test]
    async fn what_is_missing_from_a_segment_is_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let (spool, _) = Spool::open(dir.path(), 1_000_000).expect("a spool");
        for n in 0..4 {
            spool.keep(kept(n), true).await.expect("kept");
        }
        drop(spool);
        let whole = std::fs::read(path_of(dir.path(), 1)).expect("the segment");
        let count = std::fs::read(dir.path().join("0000000000000001.kept")).expect("the count");
        let record = whole.len() / 4;
        let lost = |ledger: &LossCounters| ledger.next_report("app").map(|(_, report)| report.count);
        for length in (0..=whole.len()).map(Some).chain([None]) {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::write(dir.path().join("0000000000000001.kept"), &count).expect("written");
            if let Some(length) = length {
                std::fs::write(path_of(dir.path(), 1), &whole[..length]).expect("written");
            }
            let there = length.unwrap_or_default() / record;
            let missing = u64::try_from(4 - there).expect("a number");
            let (spool, ledger) = Spool::open(dir.path(), 1_000_000).expect("a spool");
            assert_eq!(lost(&ledger), (missing > 0).then_some(Some(missing)), "{length:?}");
            ledger.reported(Cause::Damaged);
            drop(spool);
            let (_spool, ledger) = Spool::open(dir.path(), 1_000_000).expect("a spool");
            assert_eq!(lost(&ledger), None, "{length:?}: counted once");
        }
    }
}
