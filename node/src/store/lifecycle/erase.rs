//! Erases one row: deletes its content, keeps its number, time and hash, and records the erasure.

use piperoll_format::entry::Prefix;
use piperoll_format::statement::{Begun, Erased, Hold, Statement};
use piperoll_format::verify::Integrity;
use piperoll_protocol::node::Done;

use crate::store::engine::writer::Writer;
use crate::store::table::erased::row_at;
use crate::store::table::error::{UpkeepError, check_reason};
use crate::store::table::holds;
use crate::store::table::log_dir::BUSY_TIMEOUT;
use crate::store::table::log_start::{first_seq, floor};
use crate::store::table::mac_epochs::teach;

impl Writer {
    /// Erases a row and records the erasure, both in one transaction, so that a crash leaves both or neither. `holds` protect rows
    /// in addition to the holds of this log.
    pub(in crate::store) fn erase(
        &mut self,
        seq: u64,
        reason: &str,
        by: &str,
        holds: &[Hold],
    ) -> Result<Done, UpkeepError> {
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
        if let Some(hold) = holds::over(&self.conn, &mut checker, row.timestamp)? {
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
        // The index holds the content too. The guard keeps the indexer from writing any of it again before the row is empty.
        let _held = self.index.forget(seq).map_err(|error| {
            UpkeepError::Refused(format!("what the index says about row {seq} cannot be removed: {error}"))
        })?;
        // Overwrite erased content in the file with zeros, overflow pages included.
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

    /// Checkpoints the whole WAL into the database and truncates it, because it still holds content written there earlier. A
    /// long-running reader can block that; the writer then tries again every second. If the process is killed before it succeeds,
    /// the next start empties the WAL.
    pub(in crate::store) fn empty_wal(&mut self, tries: u32) -> bool {
        // Appends wait meanwhile, so do not wait for readers here.
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

/// Half a second in total.
pub(in crate::store) const WAL_TRIES: u32 = 25;
const WAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
