//! Erases one row: deletes its content, but keeps its number, time and hash, and records the erasure. For a row that was pruned and that the
//! archive still has, only the entry is recorded.

use piperoll_format::entry::Prefix;
use piperoll_format::statement::{Begun, Erased, Hold, Statement};
use piperoll_format::verify::Integrity;
use piperoll_protocol::ArchivedRowRef;
use piperoll_protocol::node::EntryRecorded;

use crate::store::engine::writer::{WAL_TRIES, Writer};
use crate::store::table::erased::row_at;
use crate::store::table::error::{AdminError, check_reason};
use crate::store::table::holds;
use crate::store::table::log_start::{first_seq, floor};
use crate::store::table::mac_epochs::load_epochs;

/// Erases a row and records the erasure in the same transaction, so that a crash leaves both or neither. `holds` are holds
/// other than those of this log that may also protect the row.
pub(in crate::store) fn erase(
    writer: &mut Writer,
    seq: u64,
    reason: &str,
    by: &str,
    holds: &[Hold],
) -> Result<EntryRecorded, AdminError> {
    check_reason(reason)?;
    let mut checker = writer.checker();
    let floor = floor(writer.conn(), &mut checker)?.map_err(AdminError::Refused)?;
    load_epochs(writer.conn(), &mut checker, floor.as_ref())?.map_err(AdminError::Refused)?;
    let first = first_seq(floor.as_ref());
    if seq < first {
        return Err(AdminError::NotFound(format!(
            "row {seq} was pruned; this log begins at row {first}. If the row is in the cluster's archive, erase it there: \
             `piperoll archive row NODE/{seq}` prints its address for --archived-row"
        )));
    }
    let row = if seq < writer.next_seq() { row_at(writer.conn(), &mut checker, seq)? } else { None };
    let row = row.ok_or_else(|| AdminError::NotFound(format!("no such row: {seq}")))?;
    match row.checked.integrity {
        Integrity::Ok => {}
        Integrity::Erased => {
            let under = row.erased.map_or(0, |erased| erased.entry_seq);
            return Err(AdminError::Refused(format!("row {seq} was already erased under entry {under}")));
        }
        Integrity::Violation | Integrity::UnknownKey => {
            let why = row.checked.reason.unwrap_or_default();
            let message = format!(
                "cannot erase row {seq}: it fails verification ({why}) and is kept as evidence; run `piperoll node verify`"
            );
            return Err(AdminError::Refused(message));
        }
    }
    if Statement::read(&row.body).is_some() || Begun::read(&row.body).is_some() {
        return Err(AdminError::Refused(format!("row {seq} records what happened to other rows and cannot be erased")));
    }
    if let Some(hold) = holds::over(writer.conn(), &mut checker, row.timestamp)? {
        return Err(AdminError::Refused(format!("row {seq} is under the hold {:?}; release it first", hold.name)));
    }
    if let Some(hold) = holds.iter().find(|hold| (hold.from..hold.to).contains(&row.timestamp)) {
        return Err(AdminError::Refused(format!(
            "row {seq} is under the hold {:?} of the log that replaced this one; release it there first",
            hold.name
        )));
    }
    let (leaf, era, timestamp) = (row.leaf(), row.era, row.timestamp);
    let id = Prefix::parse(&row.body).map(|prefix| *prefix.id.as_bytes()).unwrap_or_default();
    let (reason, by) = (reason.to_owned(), by.to_owned());
    let statement = Statement::Erased(Erased { seq, leaf, era, timestamp, reason, by });
    // The index contains the content as well. The guard keeps the indexer from writing it again before the row is empty.
    let _held = writer
        .index()
        .forget(seq)
        .map_err(|error| AdminError::Refused(format!("cannot remove row {seq} from the index: {error}")))?;
    // Overwrite erased content in the database file with zeros, including overflow pages.
    writer.conn().pragma_update(None, "secure_delete", true)?;
    let entry_seq = writer.transact(|transaction, now| {
        let entry_seq = transaction.state(&statement, now)?;
        transaction.conn().execute(
            "INSERT INTO erased (seq, entry_seq, leaf, id) VALUES (?1, ?2, ?3, ?4)",
            (seq, entry_seq, &leaf[..], &id[..]),
        )?;
        transaction.conn().execute("UPDATE entries SET body = NULL, mac = NULL WHERE seq = ?1", [seq])?;
        Ok(entry_seq)
    })?;
    let wal_emptied = writer.empty_wal(WAL_TRIES);
    Ok(EntryRecorded { entry_seq, wal_emptied })
}

/// Records the erasure of a row that this log pruned and that the archive still has. The archive's writer then removes its content. `holds` are
/// as for [`erase`].
pub(in crate::store) fn erase_archived(
    writer: &mut Writer,
    row: &ArchivedRowRef,
    reason: &str,
    by: &str,
    holds: &[Hold],
) -> Result<EntryRecorded, AdminError> {
    check_reason(reason)?;
    let seq = row.seq;
    let own = (writer.keys().ring.node_id(), writer.generation());
    if (&row.node_id, row.generation) != own {
        return Err(AdminError::NotFound(format!("row {seq} is one of another log: this is {}/{}", own.0, own.1)));
    }
    let mut checker = writer.checker();
    let floor = floor(writer.conn(), &mut checker)?.map_err(AdminError::Refused)?;
    let first = first_seq(floor.as_ref());
    let newest = floor.as_ref().map(|floor| floor.pruned.newest);
    if seq >= first {
        let message = format!("row {seq} is still in this log; erase it with --seq {seq}");
        return Err(AdminError::Refused(message));
    }
    if newest.is_none_or(|newest| row.timestamp > newest) {
        return Err(AdminError::Refused(format!("row {seq} cannot have been recorded at {}", row.timestamp)));
    }
    let held = holds::over(writer.conn(), &mut checker, row.timestamp)?.map(|hold| hold.name);
    let held = held.or_else(|| {
        holds.iter().find(|hold| (hold.from..hold.to).contains(&row.timestamp)).map(|hold| hold.name.clone())
    });
    if let Some(name) = held {
        return Err(AdminError::Refused(format!("row {seq} is under the hold {name:?}; release it first")));
    }
    let statement = Statement::Erased(Erased {
        seq,
        leaf: row.leaf,
        era: row.era,
        timestamp: row.timestamp,
        reason: reason.to_owned(),
        by: by.to_owned(),
    });
    let entry_seq = writer.transact(|transaction, now| transaction.state(&statement, now))?;
    Ok(EntryRecorded { entry_seq, wal_emptied: true })
}
