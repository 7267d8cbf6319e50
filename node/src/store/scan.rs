//! Reading rows in order, in short batches.
//!
//! Inside an era the time never decreases, so a time range is one contiguous seq range per era and is found
//! by binary search over rows whose signature fits; no index on time exists. Rows of several eras are merged by `(timestamp, seq)`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use piperoll_shared::api::node::{Position, ScanRequest};
use piperoll_shared::log::filter::Filter;
use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_shared::log::order::Order;
use piperoll_shared::log::seal::KeyRing;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::verify::{Checked, Claim, Integrity, RowChecker, SequenceFault};
use piperoll_shared::log::view::EntryView;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use super::error::ReadError;
use super::search::{Part, Search};

/// Rows and bytes fetched by one statement, which is one read transaction.
const BLOCK_ROWS: usize = 512;
const BLOCK_BYTES: usize = 1024 * 1024;
/// A batch ends at whichever comes first.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_TIME: Duration = Duration::from_millis(100);
/// No log gets there; a row above it was planted, and is found by a full check.
pub(super) const SEQ_MAX: u64 = 1 << 62;
/// Bytes taken of a stored body or mac. No sound one is longer, so what is cut was a violation before.
const STORED_BYTES_MAX: usize = 2 * BODY_AND_MAC_BYTES_MAX;
/// Faults spelled out in one answer; the rest would say the same.
const FAULTS_LISTED_MAX: usize = 20;

const ERA_COLUMN: &str = "the era column differs from the signed era";

/// A row as it stands in the database, with what its check gave.
#[derive(Debug, Clone)]
pub struct StoredRow {
    pub seq: u64,
    /// As the column says; believed only when the check is `ok`.
    pub timestamp: Timestamp,
    /// Where the row stands in the timeline. Its own time when it is sound, otherwise that of the sound row in
    /// front of it in reading order: what nobody signed must not decide what is read next.
    pub place: Timestamp,
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
    range: (Timestamp, Timestamp),
    scanned: u64,
    sent: u64,
    faults: Faults,
}

/// What is wrong with the sequence of rows, in words. Bounded: a log with every second row gone has as many
/// gaps as rows.
#[derive(Debug, Default)]
struct Faults {
    listed: Vec<String>,
    more: u64,
}

/// The rows of one era that are still to be read: `from..to` in seq.
struct Run {
    from: u64,
    to: u64,
    /// Place of the next row, should it not be sound.
    carry: Timestamp,
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
    let oldest_seq =
        conn.query_row("SELECT min(seq) FROM entries WHERE seq BETWEEN 0 AND ?1", [SEQ_MAX], |row| row.get(0))?;
    let newest = "SELECT seq, ts FROM entries WHERE seq BETWEEN 0 AND ?1 ORDER BY seq DESC LIMIT 1";
    let newest = conn.query_row(newest, [SEQ_MAX], |row| Ok((row.get(0)?, integer(row, 1)?))).optional()?;
    let (head_seq, last_timestamp) = match newest {
        Some((seq, ts)) => (Some(seq), ts.map(Timestamp::from_micros)),
        None => (None, None),
    };
    Ok(Extent { oldest_seq, head_seq, last_timestamp })
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
            range: (request.from, request.to),
            scanned: 0,
            sent: 0,
            faults: Faults::default(),
        };
        if let Some(head) = head {
            let mut search = Search { conn, checker: &mut scan.checker };
            for (from, to) in search.eras(head.min(SEQ_MAX) + 1)? {
                let from = from.max(request.from_seq.unwrap_or(0));
                if from >= to {
                    continue;
                }
                let Part { from, to, carry } = search.narrow(from, to, request)?;
                if from < to {
                    scan.runs.push(Run { from, to, carry, buffer: VecDeque::new() });
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
        let mut words = self.faults.listed.clone();
        if self.faults.more > 0 {
            words.push(format!("and {} more", self.faults.more));
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
            let position = row.position();
            if self.after.is_some_and(|after| !self.order.before(&after, &position)) {
                continue;
            }
            let (from, to) = self.range;
            if row.checked.integrity == Integrity::Ok && !(from..to).contains(&row.timestamp) {
                // A search that met too many unsound rows reads more than the range, and this row of it is known
                // not to belong there.
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
                let position = row.position();
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
            let mut stored = read_row(row, &mut self.checker)?;
            bytes += stored.body.len();
            count += 1;
            let seq = stored.seq;
            if stored.checked.integrity == Integrity::Ok {
                run.carry = stored.timestamp;
                stored.place = stored.timestamp;
            } else {
                let (from, to) = self.range;
                stored.place = run.carry.clamp(from, to.plus_micros(-1).max(from));
            }
            if stored.checked.reason == Some(ERA_COLUMN) {
                // The bytes and their signature are good, so no other reader could see this one.
                self.faults.note(|| format!("row {seq}: {ERA_COLUMN}"));
            }
            match self.order {
                Order::Asc => {
                    self.faults.gap(run.from, seq);
                    run.from = seq + 1;
                }
                Order::Desc => {
                    self.faults.gap(seq + 1, run.to);
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
            self.faults.gap(run.from, run.to);
            run.from = run.to;
        }
        Ok(())
    }
}

impl Faults {
    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.listed.len() < FAULTS_LISTED_MAX {
            self.listed.push(words());
        } else {
            self.more += 1;
        }
    }

    /// Rows `from..to` are not there.
    fn gap(&mut self, from: u64, to: u64) {
        if from < to {
            self.note(|| SequenceFault::Missing { first: from, last: to - 1 }.to_string());
        }
    }
}

impl StoredRow {
    fn position(&self) -> Position {
        Position { timestamp: self.place, seq: self.seq }
    }
}

/// Reads and checks one row; columns that cannot hold what they should are a violation, not an error.
pub(super) fn read_row(row: &rusqlite::Row<'_>, checker: &mut RowChecker) -> rusqlite::Result<StoredRow> {
    let bytes = |index| -> rusqlite::Result<Vec<u8>> {
        Ok(match row.get_ref(index)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes[..bytes.len().min(STORED_BYTES_MAX)].to_vec(),
            _ => Vec::new(),
        })
    };
    // What is not a number gets one that no signed body can say.
    let number = |index| -> rusqlite::Result<u32> {
        Ok(integer(row, index)?.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX))
    };
    let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(u64::MAX);
    let timestamp = Timestamp::from_micros(integer(row, 1)?.unwrap_or(i64::MIN));
    let (era, epoch) = (number(2)?, number(3)?);
    let (mac, body) = (bytes(4)?, bytes(5)?);
    let mut checked = checker.check(&Claim { seq, timestamp, epoch, mac: &mac, body: &body });
    if checked.integrity == Integrity::Ok && checked.era != Some(era) {
        checked.integrity = Integrity::Violation;
        checked.reason = Some(ERA_COLUMN);
    }
    Ok(StoredRow { seq, timestamp, place: timestamp, era, epoch, mac, body, checked })
}

/// A column that should be a number; `None` when somebody put something else there.
pub(super) fn integer(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    })
}
