//! Counts losses that have not been reported yet, in a small file that survives the process.
//!
//! A count is written, but not synced, whenever it changes: it survives the end of the process, even if the process is killed.
//! After a power failure, the node's own entry about its unclean stop says that an unknown number of entries may be missing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::clock::now;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::GapReport;
use uuid::Uuid;

const FILE: &str = "lost";
/// Layout of a slot: id (16), count (8), first (8), last (8), whether the count is incomplete (1), zeroes (3), CRC-32 (4).
const SLOT_BYTES: usize = 48;

/// Reason why entries were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The spool was full.
    NoRoom,
    /// The spool could not be written.
    Unwritable,
    /// The node refused the entry permanently.
    Refused,
    /// A spooled entry can no longer be read.
    Damaged,
}

impl Cause {
    const ALL: [Self; 4] = [Self::NoRoom, Self::Unwritable, Self::Refused, Self::Damaged];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoRoom => "the application's spool was full",
            Self::Unwritable => "the application's spool could not be written",
            Self::Refused => "the node refused entries from the application's spool",
            Self::Damaged => "the application's spool was damaged",
        }
    }
}

/// Losses of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LossesOfCause {
    id: Uuid,
    count: u64,
    /// Whether more was lost than could be counted, so that `count` is a lower bound.
    is_unknown: bool,
    first: i64,
    last: i64,
}

/// Two slots for each cause: losses that are being counted, and losses that are being reported and no longer change.
#[derive(Debug)]
pub(crate) struct LossCounters {
    file: Option<File>,
    slots: Mutex<[[Option<LossesOfCause>; 2]; 4]>,
}

impl LossCounters {
    /// Opens the counters in a spool directory that the caller has locked. Gives a new file its full size at once, so that losses
    /// can be counted even when the disk is full.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(folder.join(FILE))?;
        let mut bytes = [0; SLOT_BYTES * 8];
        let read = file.read_at(&mut bytes, 0)?;
        if read < bytes.len() {
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
        }
        let mut slots = [[None; 2]; 4];
        for (at, slot) in slots.as_flattened_mut().iter_mut().enumerate() {
            *slot = LossesOfCause::from_bytes(&bytes[at * SLOT_BYTES..(at + 1) * SLOT_BYTES]);
        }
        for [counting, reporting] in &mut slots {
            // A crash in `next_report` can leave the same losses in both slots.
            if counting.zip(*reporting).is_some_and(|(one, other)| one.id == other.id) {
                *counting = None;
            }
        }
        Ok(Self { file: Some(file), slots: Mutex::new(slots) })
    }

    /// Creates counters without a file, for recorders that have no spool and so cannot lose spooled entries.
    pub(crate) fn in_memory() -> Self {
        Self { file: None, slots: Mutex::default() }
    }

    /// Counts losses; `count` is `None` if their number is unknown.
    pub(crate) fn lost(&self, cause: Cause, count: Option<u64>, time: i64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut slots[cause as usize][0];
        let now = slot.get_or_insert_with(|| LossesOfCause {
            id: Uuid::now_v7(),
            count: 0,
            is_unknown: false,
            first: time,
            last: time,
        });
        now.count = now.count.saturating_add(count.unwrap_or(0));
        now.is_unknown |= count.is_none();
        (now.first, now.last) = (now.first.min(time), now.last.max(time));
        let now = *now;
        self.store(cause, 0, Some(now));
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).as_flattened().iter().all(Option::is_none)
    }

    /// Returns the next report. Its content no longer changes, so a retry sends the same report.
    pub(crate) fn next_report(&self, source: &str) -> Option<(Cause, GapReport)> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for cause in Cause::ALL {
            let [counting, reporting] = &mut slots[cause as usize];
            if reporting.is_none()
                && let Some(slot) = counting.take()
            {
                *reporting = Some(slot);
                // Store the report before clearing the count: after a crash in between, both slots have the same id, so the loss
                // is recorded only once.
                self.store(cause, 1, Some(slot));
                self.store(cause, 0, None);
            }
            if let Some(slot) = slots[cause as usize][1] {
                let report = GapReport {
                    id: EntryId::from_uuid(slot.id),
                    count: (!slot.is_unknown).then_some(slot.count),
                    cause: cause.label().to_owned(),
                    source: Some(source.to_owned()).filter(|source| !source.is_empty()),
                    from: Some(Timestamp::from_micros(slot.first)),
                    to: Some(Timestamp::from_micros(slot.last)),
                };
                return Some((cause, report));
            }
        }
        None
    }

    /// Clears a report that the node has recorded.
    pub(crate) fn reported(&self, cause: Cause) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)[cause as usize][1] = None;
        self.store(cause, 1, None);
    }

    fn store(&self, cause: Cause, part: usize, slot: Option<LossesOfCause>) {
        let Some(file) = &self.file else { return };
        let bytes = slot.map_or([0; SLOT_BYTES], LossesOfCause::to_bytes);
        if let Err(error) = file.write_all_at(&bytes, ((cause as usize * 2 + part) * SLOT_BYTES) as u64) {
            tracing::error!(%error, "cannot write the count of lost entries; keeping it in memory");
        }
    }
}

impl LossesOfCause {
    fn to_bytes(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..16].copy_from_slice(self.id.as_bytes());
        bytes[16..24].copy_from_slice(&self.count.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.last.to_le_bytes());
        bytes[40] = u8::from(self.is_unknown);
        let crc = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok();
        let crc = bytes.get(44..48)?.try_into().ok()?;
        if bytes.iter().all(|b| *b == 0) {
            return None;
        }
        if crc32fast::hash(&bytes[..44]) != u32::from_le_bytes(crc) {
            // The slot is damaged: something was counted, but the number is unknown.
            let now = now().micros();
            return Some(Self { id: Uuid::now_v7(), count: 0, is_unknown: true, first: now, last: now });
        }
        Some(Self {
            id: Uuid::from_slice(&bytes[..16]).ok()?,
            count: u64::from_le_bytes(number(16)?),
            first: i64::from_le_bytes(number(24)?),
            last: i64::from_le_bytes(number(32)?),
            is_unknown: bytes[40] == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_and_are_reported_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = LossCounters::open(dir.path()).expect("a ledger");
        assert!(ledger.is_clean());
        for n in 0..5 {
            ledger.lost(Cause::NoRoom, Some(1), 100 + n);
        }
        let (cause, report) = ledger.next_report("app").expect("a report");
        assert_eq!(
            (report.count, report.from, report.to),
            (Some(5), Some(Timestamp::from_micros(100)), Some(Timestamp::from_micros(104)))
        );
        ledger.lost(Cause::NoRoom, Some(2), 200);
        drop(ledger);
        let ledger = LossCounters::open(dir.path()).expect("a ledger");
        assert_eq!(ledger.next_report("app"), Some((cause, report)), "the same again, whatever came since");
        ledger.reported(cause);
        let (cause, report) = ledger.next_report("app").expect("the rest");
        assert_eq!(report.count, Some(2));
        ledger.reported(cause);
        ledger.lost(Cause::Damaged, None, 1);
        assert_eq!(ledger.next_report("app").expect("one more").1.count, None);
        ledger.reported(Cause::Damaged);
        assert!(ledger.is_clean() && LossCounters::open(dir.path()).expect("a ledger").is_clean());
    }
}
