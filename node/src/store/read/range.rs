//! Reads rows by number for forwarding: in the order in which they were written, regardless of their times.

use piperoll_format::verify::RowChecker;
use rusqlite::Connection;

use crate::store::table::erased;
use crate::store::table::error::ReadError;
use crate::store::table::log_start::{first_seq, floor};
use crate::store::table::mac_epochs::load_epochs;
use crate::store::table::rows::{StoredRow, read_row};

/// Maximum bytes of bodies in one slice.
const SLICE_BYTES_MAX: usize = 256 * 1024;

/// Consecutive rows.
#[derive(Debug, Default)]
pub struct RowRange {
    pub rows: Vec<StoredRow>,
    /// Seq at which the next slice begins.
    pub next: u64,
    /// Whether the limit was reached before the last requested row.
    pub is_full: bool,
    /// Seq at which the log begins, if some requested rows were pruned.
    pub pruned_to: Option<u64>,
    /// First and last seq of each run of rows that should exist but are missing.
    pub missing: Vec<(u64, u64)>,
}

/// Reads and verifies at most `rows_max` rows of `from..end`.
pub(in crate::store) fn read_range(
    conn: &Connection,
    checker: &mut RowChecker,
    from: u64,
    end: u64,
    rows_max: usize,
) -> Result<RowRange, ReadError> {
    let _one_moment = conn.unchecked_transaction()?;
    // Ignore faults in the derived tables: `node verify` reports them, and the check of each row shows whether that row is sound.
    let floor = floor(conn, checker)?.ok().flatten();
    let _ = load_epochs(conn, checker, floor.as_ref())?;
    let first = first_seq(floor.as_ref());
    let mut slice =
        RowRange { next: from.max(first), pruned_to: (from < first).then_some(first), ..RowRange::default() };
    let sql =
        "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq ASC LIMIT ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((slice.next, end, rows_max))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let mut stored = read_row(row, checker)?;
        erased::recognise(conn, checker, &mut stored)?;
        if stored.seq > slice.next {
            slice.missing.push((slice.next, stored.seq - 1));
        }
        slice.next = stored.seq + 1;
        bytes += stored.body.len();
        slice.rows.push(stored);
        slice.is_full = bytes >= SLICE_BYTES_MAX || slice.rows.len() >= rows_max;
        if slice.is_full {
            break;
        }
    }
    if !slice.is_full && slice.next < end {
        slice.missing.push((slice.next, end - 1));
        slice.next = end;
    }
    Ok(slice)
}
