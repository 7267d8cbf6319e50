//! Condition of the log, shared by the writer, the readers and the API.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use piperoll_format::time::Timestamp;
use prometheus_client::metrics::histogram::Histogram;

/// Period after a failed commit in which its transient fault is reported. Without this limit, callers that wait until the log is
/// healthy before they retry would wait forever.
const TRANSIENT_FAULT_LASTS: Duration = Duration::from_secs(15);

/// Upper bounds of the buckets for the duration of a group commit, in seconds: a disk with a write cache commits within a
/// millisecond, a busy disk within a few hundred milliseconds.
const COMMIT_BUCKETS_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Durations of group commits: a histogram in seconds, and the last duration in microseconds.
#[derive(Debug)]
pub struct CommitTimes {
    pub histogram: Histogram,
    last_micros: AtomicU64,
}

impl Default for CommitTimes {
    fn default() -> Self {
        Self { histogram: Histogram::new(COMMIT_BUCKETS_SECONDS), last_micros: AtomicU64::new(0) }
    }
}

impl CommitTimes {
    pub(in crate::store) fn observe(&self, duration: Duration) {
        self.histogram.observe(duration.as_secs_f64());
        self.last_micros.store(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Duration of the last group commit in microseconds.
    pub fn last_micros(&self) -> u64 {
        self.last_micros.load(Ordering::Relaxed)
    }
}

/// Condition of the log, as far as the writer and the readers know.
#[derive(Debug, Default)]
pub struct Health {
    /// Next seq, which is the number of rows ever written.
    next_seq: AtomicU64,
    /// Value of `next_seq` if the current commit succeeds.
    claimed_seq: AtomicU64,
    /// Time at which the current transaction began, in microseconds since 1970; 0 if there is none.
    stamping_since: AtomicI64,
    /// Number of rows covered by the newest checkpoint, and by the newest cosigned one; 0 if there is none.
    signed_size: AtomicU64,
    witnessed_size: AtomicU64,
    /// Durations of the group commits.
    pub commits: CommitTimes,
    write_fault: Mutex<Option<String>>,
    /// Time and reason of the last failed commit; cleared when a commit succeeds, for example after disk space was freed.
    transient_fault: Mutex<Option<(Instant, String)>>,
    read_fault: Mutex<Option<String>>,
    /// Number of reads that panicked since the node started.
    reader_panics: AtomicU64,
}

impl Health {
    pub(in crate::store) fn publish_head(&self, next_seq: u64) {
        self.claim(next_seq);
        self.next_seq.store(next_seq, Ordering::Release);
    }

    /// Publishes that rows are being stamped with times from `now` on and are not committed yet.
    pub(in crate::store) fn stamps_from(&self, now: Timestamp) {
        self.stamping_since.store(now.micros(), Ordering::SeqCst);
    }

    /// Publishes that the stamped rows have been committed, or that they never will be.
    pub(in crate::store) fn stamped(&self) {
        self.stamping_since.store(0, Ordering::SeqCst);
    }

    /// Returns the number of rows, and a lower bound for the times of all later rows, which holds unless the clock steps back.
    /// `now` must be read before the call: a transaction that begins later stamps its rows with a later time.
    pub(in crate::store) fn watermark(&self, now: Timestamp) -> (u64, Timestamp) {
        let since = self.stamping_since.load(Ordering::SeqCst);
        let time = if since == 0 { now } else { now.min(Timestamp::from_micros(since)) };
        // Read this last: rows that were being stamped a moment ago may be committed by now.
        (self.next_seq.load(Ordering::SeqCst), time)
    }

    pub(in crate::store) fn claim(&self, next_seq: u64) {
        self.claimed_seq.store(next_seq, Ordering::Release);
    }

    pub(in crate::store) fn publish_signed(&self, size: Option<u64>) {
        self.signed_size.store(size.unwrap_or_default(), Ordering::Release);
    }

    pub(in crate::store) fn publish_witnessed(&self, size: Option<u64>) {
        self.witnessed_size.store(size.unwrap_or_default(), Ordering::Release);
    }

    /// Returns the number of rows covered by the newest checkpoint.
    pub fn signed_size(&self) -> u64 {
        self.signed_size.load(Ordering::Acquire)
    }

    /// Returns the number of rows that a witness has seen, as far as this node knows.
    pub fn witnessed_size(&self) -> u64 {
        self.witnessed_size.load(Ordering::Acquire)
    }

    /// Returns the seq up to which the writer may have written rows at the moment of the call (exclusive).
    pub(in crate::store) fn claimed(&self) -> u64 {
        self.claimed_seq.load(Ordering::Acquire)
    }

    pub fn head(&self) -> Option<u64> {
        self.next_seq.load(Ordering::Acquire).checked_sub(1)
    }

    /// Returns why appends are refused. The fault stays set until a restart, or until a failed disk works again.
    pub fn write_fault(&self) -> Option<String> {
        self.write_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns why an append would fail now, whether permanently or temporarily.
    pub fn append_fault(&self) -> Option<String> {
        self.write_fault().or_else(|| {
            let fault = self.transient_fault.lock().unwrap_or_else(PoisonError::into_inner);
            fault.as_ref().filter(|(since, _)| since.elapsed() < TRANSIENT_FAULT_LASTS).map(|(_, fault)| fault.clone())
        })
    }

    pub(in crate::store) fn set_transient_fault(&self, fault: Option<String>) {
        *self.transient_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault.map(|f| (Instant::now(), f));
    }

    /// Returns why rows read from the file cannot be trusted to be the complete log.
    pub fn read_fault(&self) -> Option<String> {
        self.read_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of reads that panicked since the node started. Each caller got an error, and the thread opened a new connection.
    pub fn reader_panics(&self) -> u64 {
        self.reader_panics.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn count_reader_panic(&self) {
        let count = self.reader_panics.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(
            count,
            "a reader thread panicked and was replaced; please report this with the log lines above"
        );
    }

    pub(in crate::store) fn refuse_writes(&self, fault: String) {
        tracing::error!(%fault, "the log refuses appends");
        self.write_fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }

    /// Clears the write fault after a failed disk works again, unless the file itself has a fault.
    pub(in crate::store) fn recovered(&self) {
        if self.read_fault().is_none() {
            *self.write_fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(in crate::store) fn distrust(&self, fault: String) {
        self.read_fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| fault.clone());
        self.refuse_writes(fault);
    }
}
