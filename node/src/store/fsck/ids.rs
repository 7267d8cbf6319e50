//! Verification of the index of IDs.

use piperoll_protocol::node::{FindingKind, VerifyLine};
use rusqlite::{Connection, OptionalExtension as _};

use super::check::Check;

impl Check {
    /// Checks that the index of IDs maps the IDs of these rows to these rows. As newer IDs are usually greater, one range of
    /// the index covers most of these IDs and is read at once; the other IDs are looked up one by one.
    pub(in crate::store) fn check_ids(
        &mut self,
        conn: &Connection,
        mut ids: Vec<([u8; 16], u64)>,
        found: &mut Vec<(Option<u64>, FindingKind, String)>,
    ) -> rusqlite::Result<()> {
        ids.sort_unstable();
        let (Some((first, _)), Some((last, _))) = (ids.first(), ids.last()) else { return Ok(()) };
        let mut statement =
            conn.prepare_cached("SELECT id, seq FROM ids WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3")?;
        let mut indexed = statement.query((first, last, 2 * ids.len() + 16))?;
        let mut here = None;
        let mut left = Vec::new();
        for (id, seq) in ids {
            while here.is_none_or(|(known, _)| known < id)
                && let Some(row) = indexed.next()?
            {
                here = Some((row.get::<_, [u8; 16]>(0).unwrap_or_default(), row.get::<_, i64>(1)?));
            }
            if here != i64::try_from(seq).ok().map(|seq| (id, seq)) {
                left.push((id, seq));
            }
        }
        drop(indexed);
        for (id, seq) in left {
            self.check_id(conn, id, seq, found)?;
        }
        Ok(())
    }

    fn check_id(
        &mut self,
        conn: &Connection,
        id: [u8; 16],
        seq: u64,
        found: &mut Vec<(Option<u64>, FindingKind, String)>,
    ) -> rusqlite::Result<()> {
        let indexed: Option<u64> =
            conn.prepare_cached("SELECT seq FROM ids WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
        let id = uuid::Uuid::from_bytes(id);
        match indexed {
            Some(indexed) if indexed == seq => {}
            Some(indexed) => {
                self.ids_missing += 1;
                found.push((
                    Some(seq),
                    FindingKind::Derived,
                    format!("the index of ids maps the id {id} of row {seq} to row {indexed}"),
                ));
            }
            None => {
                self.ids_missing += 1;
                found.push((
                    Some(seq),
                    FindingKind::Derived,
                    format!("the id {id} of row {seq} is not in the index of ids"),
                ));
            }
        }
        Ok(())
    }

    /// Reports IDs that lead to no row, and rows with more than one ID. The ID of a row that fails verification is not reported
    /// as a second fault.
    pub(in crate::store) fn leftover_ids(
        &mut self,
        conn: &Connection,
        lines: &mut Vec<VerifyLine>,
    ) -> rusqlite::Result<()> {
        let Some(head) = self.head else { return Ok(()) };
        let (orphans, indexed): (u64, u64) = conn.query_row(
            "SELECT coalesce(sum(entries.seq IS NULL), 0), coalesce(sum(entries.seq <= ?1), 0)
             FROM ids LEFT JOIN entries ON entries.seq = ids.seq WHERE ids.seq >= ?2",
            [head, self.floor.as_ref().map_or(0, |floor| floor.pruned.to_seq)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if orphans > 0 {
            self.find(
                lines,
                None,
                FindingKind::Derived,
                format!("the index of ids holds {orphans} ids of rows that do not exist"),
            );
        }
        let extra = indexed.saturating_sub(self.rows.saturating_sub(self.ids_missing));
        if extra > 0 {
            self.find(lines, None, FindingKind::Derived, format!("the index of ids holds {extra} ids that no row has"));
        }
        Ok(())
    }
}
