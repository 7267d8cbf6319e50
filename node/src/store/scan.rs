//! Reading rows in order, in short batches.
//!
//! Inside an era the time never decreases, so a time range is one contiguous seq range per era and is found
//! by binary search over rows whose signature fits; no index on time exists. Rows of several eras are merged by `(timestamp, seq)`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use piperoll_shared::api::node::{Position, ScanRequest};
use piperoll_shared::log::entry::Prefix;
use piperoll_shared::log::filter::Filter;
use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::order::Order;
use piperoll_shared::log::seal::KeyRing;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::verify::{Checked, Claim, Integrity, RowChecker, SequenceFault};
use piperoll_shared::log::view::EntryView;
use rusqlite::Connection;

use super::error::ReadError;

/// Rows and bytes fetched by one statement, which is one read transaction.
const BLOCK_ROWS: usize = 512;
const BLOCK_BYTES: usize = 1024 * 1024;
/// A batch ends at whichever comes first.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Rows looked at for one landmark: a log whose rows all fail must not make a search read all of it.
const LANDMARK_ROWS_MAX: u32 = 4_096;
/// Faults spelled out in one answer; the rest would say the same.
const FAULTS_LISTED_MAX: usize = 20;

const ERA_COLUMN: &str = "the era column differs from the signed era";

/// A row as it stands in the database, with what its check gave.
#[derive(Debug, Clone)]
pub struct StoredRow {
    pub seq: u64,
    pub timestamp: Timestamp,
    pub era: u32,
    pub epoch: u32,
    /// Empty when NULL.
    pub mac: Vec<u8>,
    pub body: Vec<u8>,
    pub checked: Checked,
}

/// The next rows of a scan.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: Vec<StoredRow>,
    /// Nothing follows.
    pub done: bool,
}

/// A scan between two batches. It holds no connection and no transaction.
pub struct Scan {
    filter: Filter,
    order: Order,
    limit: Option<u64>,
    runs: Vec<Run>,
    checker: RowChecker,
    /// Rows at or before this place were delivered already.
    after: Option<Position>,
    scanned: u64,
    sent: u64,
    faults: Vec<String>,
}

/// The rows of one era that are still to be read: `from..to` in seq.
struct Run {
    from: u64,
    to: u64,
    buffer: VecDeque<StoredRow>,
}

/// Head and tail of a log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub oldest_seq: Option<u64>,
    pub head_seq: Option<u64>,
    pub last_timestamp: Option<Timestamp>,
}

/// The rows that are there, by the table itself.
pub(super) fn extent(conn: &Connection) -> rusqlite::Result<Extent> {
    let oldest_seq = conn.query_row("SELECT min(seq) FROM entries WHERE seq >= 0", [], |row| row.get(0))?;
    let (head_seq, ts): (Option<u64>, Option<i64>) = conn.query_row(
        "SELECT max(seq), (SELECT ts FROM entries ORDER BY seq DESC LIMIT 1) FROM entries WHERE seq >= 0",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(Extent { oldest_seq, head_seq, last_timestamp: ts.map(Timestamp::from_micros) })
}

impl Scan {
    /// Finds the ranges to read. `head` is the newest row the node knows it wrote, which may be more than the
    /// table still holds; the difference is a gap.
    pub(super) fn plan(
        conn: &Connection,
        request: &ScanRequest,
        filter: Filter,
        head: Option<u64>,
        ring: KeyRing,
        generation: Generation,
    ) -> Result<Self, ReadError> {
        if let Some(asked) = request.generation
            && asked != generation
        {
            return Err(ReadError::Generation { now: generation.to_string(), asked: asked.to_string() });
        }
        let head = match (request.head, head) {
            (Some(asked), Some(head)) => Some(asked.min(head)),
            (None, head) => head,
            (Some(_), None) => None,
        };
        let mut scan = Self {
            filter,
            order: request.order,
            limit: request.limit,
            runs: Vec::new(),
            checker: RowChecker::new(ring, generation),
            after: request.after,
            scanned: 0,
            sent: 0,
            faults: Vec::new(),
        };
        if let Some(head) = head {
            let mut search = Search { conn, checker: &mut scan.checker };
            for (from, to) in search.eras(head + 1)? {
                let from = from.max(request.from_seq.unwrap_or(0));
                let (from, to) = if from < to { search.narrow(from, to, request)? } else { (from, to) };
                if from < to {
                    scan.runs.push(Run { from, to, buffer: VecDeque::new() });
                }
            }
        }
        Ok(scan)
    }

    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub fn limit_reached(&self) -> bool {
        self.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// Gaps in the scanned range, in words.
    pub fn faults(&self) -> Vec<String> {
        let mut words: Vec<String> = self.faults.iter().take(FAULTS_LISTED_MAX).cloned().collect();
        if self.faults.len() > FAULTS_LISTED_MAX {
            words.push(format!("and {} more", self.faults.len() - FAULTS_LISTED_MAX));
        }
        words
    }

    /// Reads on. A row that fails its check is given whatever the filter says: an edit must not be able to
    /// hide a row from a search.
    pub(super) fn next_batch(&mut self, conn: &Connection) -> Result<Batch, ReadError> {
        let started = Instant::now();
        let mut batch = Batch::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && started.elapsed() < BATCH_TIME {
            if self.limit_reached() {
                batch.done = true;
                break;
            }
            let Some(row) = self.next_row(conn)? else {
                batch.done = true;
                break;
            };
            self.scanned += 1;
            let position = Position { timestamp: row.timestamp, seq: row.seq };
            if self.after.is_some_and(|after| !self.order.before(&after, &position)) {
                continue;
            }
            let wanted = row.checked.integrity != Integrity::Ok
                || self.filter.is_empty()
                || EntryView::parse(&row.body).is_none_or(|view| self.filter.matches(&view));
            if wanted {
                bytes += row.body.len() + 64;
                self.sent += 1;
                batch.rows.push(row);
            }
        }
        Ok(batch)
    }

    fn next_row(&mut self, conn: &Connection) -> Result<Option<StoredRow>, ReadError> {
        let mut best: Option<(usize, Position)> = None;
        for index in 0..self.runs.len() {
            if self.runs[index].buffer.is_empty() {
                self.fill(conn, index)?;
            }
            if let Some(row) = self.runs[index].buffer.front() {
                let position = Position { timestamp: row.timestamp, seq: row.seq };
                if best.as_ref().is_none_or(|(_, other)| self.order.before(&position, other)) {
                    best = Some((index, position));
                }
            }
        }
        Ok(best.and_then(|(index, _)| self.runs[index].buffer.pop_front()))
    }

    /// Fetches the next block of one run and notes every seq in it that is not there.
    fn fill(&mut self, conn: &Connection, index: usize) -> Result<(), ReadError> {
        let run = &mut self.runs[index];
        if run.from >= run.to {
            return Ok(());
        }
        let sql = match self.order {
            Order::Asc => {
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq ASC LIMIT ?3"
            }
            Order::Desc => {
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
            }
        };
        // A page wants few rows: do not read a block of 512 for a limit of 50.
        let want = match self.limit {
            Some(limit) if self.filter.is_empty() => {
                usize::try_from(limit - self.sent).unwrap_or(BLOCK_ROWS).clamp(1, BLOCK_ROWS)
            }
            _ => BLOCK_ROWS,
        };
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query((run.from, run.to, want))?;
        let (mut bytes, mut count) = (0, 0);
        let mut exhausted = true;
        while let Some(row) = rows.next()? {
            let stored = read_row(row, &mut self.checker)?;
            bytes += stored.body.len();
            count += 1;
            let seq = stored.seq;
            if stored.checked.reason == Some(ERA_COLUMN) {
                // The bytes and their signature are good, so no other reader could see this one.
                self.faults.push(format!("row {seq}: {ERA_COLUMN}"));
            }
            match self.order {
                Order::Asc => {
                    note_gap(&mut self.faults, run.from, seq);
                    run.from = seq + 1;
                }
                Order::Desc => {
                    note_gap(&mut self.faults, seq + 1, run.to);
                    run.to = seq;
                }
            }
            run.buffer.push_back(stored);
            if bytes >= BLOCK_BYTES || count == want {
                exhausted = false;
                break;
            }
        }
        if exhausted {
            note_gap(&mut self.faults, run.from, run.to);
            run.from = run.to;
        }
        Ok(())
    }
}

/// Rows `from..to` are not there.
fn note_gap(faults: &mut Vec<String>, from: u64, to: u64) {
    if from < to {
        faults.push(SequenceFault::Missing { first: from, last: to - 1 }.to_string());
    }
}

/// Reads and checks one row; columns that cannot hold what they should are a violation, not an error.
pub(super) fn read_row(row: &rusqlite::Row<'_>, checker: &mut RowChecker) -> rusqlite::Result<StoredRow> {
    let bytes = |index| -> rusqlite::Result<Vec<u8>> {
        Ok(match row.get_ref(index)? {
            rusqlite::types::ValueRef::Text(bytes) | rusqlite::types::ValueRef::Blob(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        })
    };
    let (seq, ts, era, epoch) =
        (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?);
    let (mac, body) = (bytes(4)?, bytes(5)?);
    let seq = u64::try_from(seq).unwrap_or(u64::MAX);
    let timestamp = Timestamp::from_micros(ts);
    let era = u32::try_from(era).unwrap_or(u32::MAX);
    let epoch = u32::try_from(epoch).unwrap_or(u32::MAX);
    let mut checked = checker.check(&Claim { seq, timestamp, epoch, mac: &mac, body: &body });
    if checked.integrity == Integrity::Ok && checked.era != Some(era) {
        checked.integrity = Integrity::Violation;
        checked.reason = Some(ERA_COLUMN);
    }
    Ok(StoredRow { seq, timestamp, era, epoch, mac, body, checked })
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
struct Search<'a> {
    conn: &'a Connection,
    checker: &'a mut RowChecker,
}

impl Search<'_> {
    /// The seq ranges of the eras below `end`. The first begins at 0, whether that row is there or not.
    fn eras(&mut self, end: u64) -> rusqlite::Result<Vec<(u64, u64)>> {
        let mut ranges = Vec::new();
        let mut from = 0;
        while from < end {
            let Some(first) = self.landmark(from, end)? else {
                ranges.push((from, end));
                break;
            };
            let to = self.first_not(from, end, |row| row.era <= first.era)?;
            ranges.push((from, to));
            from = to;
        }
        Ok(ranges)
    }

    /// The part of an era's rows that the request asks for.
    fn narrow(&mut self, from: u64, to: u64, request: &ScanRequest) -> rusqlite::Result<(u64, u64)> {
        let (mut start, mut end) = (from, to);
        if request.from > Timestamp::MIN {
            start = self.behind_last(from, to, |row| row.timestamp < request.from)?;
        }
        if request.to < Timestamp::MAX {
            end = self.first_not(from, to, |row| row.timestamp < request.to)?;
        }
        if let Some(after) = request.after {
            let place = |row: Landmark| Position { timestamp: row.timestamp, seq: row.seq };
            match request.order {
                Order::Asc => start = start.max(self.behind_last(from, to, |row| place(row) <= after)?),
                Order::Desc => end = end.min(self.first_not(from, to, |row| place(row) < after)?),
            }
        }
        Ok((start, end))
    }

    /// The seq behind the last landmark in `from..to` that satisfies `before`; those that do come first.
    fn behind_last(&mut self, from: u64, to: u64, before: impl Fn(Landmark) -> bool) -> rusqlite::Result<u64> {
        let (mut low, mut high) = (from, to);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.landmark(middle, high)? {
                Some(row) if before(row) => low = row.seq + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The first landmark in `from..to` that does not satisfy `before`, or `to`.
    fn first_not(&mut self, from: u64, to: u64, before: impl Fn(Landmark) -> bool) -> rusqlite::Result<u64> {
        let behind = self.behind_last(from, to, before)?;
        Ok(self.landmark(behind, to)?.map_or(to, |row| row.seq))
    }

    /// The first row in `from..to` whose signature fits; `None` also when too many in a row do not, which makes
    /// the range that is read larger, never smaller.
    fn landmark(&mut self, from: u64, to: u64) -> rusqlite::Result<Option<Landmark>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query((from, to, LANDMARK_ROWS_MAX))?;
        while let Some(row) = rows.next()? {
            let row = read_row(row, self.checker)?;
            if let Some(prefix) = Prefix::parse(&row.body)
                && row.checked.integrity == Integrity::Ok
            {
                return Ok(Some(Landmark { seq: row.seq, timestamp: prefix.timestamp, era: prefix.era }));
            }
        }
        Ok(None)
    }
}
