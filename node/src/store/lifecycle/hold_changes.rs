//! Sets and releases holds.

use piperoll_format::statement::{Hold, HoldRelease, Statement, TimesConfirmed};
use rusqlite::OptionalExtension as _;

use crate::store::engine::writer::Writer;
use crate::store::table::error::{AdminError, check_reason};
use crate::store::table::log_start::unfinished;

/// Maximum number of holds at one time.
const HOLDS_MAX: u64 = 1_000;
/// Maximum bytes of a hold's name.
const NAME_BYTES_MAX: usize = 128;

/// Records an operator's confirmation of the timestamps of rows; returns the seq of the entry.
pub(in crate::store) fn confirm_times(writer: &mut Writer, confirmed: &TimesConfirmed) -> Result<u64, AdminError> {
    check_reason(&confirmed.reason)?;
    let statement = Statement::TimesConfirmed(confirmed.clone());
    Ok(writer.transact(|transaction, now| transaction.state(&statement, now))?)
}

/// Sets a hold; returns the seq of the entry that records it. Refuses a hold over rows of an unfinished prune, because these
/// rows can no longer be kept.
pub(in crate::store) fn add_hold(writer: &mut Writer, hold: &Hold) -> Result<u64, AdminError> {
    check_reason(&hold.reason)?;
    let named = hold.name.trim() == hold.name && !hold.name.is_empty() && hold.name.len() <= NAME_BYTES_MAX;
    if !named || hold.name.chars().any(char::is_control) {
        let message = format!(
            "the hold's name must be 1 to {NAME_BYTES_MAX} bytes, without control characters or surrounding spaces"
        );
        return Err(AdminError::Refused(message));
    }
    if hold.to <= hold.from {
        return Err(AdminError::Refused(format!("the hold's range {} to {} is empty", hold.from, hold.to)));
    }
    let (count, known): (u64, u64) =
        writer.conn().query_row("SELECT count(*), coalesce(sum(name = ?1), 0) FROM holds", [&hold.name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if known > 0 {
        return Err(AdminError::Refused(format!("a hold {:?} already exists; release it first", hold.name)));
    }
    if count >= HOLDS_MAX {
        return Err(AdminError::Refused(format!("the limit of {HOLDS_MAX} holds is reached; release one first")));
    }
    if let Some(going) = unfinished(writer.conn(), &mut writer.checker())?
        && hold.from <= going.pruned.newest
    {
        return Err(AdminError::Refused(format!(
            "rows recorded up to {} are being pruned and can no longer be kept; begin the hold's range after that time",
            going.pruned.newest
        )));
    }
    let statement = Statement::HoldAdded(hold.clone());
    Ok(writer.transact(|transaction, now| {
        let entry_seq = transaction.state(&statement, now)?;
        transaction.conn().execute("INSERT INTO holds (name, entry_seq) VALUES (?1, ?2)", (&hold.name, entry_seq))?;
        Ok(entry_seq)
    })?)
}

/// Releases a hold; returns the seq of the entry that records it.
pub(in crate::store) fn release_hold(writer: &mut Writer, release: &HoldRelease) -> Result<u64, AdminError> {
    check_reason(&release.reason)?;
    let known: Option<i64> = writer
        .conn()
        .query_row("SELECT entry_seq FROM holds WHERE name = ?1", [&release.name], |row| row.get(0))
        .optional()?;
    if known.is_none() {
        return Err(AdminError::NotFound(format!("no such hold: {:?}", release.name)));
    }
    let statement = Statement::HoldReleased(release.clone());
    Ok(writer.transact(|transaction, now| {
        let entry_seq = transaction.state(&statement, now)?;
        transaction.conn().execute("DELETE FROM holds WHERE name = ?1", [&release.name])?;
        Ok(entry_seq)
    })?)
}
