//! Emptying one row: its content goes, its place, its time and its hash stay, and an entry says so.

use std::ops::Range;

use piperoll_shared::api::node::Done;
use piperoll_shared::log::entry::Prefix;
use piperoll_shared::log::filter::{ErasedFit, Filter};
use piperoll_shared::log::ids::NodeId;
use piperoll_shared::log::statement::{Begun, Erased, Hold, Statement};
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::verify::{Checked, Integrity, NO_MAC, RowChecker};
use rusqlite::{Connection, OptionalExtension as _};

use super::epochs::teach;
use super::floor::{entry_at, first_seq, floor, row_at, statement_at};
use super::hold;
use super::open::BUSY_TIMEOUT;
use super::rows::StoredRow;
use super::upkeep::UpkeepError;
use super::writer::Writer;

/// Longest reason for an erasure or a hold, bytes of UTF-8.
pub const REASON_BYTES_MAX: usize = 1_024;

/// The entry that emptied a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedUnder {
    pub entry_seq: u64,
    pub statement: Erased,
    /// That entry as it is stored, so that readers elsewhere can check it.
    pub timestamp: Timestamp,
    pub epoch: u32,
    pub mac: Vec<u8>,
    pub body: Vec<u8>,
}

/// Tells an erased row from one that somebody emptied: an authentic entry of the node names it.
pub(super) fn recognise(conn: &Connection, checker: &mut RowChecker, row: &mut StoredRow) -> rusqlite::Result<()> {
    // Any other reason outranks that it is empty: an epoch that is not the one of its place, or not one at all.
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
        row.erased = Some(Box::new(ErasedUnder { entry_seq, statement: said, timestamp, epoch, mac, body }));
    }
    Ok(())
}

/// How many erased rows of a part of the log a filter can neither select nor exclude by their places. The table is believed here, and
/// a full check holds it against the rows: the number is for people to read and shows nothing.
pub(super) fn count_undecided(
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

impl Writer {
    /// Empties a row and records that. After a crash either both are done or neither. `holds` keep rows besides those of this log.
    pub(super) fn erase(&mut self, seq: u64, reason: &str, by: &str, holds: &[Hold]) -> Result<Done, UpkeepError> {
        check_reason(reason)?;
        let mut checker = self.checker();
        let floor = floor(&self.conn, &mut checker)?.map_err(UpkeepError::Refused)?;
        teach(&self.conn, &mut checker, floor.as_ref())?.map_err(UpkeepError::Refused)?;
        let first = first_seq(floor.as_ref());
        if seq < first {
            return Err(UpkeepError::NotFound(format!("row {seq} was pruned; this log begins at row {first}")));
        }
        let row = if seq < self.end.next_seq { row_at(&self.conn, &mut checker, seq)? } else { None };
        let row = row.ok_or_else(|| UpkeepError::NotFound(format!("there is no row {seq}")))?;
        match row.checked.integrity {
            Integrity::Ok => {}
            Integrity::Erased => {
                let under = row.erased.map_or(0, |erased| erased.entry_seq);
                return Err(UpkeepError::Refused(format!("row {seq} was erased before, under entry {under}")));
            }
            Integrity::Violation | Integrity::UnknownKey => {
                let why = row.checked.reason.unwrap_or_default();
                let words =
                    format!("row {seq} fails verification ({why}) and stays as evidence; run `piperoll node verify`");
                return Err(UpkeepError::Refused(words));
            }
        }
        if Statement::read(&row.body).is_some() || Begun::read(&row.body).is_some() {
            return Err(UpkeepError::Refused(format!("row {seq} says what became of other rows, and stays")));
        }
        if let Some(hold) = hold::over(&self.conn, &mut checker, row.timestamp)? {
            return Err(UpkeepError::Refused(format!("row {seq} is under the hold {:?}; release it first", hold.name)));
        }
        if let Some(hold) = holds.iter().find(|hold| (hold.from..hold.to).contains(&row.timestamp)) {
            return Err(UpkeepError::Refused(format!(
                "row {seq} is under the hold {:?} of the log that took the place of this one; release it there first",
                hold.name
            )));
        }
        let (leaf, era, timestamp) = (row.leaf(), row.era, row.timestamp);
        let id = Prefix::parse(&row.body).map(|prefix| *prefix.id.as_bytes()).unwrap_or_default();
        let (reason, by) = (reason.to_owned(), by.to_owned());
        let statement = Statement::Erased(Erased { seq, leaf, era, timestamp, reason, by });
        // The index says it too. Nothing of it comes back before the row is empty.
        let _held = self.index.forget(seq).map_err(|error| {
            UpkeepError::Refused(format!("what the index says about row {seq} cannot be removed: {error}"))
        })?;
        // What is overwritten in the file is overwritten with zeros, overflow pages included.
        self.conn.pragma_update(None, "secure_delete", true)?;
        let entry_seq = self.transact(|rows, now| {
            let entry_seq = rows.state(&statement, now)?;
            rows.conn.execute(
                "INSERT INTO erased (seq, entry_seq, leaf, id) VALUES (?1, ?2, ?3, ?4)",
                (seq, entry_seq, &leaf[..], &id[..]),
            )?;
            rows.conn.execute("UPDATE entries SET body = NULL, mac = NULL WHERE seq = ?1", [seq])?;
            Ok(entry_seq)
        })?;
        let wal_emptied = self.empty_wal(WAL_TRIES);
        Ok(Done { entry_seq, wal_emptied })
    }

    /// Moves everything into the database and cuts the WAL off, which still holds what was written there before. A reader
    /// in the middle of something long can be in the way; then it is tried again every second. A kill before it leaves a
    /// WAL that the next start empties.
    pub(super) fn empty_wal(&mut self, tries: u32) -> bool {
        // Entries wait meanwhile, so nobody waits for a reader here.
        let _ = self.conn.busy_timeout(std::time::Duration::ZERO);
        let done = (0..tries).any(|number| {
            if number > 0 {
                std::thread::sleep(WAL_PAUSE);
            }
            self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)) == Ok(0)
        });
        let _ = self.conn.busy_timeout(BUSY_TIMEOUT);
        self.wal_to_empty = !done;
        done
    }
}

/// Half a second in all.
pub(super) const WAL_TRIES: u32 = 25;
const WAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

pub(super) fn check_reason(reason: &str) -> Result<(), UpkeepError> {
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(UpkeepError::Refused(format!("a reason is 1 to {REASON_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

/// Whether the table names only rows that entries erased, for a full check.
pub(super) fn strays(conn: &Connection, checker: &mut RowChecker, first: u64) -> rusqlite::Result<Vec<(u64, String)>> {
    let mut statement = conn.prepare("SELECT seq, entry_seq FROM erased WHERE seq >= ?1 ORDER BY seq")?;
    let named: Vec<(i64, i64)> =
        statement.query_map([first], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut faults = Vec::new();
    for (seq, entry_seq) in named {
        let said = statement_at(conn, checker, entry_seq.unsigned_abs())?;
        let fits = matches!(&said, Some(Statement::Erased(erased)) if i64::try_from(erased.seq) == Ok(seq));
        if !fits {
            let words = format!("row {seq} counts as erased under row {entry_seq}, which does not say so");
            faults.push((seq.unsigned_abs(), words));
        }
    }
    Ok(faults)
}
