//! Finds positions in the log without an index on time, trusting MACs only.

use std::ops::Range;

use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use piperoll_protocol::node::ScanRequest;
use rusqlite::Connection;

use super::erased;
use super::rows::read_row;

/// Rows looked at for one landmark: a log whose rows all fail must not make a search read all of it.
const LANDMARK_ROWS_MAX: u32 = 4_096;
/// A part of one era's rows, and where rows at its beginning (in reading order) stand that are not sound.
pub(in crate::store) struct Part {
    pub(in crate::store) from: u64,
    pub(in crate::store) to: u64,
    pub(in crate::store) carry: Timestamp,
}

/// A row whose signature fits, as a landmark for searching.
#[derive(Debug, Clone, Copy)]
struct Landmark {
    seq: u64,
    timestamp: Timestamp,
    era: u32,
}

/// Finds places in the log. Only rows whose signature fits are believed, so an edited time or era column can
/// neither lead a search astray nor hide the rows around it; rows that do not fit, and rows that are not
/// there, always end up inside the range they border on.
pub(in crate::store) struct Search<'a> {
    pub(in crate::store) conn: &'a Connection,
    pub(in crate::store) checker: &'a mut RowChecker,
}

impl Search<'_> {
    /// The seq ranges of the eras in `first..end`. The first begins at `first`, whether that row is there or not.
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

    /// The part of an era's rows that the request asks for. Its `carry` depends on the log and the request's
    /// range alone, not on the page, so that a row that is not sound stands at the same place on every page.
    pub(in crate::store) fn narrow(&mut self, from: u64, to: u64, request: &ScanRequest) -> rusqlite::Result<Part> {
        let (mut start, mut below) = self.first_from(from, to, request.from)?;
        let (mut end, mut above) = self.first_to(from, to, request.to)?;
        if let Some(after) = request.after {
            let place = |row: Landmark| Position { timestamp: row.timestamp, seq: row.seq };
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
            Order::Asc => below.map_or(request.from, |row: Landmark| row.timestamp),
            Order::Desc => above.map_or(newest, |row: Landmark| row.timestamp),
        };
        Ok(Part { from: start, to: end, carry: carry.clamp(request.from, newest) })
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

    fn first_from(&mut self, from: u64, to: u64, begin: Timestamp) -> rusqlite::Result<(u64, Option<Landmark>)> {
        if begin == Timestamp::MIN {
            return Ok((from, None));
        }
        self.behind_last(from, to, |row| row.timestamp < begin)
    }

    fn first_to(&mut self, from: u64, to: u64, end: Timestamp) -> rusqlite::Result<(u64, Option<Landmark>)> {
        if end == Timestamp::MAX {
            return Ok((to, None));
        }
        self.first_not(from, to, |row| row.timestamp < end)
    }

    /// The seq behind the last landmark in `from..to` that satisfies `before`, and that landmark; those that do
    /// come first.
    fn behind_last(
        &mut self,
        from: u64,
        to: u64,
        before: impl Fn(Landmark) -> bool,
    ) -> rusqlite::Result<(u64, Option<Landmark>)> {
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

    /// The first landmark in `from..to` that does not satisfy `before`, and its seq, or `to`.
    fn first_not(
        &mut self,
        from: u64,
        to: u64,
        before: impl Fn(Landmark) -> bool,
    ) -> rusqlite::Result<(u64, Option<Landmark>)> {
        let (behind, _) = self.behind_last(from, to, before)?;
        let first = self.landmark(behind, to)?;
        Ok((first.map_or(to, |row| row.seq), first))
    }

    /// The first row in `from..to` whose signature fits; `None` also when too many in a row do not, which makes
    /// the range that is read larger, never smaller.
    fn landmark(&mut self, from: u64, to: u64) -> rusqlite::Result<Option<Landmark>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query((from, to, LANDMARK_ROWS_MAX))?;
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, self.checker)?;
            erased::recognise(self.conn, self.checker, &mut row)?;
            if row.is_sound() {
                // The check has held both columns against what is signed.
                return Ok(Some(Landmark { seq: row.seq, timestamp: row.timestamp, era: row.era }));
            }
        }
        Ok(None)
    }
}
