//! Distinguishes erased rows from rows that were emptied without an entry.

use std::ops::Range;

use piperoll_format::ids::NodeId;
use piperoll_format::statement::Statement;
use piperoll_format::verify::{Checked, Integrity, NO_MAC, RowChecker};
use piperoll_query::filter::{ErasedFit, Filter};
use rusqlite::{Connection, OptionalExtension as _};

use super::rows::{ErasedBy, StoredRow, entry_at, statement_at};

/// Marks a row as erased if an authentic entry of the node states its erasure. Any other empty row was emptied by tampering.
pub(in crate::store) fn recognise(
    conn: &Connection,
    checker: &mut RowChecker,
    row: &mut StoredRow,
) -> rusqlite::Result<()> {
    // An erased row is empty and has no MAC. Any other fault, such as an unexpected or invalid epoch, remains a fault.
    if !row.body.is_empty() || row.checked.reason != Some(NO_MAC) {
        return Ok(());
    }
    let named = conn
        .prepare_cached("SELECT entry_seq, leaf FROM erased WHERE seq = ?1")?
        .query_row([row.seq], |found| Ok((found.get::<_, i64>(0)?, found.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let Some((Ok(entry_seq), leaf)) = named.map(|(seq, leaf)| (u64::try_from(seq), leaf)) else { return Ok(()) };
    let Some(entry) = entry_at(conn, checker, entry_seq)? else { return Ok(()) };
    let said = Statement::read(&entry.body).filter(|_| entry.checked.integrity == Integrity::Ok);
    let Some(Statement::Erased(said)) = said else { return Ok(()) };
    if said.seq == row.seq && said.leaf[..] == leaf && said.era == row.era && said.timestamp == row.timestamp {
        row.checked = Checked { integrity: Integrity::Erased, reason: None, era: Some(said.era) };
        let StoredRow { timestamp, epoch, mac, body, .. } = entry;
        row.erased = Some(Box::new(ErasedBy { entry_seq, statement: said, timestamp, epoch, mac, body }));
    }
    Ok(())
}

/// Reads and checks one row, and marks it as erased if it was erased.
pub(in crate::store) fn row_at(
    conn: &Connection,
    checker: &mut RowChecker,
    seq: u64,
) -> rusqlite::Result<Option<StoredRow>> {
    let mut row = entry_at(conn, checker, seq)?;
    if let Some(row) = &mut row {
        recognise(conn, checker, row)?;
    }
    Ok(row)
}

/// Counts, in a part of the log, the erased rows that a filter can neither select nor exclude by their seqs alone. The count
/// relies on the table `erased`, which a full check compares with the rows. It is only informative and proves nothing.
pub(in crate::store) fn count_undecided(
    conn: &Connection,
    filter: &Filter,
    node_id: &NodeId,
    part: Range<u64>,
) -> rusqlite::Result<u64> {
    if part.is_empty() || !filter.names_seqs() && filter.on_erased(node_id.as_str(), part.start) != ErasedFit::Unknown {
        return Ok(0);
    }
    if !filter.names_seqs() {
        let mut count = conn.prepare_cached("SELECT count(*) FROM erased WHERE seq >= ?1 AND seq < ?2")?;
        return count.query_row((part.start, part.end), |row| row.get(0));
    }
    let mut seqs = conn.prepare_cached("SELECT seq FROM erased WHERE seq >= ?1 AND seq < ?2")?;
    let mut rows = seqs.query((part.start, part.end))?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += u64::from(filter.on_erased(node_id.as_str(), row.get(0)?) == ErasedFit::Unknown);
    }
    Ok(count)
}

/// Finds rows that the table `erased` lists but that no entry erased, for a full check.
pub(in crate::store) fn orphans(
    conn: &Connection,
    checker: &mut RowChecker,
    first: u64,
) -> rusqlite::Result<Vec<(u64, String)>> {
    let mut statement = conn.prepare("SELECT seq, entry_seq FROM erased WHERE seq >= ?1 ORDER BY seq")?;
    let named: Vec<(i64, i64)> =
        statement.query_map([first], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut faults = Vec::new();
    for (seq, entry_seq) in named {
        let said = statement_at(conn, checker, entry_seq.unsigned_abs())?;
        let fits = matches!(&said, Some(Statement::Erased(erased)) if i64::try_from(erased.seq) == Ok(seq));
        if !fits {
            let message = format!(
                "row {entry_seq} is listed as the entry that records the erasure of row {seq}, but it does not"
            );
            faults.push((seq.unsigned_abs(), message));
        }
    }
    Ok(faults)
}
