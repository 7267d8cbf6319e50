//! Log start: an entry of the node itself states that the rows below the log start were pruned.
//!
//! The table `pruned` only locates that entry. The entry with its MAC is authoritative: changing the table so that it names
//! another entry hides nothing, because the rows are then reported as missing.

use piperoll_format::statement::{Pruned, Statement};
use piperoll_format::verify::RowChecker;
use piperoll_protocol::node::PrunedRows;
use rusqlite::{Connection, OptionalExtension as _};

use super::error::{AdminError, refused};
use super::rows::statement_at;

/// The first row that a log must contain, and the entry that states this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStart {
    pub entry_seq: u64,
    pub pruned: Pruned,
    /// Whether all rows below the log start have been dropped.
    pub finished: bool,
}

/// Reads the log start; `None` for a log that begins at 0. Returns a message if the entry does not confirm the log start.
pub(in crate::store) fn floor(
    conn: &Connection,
    checker: &mut RowChecker,
) -> rusqlite::Result<Result<Option<LogStart>, String>> {
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
            Ok(Some(LogStart { entry_seq: entry_seq.unsigned_abs(), pruned, finished }))
        }
        _ => Err(format!(
            "row {entry_seq} is listed as the entry that declares the rows below {to_seq} pruned, but it does not"
        )),
    })
}

/// First row of the log, according to a verified log start.
pub(in crate::store) fn first_seq(floor: Option<&LogStart>) -> u64 {
    floor.map_or(0, |floor| floor.pruned.to_seq)
}

impl LogStart {
    /// Describes the pruned rows in the form that clients receive.
    pub fn rows(&self) -> PrunedRows {
        PrunedRows { to_seq: self.pruned.to_seq, newest: self.pruned.newest, entry_seq: self.entry_seq }
    }
}

/// Returns the log start if its pruned rows have not all been dropped yet.
pub(in crate::store) fn unfinished(
    conn: &Connection,
    checker: &mut RowChecker,
) -> Result<Option<LogStart>, AdminError> {
    Ok(refused(floor(conn, checker)?)?.filter(|floor| !floor.finished))
}
