//! Condition of the log, shared by the writer, the readers and the API.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use piperoll_format::time::Timestamp;

/// A fault that may pass by itself is reported for this long after the last attempt: callers who wait for health
/// before they try again would otherwise wait for ever.
const PASSING_FAULT_LASTS: Duration = Duration::from_secs(15);

/// What the writer and the readers know about the log's condition.
#[derive(Debug, Default)]
pub struct Health {
    /// The next seq, that is the number of rows ever written.
    next_seq: AtomicU64,
    /// What `next_seq` will be when the commit under way succeeds.
    claimed_seq: AtomicU64,
    /// When the transaction under way began, microseconds since 1970; 0 while there is none.
    stamping_since: AtomicI64,
    /// Rows under the newest checkpoint, and under the newest that came back cosigned; none while 0.
    signed_size: AtomicU64,
    witnessed_size: AtomicU64,
    /// Duration of the last group commit.
    pub commit_micros: AtomicU64,
    write_fault: Mutex<Option<String>>,
    /// Why the last commit failed, until one succeeds: a full disk may get room again.
    passing_fault: Mutex<Option<(Instant, String)>>,
    read_fault: Mutex<Option<String>>,
    /// Reads that panicked since the node started.
    reader_panics: AtomicU64,
}

impl Health {
    pub(in crate::store) fn publish_head(&self, next_seq: u64) {
        self.claim(next_seq);
        self.next_seq.store(next_seq, Ordering::Release);
    }

    /// From here on rows get their time, and are not there yet.
    pub(in crate::store) fn stamps_from(&self, now: Timestamp) {
        self.stamping_since.store(now.micros(), Ordering::SeqCst);
    }

    /// They are there, or will never be.
    pub(in crate::store) fn stamped(&self) {
        self.stamping_since.store(0, Ordering::SeqCst);
    }

    /// The number of rows, and a time that no later row's time is below, unless the clock steps back. `now` was read
    /// before: a transaction that begins later stamps its rows later.
    pub(in crate::store) fn watermark(&self, now: Timestamp) -> (u64, Timestamp) {
        let since = self.stamping_since.load(Ordering::SeqCst);
        let time = if since == 0 { now } else { now.min(Timestamp::from_micros(since)) };
        // Read last: what was being stamped a moment ago may be there by now.
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

    /// Rows under the newest checkpoint.
    pub fn signed_size(&self) -> u64 {
        self.signed_size.load(Ordering::Acquire)
    }

    /// Rows that a witness has seen, as far as it told this node.
    pub fn witnessed_size(&self) -> u64 {
        self.witnessed_size.load(Ordering::Acquire)
    }

    /// No row of the writer's stands at this seq or above, at the moment of asking.
    pub(in crate::store) fn claimed(&self) -> u64 {
        self.claimed_seq.load(Ordering::Acquire)
    }

    pub fn head(&self) -> Option<u64> {
        self.next_seq.load(Ordering::Acquire).checked_sub(1)
    }

    /// Why appends are refused; stays until a restart, or until a disk that failed is good again.
    pub fn write_fault(&self) -> Option<String> {
        self.write_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why an append would fail at the moment, for good or until something changes.
    pub fn append_fault(&self) -> Option<String> {
        self.write_fault().or_else(|| {
            let passing = self.passing_fault.lock().unwrap_or_else(PoisonError::into_inner);
            passing.as_ref().filter(|(since, _)| since.elapsed() < PASSING_FAULT_LASTS).map(|(_, fault)| fault.clone())
        })
    }

    pub(in crate::store) fn set_passing_fault(&self, fault: Option<String>) {
        *self.passing_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault.map(|f| (Instant::now(), f));
    }

    /// Why what is read from the file cannot be taken for the whole log.
    pub fn read_fault(&self) -> Option<String> {
        self.read_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads that ended in a fault of this program since the node started; each got an error, and its thread was replaced.
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

    /// What kept the log from taking entries is over; what is wrong with the file is not.
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
