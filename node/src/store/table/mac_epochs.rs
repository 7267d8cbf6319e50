//! Epochs of the MAC key: the rows of each epoch, and the switch to the next one.

use piperoll_format::statement::{KeyRotated, Statement};
use piperoll_format::verify::{EpochSpan, Integrity, RowChecker};
use rusqlite::{Connection, OptionalExtension as _};

use super::log_start::LogStart;
use super::rows::entry_at;

/// Reads the key epochs and the rows of each; returns a message about the first rotation that the entries do not confirm. The
/// first row of the new epoch states the rotation and has a MAC with the new key; the row before it states the rotation as well
/// and has a MAC with the previous key.
pub(in crate::store) fn epochs(
    conn: &Connection,
    checker: &mut RowChecker,
    floor: Option<&LogStart>,
) -> rusqlite::Result<Result<Vec<EpochSpan>, String>> {
    let mut statement = conn.prepare_cached("SELECT epoch, first_seq FROM epochs ORDER BY epoch")?;
    let named: Vec<(i64, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let first = floor.map_or(0, |floor| floor.pruned.to_seq);
    let mut base = floor.map(|floor| floor.pruned.epoch);
    let mut spans: Vec<EpochSpan> = Vec::new();
    for (epoch, first_seq) in named {
        let (Ok(epoch), Ok(first_seq)) = (u32::try_from(epoch), u64::try_from(first_seq)) else {
            return Ok(Err(format!("invalid key epoch {epoch}")));
        };
        if first_seq < first {
            // The first row of this epoch was pruned; the `log.pruned` entry contains the epoch of the last pruned row.
            continue;
        }
        let said = rotation_at(conn, checker, first_seq, epoch)?;
        let fits = said.is_some_and(|said| {
            said.epoch == epoch && said.first_seq == first_seq && base.is_none_or(|base| base == said.from_epoch)
        });
        let Some(said) = said.filter(|_| fits) else {
            return Ok(Err(format!(
                "row {first_seq} is listed as the entry that begins key epoch {epoch}, but it does not"
            )));
        };
        if spans.is_empty() && first < first_seq {
            spans.push(EpochSpan { epoch: said.from_epoch, first_seq: first });
        }
        spans.push(EpochSpan { epoch, first_seq });
        base = Some(epoch);
    }
    if spans.is_empty() {
        // The key was not rotated within the retained rows: all of them belong to one epoch.
        let newest = "SELECT epoch FROM entries WHERE seq >= 0 ORDER BY seq DESC LIMIT 1";
        let of_head = conn.prepare_cached(newest)?.query_row([], |row| row.get::<_, u32>(0)).optional()?;
        spans.extend(base.or(of_head).map(|epoch| EpochSpan { epoch, first_seq: first }));
    }
    Ok(Ok(spans))
}

/// Sets the key epochs of a checker, or returns a message if the epochs cannot be determined.
pub(in crate::store) fn load_epochs(
    conn: &Connection,
    checker: &mut RowChecker,
    floor: Option<&LogStart>,
) -> rusqlite::Result<Result<(), String>> {
    Ok(epochs(conn, checker, floor)?.map(|epochs| checker.know_epochs(epochs)))
}

fn rotation_at(
    conn: &Connection,
    checker: &mut RowChecker,
    seq: u64,
    epoch: u32,
) -> rusqlite::Result<Option<KeyRotated>> {
    let row = entry_at(conn, checker, seq)?;
    let row = row.filter(|row| row.checked.integrity == Integrity::Ok && row.epoch == epoch);
    Ok(match row.and_then(|row| Statement::read(&row.body)) {
        Some(Statement::KeyRotated(rotated)) => Some(rotated),
        _ => None,
    })
}
