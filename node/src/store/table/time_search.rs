//! Finds positions in the log without an index on time, and trusts only rows whose MAC is valid.

use std::ops::Range;

use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use piperoll_protocol::node::ScanRequest;
use rusqlite::Connection;

use super::erased;
use super::rows::read_row;

/// Maximum number of rows that are read to find one landmark, so that a search does not read an entire log in which every row
/// fails its check.
const LANDMARK_ROWS_MAX: u32 = 4_096;
/// A part of one era's rows, and the timeline position (`carry`) of unsound rows at its beginning (in reading order).
pub(in crate::store) struct EraPart {
    pub(in crate::store) from: u64,
    pub(in crate::store) to: u64,
    pub(in crate::store) carry: Timestamp,
}

/// A row whose MAC is valid, used as a landmark for searching.
#[derive(Debug, Clone, Copy)]
struct SoundRow {
    seq: u64,
    timestamp: Timestamp,
    era: u32,
}

/// Searches for positions in the log. Only rows whose MAC is valid are trusted, so an edited time or era column can neither
/// mislead a search nor hide the rows around it; invalid and missing rows are always included in the ranges next to them.
pub(in crate::store) struct Search<'a> {
    pub(in crate::store) conn: &'a Connection,
    pub(in crate::store) checker: &'a mut RowChecker,
}

impl Search<'_> {
    /// Seq ranges of the eras in `first..end`. The first range begins at `first`, whether that row exists or not.
    pub(in crate::store) fn eras(&mut self, first: u64, end: u64) -> rusqlite::Result<Vec<(u64, u64)>> {
        let mut ranges = Vec::new();
        let mut from = first;
        while from < end {
            let Some(first) = self.landmark(from, end)? else {
                ranges.push((from, end));
                break;
            };
            let (to, _) = self.first_not(from, end, |row| row.era <= first.era)?;
            ranges.push((from, to));
            from = to;
        }
        Ok(ranges)
    }

    /// Finds the rows of an era that are in the requested range. `carry` depends only on the log and the requested range, not on
    /// the page, so that an unsound row has the same position on every page.
    pub(in crate::store) fn narrow(&mut self, from: u64, to: u64, request: &ScanRequest) -> rusqlite::Result<EraPart> {
        let (mut start, mut below) = self.first_from(from, to, request.from)?;
        let (mut end, mut above) = self.first_to(from, to, request.to)?;
        if let Some(after) = request.after {
            let place = |row: SoundRow| Position { timestamp: row.timestamp, seq: row.seq };
            match request.order {
                Order::Asc => {
                    let (behind, last) = self.behind_last(from, to, |row| place(row) <= after)?;
                    if behind > start {
                        (start, below) = (behind, last);
                    }
                }
                Order::Desc => {
                    let (first, landmark) = self.first_not(from, to, |row| place(row) < after)?;
                    if first < end {
                        (end, above) = (first, landmark);
                    }
                }
            }
        }
        let newest = request.to.plus_micros(-1).max(request.from);
        let carry = match request.order {
            Order::Asc => below.map_or(request.from, |row: SoundRow| row.timestamp),
            Order::Desc => above.map_or(newest, |row: SoundRow| row.timestamp),
        };
        Ok(EraPart { from: start, to: end, carry: carry.clamp(request.from, newest) })
    }

    /// The part of an era's rows whose times are in `begin..end`.
    pub(in crate::store) fn within(
        &mut self,
        from: u64,
        to: u64,
        begin: Timestamp,
        end: Timestamp,
    ) -> rusqlite::Result<Range<u64>> {
        Ok(self.first_from(from, to, begin)?.0..self.first_to(from, to, end)?.0)
    }

    fn first_from(&mut self, from: u64, to: u64, begin: Timestamp) -> rusqlite::Result<(u64, Option<SoundRow>)> {
        if begin == Timestamp::MIN {
            return Ok((from, None));
        }
        self.behind_last(from, to, |row| row.timestamp < begin)
    }

    fn first_to(&mut self, from: u64, to: u64, end: Timestamp) -> rusqlite::Result<(u64, Option<SoundRow>)> {
        if end == Timestamp::MAX {
            return Ok((to, None));
        }
        self.first_not(from, to, |row| row.timestamp < end)
    }

    /// Returns the last landmark in `from..to` that satisfies `before`, and the seq after it. All landmarks that satisfy `before`
    /// must precede those that do not.
    fn behind_last(
        &mut self,
        from: u64,
        to: u64,
        before: impl Fn(SoundRow) -> bool,
    ) -> rusqlite::Result<(u64, Option<SoundRow>)> {
        let (mut low, mut high, mut last) = (from, to, None);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.landmark(middle, high)? {
                Some(row) if before(row) => (low, last) = (row.seq + 1, Some(row)),
                _ => high = middle,
            }
        }
        Ok((low, last))
    }

    /// Returns the first landmark in `from..to` that does not satisfy `before`, and its seq, or `to` if there is none.
    fn first_not(
        &mut self,
        from: u64,
        to: u64,
        before: impl Fn(SoundRow) -> bool,
    ) -> rusqlite::Result<(u64, Option<SoundRow>)> {
        let (behind, _) = self.behind_last(from, to, before)?;
        let first = self.landmark(behind, to)?;
        Ok((first.map_or(to, |row| row.seq), first))
    }

    /// Finds the first row in `from..to` whose MAC is valid. Also returns `None` if too many consecutive rows are invalid; this
    /// can only make the range that is read larger, never smaller.
    fn landmark(&mut self, from: u64, to: u64) -> rusqlite::Result<Option<SoundRow>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query((from, to, LANDMARK_ROWS_MAX))?;
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, self.checker)?;
            erased::recognise(self.conn, self.checker, &mut row)?;
            if row.is_sound() {
                // The check has already compared both columns with the signed values.
                return Ok(Some(SoundRow { seq: row.seq, timestamp: row.timestamp, era: row.era }));
            }
        }
        Ok(None)
    }
}
