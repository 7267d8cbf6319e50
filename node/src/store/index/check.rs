//! Verifies the index: rebuilds every block from the rows and compares the bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::blocks::Index;
use super::builder::Builder;
use super::encode::encode;
use crate::store::table::rows::{StoredRow, extent};

/// Source of the rows that a check compares with the index files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum RowSource {
    /// Rows of a running node. Its writer knows the number of rows, and full blocks may not have been written to files yet.
    Live,
    /// Rows of a log that is read offline, without a running node.
    AtRest,
    /// A copy of a running node's rows; the index files may cover newer rows.
    Copied,
}

/// Check of the index, which is given all rows of a log in order.
pub(in crate::store) struct IndexCheck {
    index: Arc<Index>,
    rows: RowSource,
    builder: Option<Builder>,
    changes: u64,
    floor: u64,
    /// Full blocks that have no file.
    unwritten: Vec<u64>,
    last_whole: Option<u64>,
}

impl IndexCheck {
    pub(in crate::store) fn new(index: Arc<Index>, rows: RowSource) -> Self {
        Self { index, rows, builder: None, changes: 0, floor: 0, unwritten: Vec::new(), last_whole: None }
    }

    /// Sets the log start.
    pub(in crate::store) fn go_to(&mut self, floor: u64) {
        self.floor = floor;
        self.builder = None;
    }

    /// Adds the next row, which was already read and verified. If the row completes the current block or belongs to a later
    /// block, returns the fault that was found in the block that ended, if any.
    pub(in crate::store) fn row(&mut self, conn: &Connection, row: &StoredRow) -> Option<String> {
        let mut fault = None;
        if self.builder.as_ref().is_some_and(|builder| row.seq >= builder.first() + self.index.block_rows()) {
            // The last rows of the previous block are missing.
            fault = self.end(conn);
        }
        let block = row.seq / self.index.block_rows();
        let (rows, floor, index) = (self.index.block_rows(), self.floor, &self.index);
        let (builder, changes) = (&mut self.builder, &mut self.changes);
        let builder = builder.get_or_insert_with(|| {
            *changes = index.read().changes;
            Builder::new(block * rows, usize::try_from(rows).unwrap_or(usize::MAX), floor)
        });
        builder.push(row);
        if builder.is_full() { self.end(conn).or(fault) } else { fault }
    }

    fn end(&mut self, conn: &Connection) -> Option<String> {
        let mut builder = self.builder.take()?;
        while !builder.is_full() {
            builder.push_missing();
        }
        let block = builder.first() / self.index.block_rows();
        if builder.first() < self.floor {
            return None;
        }
        let (expected, changed) = {
            let state = self.index.read();
            (state.whole.contains(&block), state.changes != self.changes)
        };
        let path = self.index.path(block);
        let file = match std::fs::read(&path) {
            // Rows were erased or pruned during the check, so the block is being rebuilt.
            _ if changed => return None,
            Ok(file) => file,
            Err(_) if !expected => {
                self.unwritten.push(block);
                return None;
            }
            Err(error) => return Some(format!("{}: {error}; run `piperoll node reindex`", path.display())),
        };
        self.last_whole = Some(block);
        let made = self.index.expected_head(conn, block).ok().and_then(|head| encode(&builder, &head).ok());
        let again = self.index.read().changes != self.changes;
        (made != Some(file) && !again).then(|| {
            let end = builder.next() - 1;
            format!(
                "{} does not match rows {} to {end}: searches may have missed rows; run `piperoll node reindex`",
                path.display(),
                builder.first(),
            )
        })
    }

    /// Reports missing files, except those that may not have been written yet, and files that cover rows that do not exist.
    pub(in crate::store) fn finish(&mut self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        let last = self.last_whole;
        let gone = self
            .unwritten
            .iter()
            .filter(|block| self.rows != RowSource::Live && last.is_some_and(|last| **block < last));
        let mut faults: Vec<String> = gone
            .map(|block| format!("{} is missing; run `piperoll node reindex`", self.index.path(*block).display()))
            .collect();
        // List the files first and read the end of the log afterwards, so that files written in between cover rows that exist.
        // The writer may know of rows that the connection of this check does not see yet.
        let (files, rows) = match self.rows {
            RowSource::Live => {
                let files = self.index.files();
                (files, self.index.head.load(Ordering::SeqCst))
            }
            // Use only files that existed when the log was opened: the end of the log is read afterwards, so these files cover
            // rows that exist.
            RowSource::AtRest => {
                let files = self.index.read().whole.iter().copied().collect();
                (files, extent(conn)?.head_seq.map_or(0, |head| head + 1))
            }
            RowSource::Copied => return Ok(faults),
        };
        let orphans = files.into_iter().filter(|block| (block + 1) * self.index.block_rows() > rows);
        faults.extend(
            orphans.map(|block| format!("{} indexes rows that do not exist", self.index.path(block).display())),
        );
        Ok(faults)
    }

    /// Returns the number of rows in full blocks that have no file; searches read these rows one by one.
    pub(in crate::store) fn unindexed(&self) -> u64 {
        self.unwritten.len() as u64 * self.index.block_rows()
    }
}
