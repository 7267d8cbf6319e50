//! Reads the rows of one era block by block from either end; with an index, reads only the rows that may match the filter.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Instant;

use piperoll_format::ids::EntryId;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{RowChecker, SequenceFault};
use piperoll_query::filter::Filter;
use piperoll_query::stats::Counter;
use rusqlite::Connection;

use super::prove::ProofPart;
use crate::store::index::{Index, IndexQuery, Lookup};
use crate::store::table::erased;
use crate::store::table::error::ReadError;
use crate::store::table::rows::{ERA_COLUMN, StoredRow, read_row};

/// Maximum bytes that one statement, which is one read transaction, fetches.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Maximum number of faults listed in one answer; further ones are only counted.
const FAULTS_LISTED_MAX: usize = 20;

/// Messages about faults in the sequence of rows. The list is bounded, because a log in which every second row is missing has as
/// many gaps as rows.
#[derive(Debug, Default)]
pub(in crate::store) struct Faults {
    listed: Vec<String>,
    more: u64,
    pub(in crate::store) gaps: u64,
}

/// State that the era cursors of a scan share, borrowed while one of them is filled.
pub(in crate::store) struct Reading<'a> {
    pub(in crate::store) conn: &'a Connection,
    pub(in crate::store) checker: &'a mut RowChecker,
    pub(in crate::store) faults: &'a mut Faults,
    pub(in crate::store) order: Order,
    pub(in crate::store) range: (Timestamp, Timestamp),
    /// Filter of the scan. If the filter is empty, every row matches, so the index is used only for counting.
    pub(in crate::store) filter: &'a Filter,
    pub(in crate::store) index: Option<&'a Index>,
    /// Counter for the matching rows that can be counted from the index alone.
    pub(in crate::store) counter: Option<&'a mut Counter>,
    pub(in crate::store) ids: &'a HashMap<EntryId, u64>,
    /// Number of rows worth fetching at once.
    pub(in crate::store) want: usize,
    pub(in crate::store) until: Instant,
}

/// The rows of one era that are still to be read: seqs `from..to`.
pub(in crate::store) struct EraCursor {
    era: Range<u64>,
    part: Range<u64>,
    from: u64,
    to: u64,
    /// Timeline positions for rows that are not sound: `carry` for a row at `carried_to`, `first_carry` for a row that no sound
    /// row precedes.
    carry: Timestamp,
    first_carry: Timestamp,
    carried_to: u64,
    /// The block that was looked up last, and the answer of the index.
    last_lookup: Option<(u64, Option<Lookup>)>,
    pub(in crate::store) buffer: VecDeque<StoredRow>,
}

impl EraCursor {
    pub(in crate::store) fn new(era: Range<u64>, part: Range<u64>, carry: Timestamp, order: Order) -> Self {
        let carried_to = if order == Order::Asc { part.start } else { part.end };
        let (from, to) = (part.start, part.end);
        Self { era, part, from, to, carry, first_carry: carry, carried_to, last_lookup: None, buffer: VecDeque::new() }
    }

    /// Returns whether more rows may follow those in the buffer.
    pub(in crate::store) fn goes_on(&self) -> bool {
        self.from < self.to
    }

    /// Returns the seq of the row that is read next once the buffer is empty.
    pub(in crate::store) fn next(&self, order: Order) -> u64 {
        match order {
            Order::Asc => self.from,
            Order::Desc => self.to.saturating_sub(1),
        }
    }

    /// Describes the part of the era whose rows have been returned so far.
    pub(in crate::store) fn read(&self, order: Order) -> ProofPart {
        let given = match order {
            Order::Asc => self.part.start..self.buffer.front().map_or(self.from, |row| row.seq),
            Order::Desc => self.buffer.front().map_or(self.to, |row| row.seq + 1)..self.part.end,
        };
        ProofPart { era: self.era.clone(), part: self.part.clone(), given }
    }

    /// Fetches the next rows, and records every seq that is missing among the rows that may match. Returns early when time is up;
    /// the buffer may then be empty although more rows follow.
    pub(in crate::store) fn fill(&mut self, reading: &mut Reading<'_>) -> Result<(), ReadError> {
        let mut bytes = 0;
        while self.goes_on() && self.buffer.len() < reading.want && bytes < BLOCK_BYTES {
            if let Some(range) = self.next_range(reading) {
                bytes += self.fetch(range, reading)?;
            }
            if Instant::now() >= reading.until {
                break;
            }
        }
        Ok(())
    }

    /// Returns the next range of consecutive rows that may match, and skips the rows before that range. Returns `None` if no row
    /// in the rest of the current block may match.
    fn next_range(&mut self, reading: &mut Reading<'_>) -> Option<Range<u64>> {
        let Some(index) = reading.index.filter(|_| !reading.filter.is_empty() || reading.counter.is_some()) else {
            return Some(self.from..self.to);
        };
        let asc = reading.order == Order::Asc;
        let at = if asc { self.from } else { self.to - 1 };
        let block = at / index.block_rows();
        if self.last_lookup.as_ref().is_none_or(|(known, _)| *known != block) {
            let ask = IndexQuery { condition: reading.filter.condition(), ids: reading.ids };
            let times = reading.range.0..reading.range.1;
            let lookup = match &mut reading.counter {
                None => index.candidates(reading.conn, at, &ask),
                Some(counter) => index.count(reading.conn, at, &ask, &(self.from..self.to), &times, counter),
            };
            self.last_lookup = Some((block, lookup));
        }
        let (first, end) = (block * index.block_rows(), (block + 1) * index.block_rows());
        let whole = self.from.max(first)..self.to.min(end);
        let Some((_, Some(lookup))) = &self.last_lookup else { return Some(whole) };
        let (known, set) = (lookup.first..lookup.end, &lookup.candidates.rows);
        let place = |seq: u64| usize::try_from(seq - known.start).unwrap_or(usize::MAX);
        let most = reading.want as u64;
        if asc {
            if at >= known.end {
                return Some(whole);
            }
            let known_end = known.end.min(self.to);
            let next = set.next(place(at)).map(|row| known.start + row as u64).filter(|seq| *seq < known_end);
            self.from = next.unwrap_or(known_end);
            let from = next?;
            let to = (from..known_end.min(from + most)).find(|seq| !set.contains(place(*seq)));
            Some(from..to.unwrap_or(known_end.min(from + most)))
        } else {
            if at >= known.end {
                return Some(whole.start.max(known.end)..whole.end);
            }
            let last =
                set.previous(place(at) + 1).map(|row| known.start + row as u64).filter(|seq| *seq >= whole.start);
            self.to = last.map_or(whole.start, |last| last + 1);
            let last = last?;
            let least = whole.start.max((last + 1).saturating_sub(most));
            let from = (least..last).rev().find(|seq| !set.contains(place(*seq))).map_or(least, |seq| seq + 1);
            Some(from..last + 1)
        }
    }

    /// Reads rows of a range in the order of the scan, until the range ends or a limit is reached. Returns their size in bytes.
    fn fetch(&mut self, range: Range<u64>, reading: &mut Reading<'_>) -> Result<usize, ReadError> {
        let sql = match reading.order {
            Order::Asc => {
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq ASC LIMIT ?3"
            }
            Order::Desc => {
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
            }
        };
        let mut statement = reading.conn.prepare_cached(sql)?;
        let mut rows = statement.query((range.start, range.end, reading.want))?;
        let (mut bytes, mut count) = (0, 0);
        let mut exhausted = true;
        while let Some(row) = rows.next()? {
            let mut stored = read_row(row, reading.checker)?;
            erased::recognise(reading.conn, reading.checker, &mut stored)?;
            bytes += stored.body.len();
            count += 1;
            self.put_in_place(&mut stored, reading)?;
            let seq = stored.seq;
            stored.indexed = self.is_known_to_fit(seq);
            if stored.checked.reason == Some(ERA_COLUMN) {
                // A wrong era column must be reported here: the row's bytes and MAC are valid, so no other check notices it.
                reading.faults.note(|| format!("row {seq}: {ERA_COLUMN}"));
            }
            match reading.order {
                Order::Asc => {
                    reading.faults.gap(self.from, seq);
                    self.from = seq + 1;
                }
                Order::Desc => {
                    reading.faults.gap(seq + 1, self.to);
                    self.to = seq;
                }
            }
            self.buffer.push_back(stored);
            if bytes >= BLOCK_BYTES || count == reading.want {
                exhausted = false;
                break;
            }
        }
        if exhausted {
            match reading.order {
                Order::Asc => {
                    reading.faults.gap(self.from, range.end);
                    self.from = range.end;
                }
                Order::Desc => {
                    reading.faults.gap(range.start, self.to);
                    self.to = range.start;
                }
            }
        }
        Ok(bytes)
    }

    /// Returns whether the index states with certainty that a row matches the filter.
    fn is_known_to_fit(&self, seq: u64) -> bool {
        let Some((_, Some(lookup))) = &self.last_lookup else { return false };
        let Some(place) = seq.checked_sub(lookup.first).and_then(|place| usize::try_from(place).ok()) else {
            return false;
        };
        let candidates = &lookup.candidates;
        seq < lookup.end && candidates.exact && candidates.rows.contains(place) && !candidates.odd.contains(place)
    }

    /// Sets the row's position in the timeline: a sound row is at its own time, any other row at the time of the preceding sound
    /// row in reading order, even if that row was skipped.
    fn put_in_place(&mut self, row: &mut StoredRow, reading: &mut Reading<'_>) -> rusqlite::Result<()> {
        if row.is_sound() {
            self.carry = row.timestamp;
            row.place = row.timestamp;
        } else {
            if row.seq + u64::from(reading.order == Order::Desc) != self.carried_to {
                self.carry = self.carry_at(row.seq, reading)?;
            }
            let (from, to) = reading.range;
            row.place = self.carry.clamp(from, to.plus_micros(-1).max(from));
        }
        self.carried_to = row.seq + u64::from(reading.order == Order::Asc);
        Ok(())
    }

    fn carry_at(&self, seq: u64, reading: &mut Reading<'_>) -> rusqlite::Result<Timestamp> {
        let (sql, from, to) = match reading.order {
            Order::Asc => (
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC",
                self.part.start,
                seq,
            ),
            Order::Desc => (
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq ASC",
                seq + 1,
                self.part.end,
            ),
        };
        let mut statement = reading.conn.prepare_cached(sql)?;
        let mut rows = statement.query((from, to))?;
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, reading.checker)?;
            erased::recognise(reading.conn, reading.checker, &mut row)?;
            if row.is_sound() {
                return Ok(row.timestamp);
            }
        }
        Ok(self.first_carry)
    }
}

impl Faults {
    pub(in crate::store) fn note(&mut self, message: impl FnOnce() -> String) {
        if self.listed.len() < FAULTS_LISTED_MAX {
            self.listed.push(message());
        } else {
            self.more += 1;
        }
    }

    /// Adds a fault: the rows `from..to` are missing.
    fn gap(&mut self, from: u64, to: u64) {
        if from < to {
            self.gaps += 1;
            self.note(|| SequenceFault::Missing { first: from, last: to - 1 }.to_string());
        }
    }

    pub(in crate::store) fn describe(&self) -> Vec<String> {
        let mut message = self.listed.clone();
        if self.more > 0 {
            message.push(format!("and {} more", self.more));
        }
        message
    }
}
