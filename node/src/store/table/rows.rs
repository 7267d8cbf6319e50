//! One stored row, read and verified.

use piperoll_format::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_format::merkle::{Hash, leaf_hash};
use piperoll_format::order::Position;
use piperoll_format::statement::{Begun, Erased, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{Checked, Claim, Integrity, RowChecker};
use piperoll_protocol::node::{LogBefore, LogSpan};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

/// Maximum seq. No log reaches it. A row above it was planted, which a full check reports.
pub(in crate::store) const SEQ_MAX: u64 = 1 << 62;
/// Maximum number of bytes that are read of a stored body or MAC. A valid one is never longer, so only an invalid one can be
/// truncated.
const STORED_BYTES_MAX: usize = 2 * BODY_AND_MAC_BYTES_MAX;
pub(in crate::store) const ERA_COLUMN: &str = "the era column differs from the signed era";

/// A row as stored in the database, with the result of its check.
#[derive(Debug, Clone)]
pub struct StoredRow {
    pub seq: u64,
    /// Value of the row's time column; trustworthy only if the check is `ok`.
    pub timestamp: Timestamp,
    /// Position of the row in the timeline: its own time if it is sound, otherwise the time of the preceding sound row in reading
    /// order. An unauthenticated time must not decide what is read next.
    pub place: Timestamp,
    pub era: u32,
    pub epoch: u32,
    /// Empty when NULL.
    pub mac: Vec<u8>,
    pub body: Vec<u8>,
    pub checked: Checked,
    /// Whether the index says that the row matches the filter.
    pub(in crate::store) indexed: bool,
    /// The entry that erased this row.
    pub erased: Option<Box<ErasedBy>>,
}

/// First and last row of a log at the time of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub oldest_seq: Option<u64>,
    pub head_seq: Option<u64>,
    pub last_timestamp: Option<Timestamp>,
}

/// Finds the first and last row that exist, according to the tables themselves. Rows below the log start count as pruned.
pub(in crate::store) fn extent(conn: &Connection) -> rusqlite::Result<Extent> {
    let oldest = "SELECT min(seq) FROM entries WHERE seq BETWEEN (SELECT coalesce(max(to_seq), 0) FROM pruned) AND ?1";
    let oldest_seq = conn.prepare_cached(oldest)?.query_row([SEQ_MAX], |row| row.get(0))?;
    let newest = "SELECT seq, ts FROM entries WHERE seq BETWEEN 0 AND ?1 ORDER BY seq DESC LIMIT 1";
    let mut newest = conn.prepare_cached(newest)?;
    let newest = newest.query_row([SEQ_MAX], |row| Ok((row.get(0)?, integer(row, 1)?))).optional()?;
    let (head_seq, last_timestamp) = match newest {
        Some((seq, ts)) => (Some(seq), ts.map(Timestamp::from_micros)),
        None => (None, None),
    };
    Ok(Extent { oldest_seq, head_seq, last_timestamp })
}

/// Returns the value of a row's time column.
pub(in crate::store) fn time_of(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Timestamp>> {
    let mut statement = conn.prepare_cached("SELECT ts FROM entries WHERE seq = ?1")?;
    let time = statement.query_row([seq], |row| integer(row, 0)).optional()?;
    Ok(time.flatten().map(Timestamp::from_micros))
}

/// Reads the times of the first `size` rows, and the statement about the previous log, without verifying columns or bodies.
pub(in crate::store) fn span(conn: &Connection, size: u64) -> rusqlite::Result<LogSpan> {
    let at = |order: &str| {
        let sql = format!("SELECT ts, era FROM entries WHERE seq BETWEEN 0 AND ?1 ORDER BY seq {order} LIMIT 1");
        let mut statement = conn.prepare_cached(&sql)?;
        statement
            .query_row([size.saturating_sub(1).min(SEQ_MAX)], |row| Ok((integer(row, 0)?, integer(row, 1)?)))
            .optional()
    };
    let (oldest, newest) = (at("ASC")?, at("DESC")?);
    let time = |row: Option<(Option<i64>, Option<i64>)>| row.and_then(|(ts, _)| ts).map(Timestamp::from_micros);
    let era = newest.and_then(|(_, era)| era).and_then(|era| u32::try_from(era).ok()).unwrap_or_default();
    let mut first = conn.prepare_cached("SELECT body FROM entries WHERE seq = 0")?;
    let first =
        first.query_row([], |row| Ok(row.get_ref(0)?.as_bytes().map(<[u8]>::to_vec).unwrap_or_default())).optional()?;
    let before = first.and_then(|body| log_before(&body));
    Ok(LogSpan { oldest: time(oldest), newest: time(newest), era, before, pruned: None, aside: Vec::new() })
}

/// Parses the statement of a `log.generation_begun` entry about the previous log.
fn log_before(body: &[u8]) -> Option<LogBefore> {
    let Begun { generation, signed_rows, witnessed_rows, rows, at } = Begun::read(body)?;
    Some(LogBefore { generation: generation.and_then(|text| text.parse().ok()), signed_rows, witnessed_rows, rows, at })
}

impl StoredRow {
    pub(in crate::store) fn checked_by(&self, checker: &mut RowChecker) -> Checked {
        let Self { seq, timestamp, epoch, mac, body, .. } = self;
        let mut checked = checker.check(&Claim { seq: *seq, timestamp: *timestamp, epoch: *epoch, mac, body });
        if checked.integrity == Integrity::Ok && checked.era != Some(self.era) {
            checked.integrity = Integrity::Violation;
            checked.reason = Some(ERA_COLUMN);
        }
        checked
    }

    /// Returns whether the row's seq and time are authentic, and its content too, unless it was erased.
    pub(in crate::store) fn is_sound(&self) -> bool {
        matches!(self.checked.integrity, Integrity::Ok | Integrity::Erased)
    }

    /// Hash of the row in the tree.
    pub(in crate::store) fn leaf(&self) -> Hash {
        self.erased.as_ref().map_or_else(|| leaf_hash(&self.body, &self.mac), |erased| erased.statement.leaf)
    }

    pub(in crate::store) fn position(&self) -> Position {
        Position { timestamp: self.place, seq: self.seq }
    }
}

/// Reads and checks one row. A column of the wrong type is a violation, not an error.
pub(in crate::store) fn read_row(row: &rusqlite::Row<'_>, checker: &mut RowChecker) -> rusqlite::Result<StoredRow> {
    let mut stored = read_unchecked(row)?;
    stored.checked = stored.checked_by(checker);
    Ok(stored)
}

/// Reads one row without checking it. Until it is checked, the row counts as a violation.
pub(in crate::store) fn read_unchecked(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRow> {
    let bytes = |index| -> rusqlite::Result<Vec<u8>> {
        Ok(match row.get_ref(index)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes[..bytes.len().min(STORED_BYTES_MAX)].to_vec(),
            _ => Vec::new(),
        })
    };
    // Replace a value that is not a number with one that no signed body can contain.
    let number = |index| -> rusqlite::Result<u32> {
        Ok(integer(row, index)?.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX))
    };
    let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(u64::MAX);
    let timestamp = Timestamp::from_micros(integer(row, 1)?.unwrap_or(i64::MIN));
    let (era, epoch) = (number(2)?, number(3)?);
    let (mac, body) = (bytes(4)?, bytes(5)?);
    let checked = Checked { integrity: Integrity::Violation, reason: Some("the row was not checked"), era: None };
    Ok(StoredRow { seq, timestamp, place: timestamp, era, epoch, mac, body, checked, indexed: false, erased: None })
}

/// Returns the value of a column that should be a number; `None` if it was changed to something else.
pub(in crate::store) fn integer(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    })
}

/// The entry that erased a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedBy {
    pub entry_seq: u64,
    pub statement: Erased,
    /// The entry as stored, so that clients can verify it.
    pub timestamp: Timestamp,
    pub epoch: u32,
    pub mac: Vec<u8>,
    pub body: Vec<u8>,
}

/// Reads the statement in the entry at this seq, if it is an authentic entry of the node.
pub(in crate::store) fn statement_at(
    conn: &Connection,
    checker: &mut RowChecker,
    seq: u64,
) -> rusqlite::Result<Option<Statement>> {
    let row = entry_at(conn, checker, seq)?;
    Ok(row.filter(|row| row.checked.integrity == Integrity::Ok).and_then(|row| Statement::read(&row.body)))
}

/// Reads and checks one row, without recognizing erased rows.
pub(in crate::store) fn entry_at(
    conn: &Connection,
    checker: &mut RowChecker,
    seq: u64,
) -> rusqlite::Result<Option<StoredRow>> {
    let mut statement = conn.prepare_cached("SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq = ?1")?;
    let mut rows = statement.query([seq])?;
    rows.next()?.map(|row| read_row(row, checker)).transpose()
}
