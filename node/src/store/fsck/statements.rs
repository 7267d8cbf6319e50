//! Compares the node's statements about holds and erased rows with the tables that refer to these statements.

use piperoll_format::statement::Statement;
use piperoll_format::verify::Integrity;
use piperoll_protocol::node::{FindingKind, VerifyLine};
use rusqlite::Connection;

use super::check::Check;
use crate::store::table::erased;
use crate::store::table::holds;
use crate::store::table::rows::{StoredRow, statement_at};

impl Check {
    pub(in crate::store) fn note_hold(&mut self, row: &StoredRow) {
        match Statement::read(&row.body).filter(|_| row.checked.integrity == Integrity::Ok) {
            Some(Statement::HoldAdded(hold)) => {
                self.held.insert(hold.name, row.seq);
            }
            Some(Statement::HoldReleased(release)) => {
                self.held.remove(&release.name);
            }
            _ => {}
        }
    }

    /// Reports rows that the table `erased` lists but that no entry erased, and differences between the table `holds` and the
    /// entries about holds.
    pub(in crate::store) fn statements(
        &mut self,
        conn: &Connection,
        lines: &mut Vec<VerifyLine>,
    ) -> rusqlite::Result<()> {
        let first = self.floor.as_ref().map_or(0, |floor| floor.pruned.to_seq);
        for (seq, fault) in erased::orphans(conn, &mut self.checker, first)? {
            self.find(lines, Some(seq), FindingKind::Derived, fault);
        }
        let held = match holds::holds(conn, &mut self.checker)? {
            Ok(held) => held,
            Err(message) => {
                self.find(lines, None, FindingKind::Derived, message);
                return Ok(());
            }
        };
        let since = self.released_since(conn)?;
        for (name, seq) in std::mem::take(&mut self.held) {
            if !since.contains(&name) && !held.iter().any(|known| known.hold.name == name && known.entry_seq == seq) {
                let message = format!("the hold {name:?} was set and never released, but is not in effect");
                self.find(lines, Some(seq), FindingKind::Derived, message);
            }
        }
        Ok(())
    }

    /// Returns the names of holds that were released by rows after the last row of this check.
    fn released_since(&mut self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut statement =
            conn.prepare("SELECT seq FROM entries WHERE seq > ?1 AND body LIKE '%log.hold_released%'")?;
        let places: Vec<i64> = statement.query_map([self.head], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let mut names = Vec::new();
        for seq in places {
            if let Some(Statement::HoldReleased(release)) = statement_at(conn, &mut self.checker, seq.unsigned_abs())? {
                names.push(release.name);
            }
        }
        Ok(names)
    }
}
