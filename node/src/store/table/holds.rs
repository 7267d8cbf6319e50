//! Legal holds: time ranges whose rows are neither pruned nor erased.
//!
//! A hold is an entry of the node; the table `holds` only contains the seq of that entry. No prune removes the entry of a hold
//! that was not released, so every hold can be found in the log itself, and a full check reports holds that the table omits.

use std::collections::BTreeMap;

use piperoll_format::statement::{Hold, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use rusqlite::Connection;

use super::error::AdminError;
use super::rows::statement_at;

/// A hold and the entry that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBy {
    pub entry_seq: u64,
    pub hold: Hold,
}

/// Reads all holds that are not released, ordered by name. Returns a message about the first hold that its entry does not
/// confirm.
pub(in crate::store) fn holds(
    conn: &Connection,
    checker: &mut RowChecker,
) -> rusqlite::Result<Result<Vec<HeldBy>, String>> {
    let mut statement = conn.prepare_cached("SELECT name, entry_seq FROM holds ORDER BY name")?;
    let named: Vec<(String, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for (name, entry_seq) in named {
        match statement_at(conn, checker, entry_seq.unsigned_abs())? {
            Some(Statement::HoldAdded(hold)) if hold.name == name => {
                found.push(HeldBy { entry_seq: entry_seq.unsigned_abs(), hold });
            }
            _ => {
                return Ok(Err(format!(
                    "row {entry_seq} is listed as the entry that sets the hold {name:?}, but it does not"
                )));
            }
        }
    }
    Ok(Ok(found))
}

/// Returns the hold that protects a row of this time, if any.
pub(in crate::store) fn over(
    conn: &Connection,
    checker: &mut RowChecker,
    timestamp: Timestamp,
) -> Result<Option<Hold>, AdminError> {
    let held = holds(conn, checker)?.map_err(AdminError::Refused)?;
    Ok(held.into_iter().map(|held| held.hold).find(|hold| (hold.from..hold.to).contains(&timestamp)))
}

/// Finds every hold in the log itself, so that a hold that was deleted from the table still protects its rows.
pub(in crate::store) struct HoldScan {
    next: u64,
    held: BTreeMap<String, u64>,
}

/// Maximum number of rows scanned in one step.
const SCAN_ROWS: u64 = 50_000;

impl HoldScan {
    pub(in crate::store) fn new(first: u64) -> Self {
        Self { next: first, held: BTreeMap::new() }
    }

    /// Scans the next rows. Returns whether the end was reached; fails if the table omits a hold that was never released.
    pub(in crate::store) fn step(&mut self, conn: &Connection, checker: &mut RowChecker) -> Result<bool, AdminError> {
        let end: u64 = conn.query_row("SELECT coalesce(max(seq) + 1, 0) FROM entries", [], |row| row.get(0))?;
        let to = end.min(self.next + SCAN_ROWS);
        let mut statement = conn.prepare_cached(
            "SELECT seq FROM entries WHERE seq >= ?1 AND seq < ?2 AND instr(body, '\"action\":\"log.hold_') > 0",
        )?;
        let places = statement.query_map((self.next, to), |row| row.get(0))?;
        let places: Vec<u64> = places.collect::<rusqlite::Result<_>>()?;
        for seq in places {
            match statement_at(conn, checker, seq)? {
                Some(Statement::HoldAdded(hold)) => {
                    self.held.insert(hold.name, seq);
                }
                Some(Statement::HoldReleased(release)) => {
                    self.held.remove(&release.name);
                }
                _ => {}
            }
        }
        self.next = to;
        if to < end {
            return Ok(false);
        }
        let named = holds(conn, checker)?.map_err(AdminError::Refused)?;
        for (name, seq) in &self.held {
            if !named.iter().any(|held| &held.hold.name == name && held.entry_seq == *seq) {
                return Err(AdminError::Refused(format!(
                    "the hold {name:?} was set by entry {seq} and never released, but is missing from the table of holds; run `piperoll node verify`"
                )));
            }
        }
        Ok(true)
    }
}
