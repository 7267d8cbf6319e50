//! Where a log begins: the rows below its floor were stated as pruned, by an entry of the node itself.
//!
//! The table `pruned` only says where to find the statement. What counts is the entry, with its signature: a table that
//! names another one hides nothing, because the rows that are gone are then missing rows.

use piperoll_shared::api::node::PrunedRows;
use piperoll_shared::log::statement::{Pruned, Statement};
use piperoll_shared::log::verify::{Integrity, RowChecker};
use rusqlite::{Connection, OptionalExtension as _};

use super::erase;
use super::rows::{StoredRow, read_row};

/// The first row that a log answers for, and the entry that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    pub entry_seq: u64,
    pub pruned: Pruned,
    /// All rows below are gone.
    pub finished: bool,
}

/// The floor as it was stated, or what is wrong with it in words; `None` for a log that begins at 0.
pub(super) fn floor(conn: &Connection, checker: &mut RowChecker) -> rusqlite::Result<Result<Option<Floor>, String>> {
    let newest = conn
        .prepare_cached("SELECT to_seq, entry_seq, finished_seq IS NOT NULL FROM pruned ORDER BY to_seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?)))
        .optional()?;
    let Some((to_seq, entry_seq, finished)) = newest else { return Ok(Ok(None)) };
    let said = match u64::try_from(entry_seq) {
        Ok(seq) => statement_at(conn, checker, seq)?,
        Err(_) => None,
    };
    Ok(match said {
        Some(Statement::Pruned(pruned)) if i64::try_from(pruned.to_seq) == Ok(to_seq) => {
            Ok(Some(Floor { entry_seq: entry_seq.unsigned_abs(), pruned, finished }))
        }
        _ => Err(format!("rows below {to_seq} count as pruned under row {entry_seq}, which does not say so")),
    })
}

/// The first row of the log, as far as its floor can be believed.
pub(super) fn first_seq(floor: Option<&Floor>) -> u64 {
    floor.map_or(0, |floor| floor.pruned.to_seq)
}

impl Floor {
    /// As readers elsewhere are told.
    pub fn rows(&self) -> PrunedRows {
        PrunedRows { to_seq: self.pruned.to_seq, newest: self.pruned.newest, entry_seq: self.entry_seq }
    }
}

/// What an authentic entry of the node at this place says.
pub(super) fn statement_at(
    conn: &Connection,
    checker: &mut RowChecker,
    seq: u64,
) -> rusqlite::Result<Option<Statement>> {
    let row = entry_at(conn, checker, seq)?;
    Ok(row.filter(|row| row.checked.integrity == Integrity::Ok).and_then(|row| Statement::read(&row.body)))
}

/// One row, checked; an erased one is told from one that somebody emptied.
pub(super) fn row_at(conn: &Connection, checker: &mut RowChecker, seq: u64) -> rusqlite::Result<Option<StoredRow>> {
    let mut row = entry_at(conn, checker, seq)?;
    if let Some(row) = &mut row {
        erase::recognise(conn, checker, row)?;
    }
    Ok(row)
}

/// One row that still says something, checked.
pub(super) fn entry_at(conn: &Connection, checker: &mut RowChecker, seq: u64) -> rusqlite::Result<Option<StoredRow>> {
    let mut statement = conn.prepare_cached("SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq = ?1")?;
    let mut rows = statement.query([seq])?;
    rows.next()?.map(|row| read_row(row, checker)).transpose()
}
