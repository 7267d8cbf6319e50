//! Passes rows from the writer to the indexer, so that the indexer need not read and verify them again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use piperoll_format::time::Timestamp;

/// Maximum bytes of bodies that wait for the indexer. Rows above this limit are read from the database later.
const WAITING_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Capacity in bytes that the writer's buffer keeps from one commit to the next; the rest is freed.
const KEPT_BYTES: usize = 1_024 * 1_024;
/// Maximum number of rows from small commits that are combined, so that the indexer takes them together.
const ROWS_TOGETHER_MAX: usize = 256;

/// Consecutive rows, with their bodies in one buffer and the position at which each body ends.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct PendingRows {
    first: u64,
    bodies: Vec<u8>,
    rows: Vec<(usize, Timestamp)>,
    /// Set if a row exceeded the limit, so that no later row may be added.
    full: bool,
}

impl PendingRows {
    /// Discards the rows; the next row that is added has the seq `first`.
    pub(in crate::store) fn begin(&mut self, first: u64) {
        self.first = first;
        self.bodies.clear();
        self.bodies.shrink_to(KEPT_BYTES);
        self.rows.clear();
        self.full = false;
    }

    /// Adds the next row. Rows above the queue's limit are left out, and the indexer reads them from the database.
    pub(in crate::store) fn push(&mut self, timestamp: Timestamp, body: &str) {
        if self.bodies.len() + body.len() > WAITING_BYTES_MAX {
            self.full = true;
        }
        if self.full {
            return;
        }
        self.bodies.extend_from_slice(body.as_bytes());
        self.rows.push((self.bodies.len(), timestamp));
    }

    fn append(&mut self, next: &Self) {
        let start = self.bodies.len();
        self.bodies.extend_from_slice(&next.bodies);
        self.rows.extend(next.rows.iter().map(|(end, timestamp)| (start + end, *timestamp)));
    }

    /// Returns the seq after the last row.
    pub(super) fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// Returns the rows from `seq` on, each as the time of its recording and its body.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = (Timestamp, &[u8])> {
        let skipped = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.rows.len());
        let mut start = skipped.checked_sub(1).map_or(0, |last| self.rows[last].0);
        self.rows[skipped..].iter().map(move |(end, timestamp)| {
            let body = &self.bodies[start..*end];
            start = *end;
            (*timestamp, body)
        })
    }
}

/// Queue between the writer and the indexer. The writer never waits for space in it.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    rows: VecDeque<PendingRows>,
    bytes: usize,
}

impl Waiting {
    /// Adds committed rows.
    pub(super) fn add(&self, rows: &PendingRows) {
        let mut queue = self.lock();
        if queue.bytes + rows.bodies.len() > WAITING_BYTES_MAX {
            return;
        }
        queue.bytes += rows.bodies.len();
        match queue.rows.back_mut() {
            Some(last) if last.end() == rows.first && last.rows.len() + rows.rows.len() <= ROWS_TOGETHER_MAX => {
                last.append(rows);
            }
            _ => queue.rows.push_back(rows.clone()),
        }
    }

    /// Removes and returns the waiting rows that contain `seq`, and drops earlier rows, which are no longer needed. If no
    /// waiting rows contain `seq`, returns the seq at which the next waiting rows begin.
    pub(super) fn take(&self, seq: u64) -> Result<PendingRows, Option<u64>> {
        let mut queue = self.lock();
        while let Some(rows) = queue.rows.pop_front_if(|rows| rows.first <= seq) {
            queue.bytes -= rows.bodies.len();
            if seq < rows.end() {
                return Ok(rows);
            }
        }
        Err(queue.rows.front().map(|rows| rows.first))
    }

    /// Puts rows that were not used up back into the queue.
    pub(super) fn give_back(&self, rows: PendingRows) {
        let mut queue = self.lock();
        queue.bytes += rows.bodies.len();
        queue.rows.push_front(rows);
    }

    /// Empties the queue before rows are changed: the copies in the queue would be out of date, and no copy of the old content
    /// may remain.
    pub(super) fn clear(&self) {
        *self.lock() = Queue::default();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(first: u64, bodies: &[&str]) -> PendingRows {
        let mut rows = PendingRows::default();
        rows.begin(first);
        bodies.iter().for_each(|body| rows.push(Timestamp::from_micros(7), body));
        rows
    }

    fn bodies(rows: &PendingRows, from: u64) -> Vec<&[u8]> {
        rows.from(from).map(|(_, body)| body).collect()
    }

    #[test]
    fn rows_come_out_from_any_place_on() {
        let queue = Waiting::default();
        assert_eq!(queue.take(0).err(), Some(None));
        queue.add(&rows(3, &["a", "bb", ""]));
        queue.add(&rows(6, &["c"]));
        queue.add(&rows(9, &["d"]));
        assert_eq!(queue.take(2).err(), Some(Some(3)), "the row in front is not among them");
        let taken = queue.take(4).unwrap_or_default();
        assert_eq!((bodies(&taken, 5), bodies(&taken, 3)), (vec![&b""[..], b"c"], vec![&b"a"[..], b"bb", b"", b"c"]));
        assert!(bodies(&taken, 7).is_empty());
        queue.give_back(taken);
        assert_eq!(queue.take(6).map(|rows| rows.end()).ok(), Some(7), "those next to each other come together");
        assert_eq!(queue.take(9).map(|rows| rows.end()).ok(), Some(10), "and what is before is forgotten");
        assert_eq!(queue.take(3).err(), Some(None));
        let long = "x".repeat(WAITING_BYTES_MAX);
        queue.add(&rows(7, &[&long]));
        queue.add(&rows(8, &["does not fit"]));
        assert!(queue.take(7).is_ok());
        assert_eq!(queue.take(8).err(), Some(None));
    }
}
