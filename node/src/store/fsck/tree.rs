//! The part of a full check that covers the tree. It rebuilds every tile from its rows, and compares every stored note with the
//! root over the number of rows that the note states.

use piperoll_format::checkpoint::{Checkpoint, CheckpointError};
use piperoll_format::merkle::{FullTile, Hash, TreeBuilder};
use piperoll_format::note::{Note, NoteError, SigningKey};
use piperoll_format::statement::Pruned;
use rusqlite::Connection;

use crate::store::engine::signer::{StoredNote, kept};
use crate::store::table::tiles::{self, TreeError, stored_tile};

/// Why a stored checkpoint cannot be compared with the rows.
pub(in crate::store) struct NoteFault {
    pub(in crate::store) detail: String,
    /// Whether the note has no signature of the node's present key at all.
    pub(in crate::store) is_unsigned: bool,
}

/// Check of the tree, which is given all rows in order.
pub(in crate::store) struct TreeCheck {
    key: Option<SigningKey>,
    builder: TreeBuilder,
    /// False once a row is missing: later rows then have no position in the rebuilt tree.
    whole: bool,
    full: Vec<FullTile>,
    notes: Vec<(&'static str, Checkpoint)>,
    /// Content of `log.checkpoint`, read before the rows.
    beside: Result<Option<Vec<u8>>, String>,
}

impl TreeCheck {
    pub(in crate::store) fn new(key: Option<SigningKey>, beside: Result<Option<Vec<u8>>, String>) -> Self {
        Self { key, builder: TreeBuilder::default(), whole: true, full: Vec::new(), notes: Vec::new(), beside }
    }

    /// Reads the notes before the rows, because a note that is signed during the check may cover rows that this check does not
    /// read.
    pub(in crate::store) fn begin(&mut self, conn: &Connection) -> rusqlite::Result<Vec<NoteFault>> {
        let mut faults = Vec::new();
        let Some(key) = &self.key else { return Ok(faults) };
        let beside = std::mem::replace(&mut self.beside, Ok(None)).unwrap_or_else(|error| {
            faults.push(NoteFault { detail: format!("log.checkpoint cannot be read: {error}"), is_unsigned: false });
            None
        });
        let stored = |which| kept(conn, which).map(|note| note.map(String::into_bytes));
        let notes = [
            (StoredNote::Signed.word(), stored(StoredNote::Signed)?),
            (StoredNote::Witnessed.word(), stored(StoredNote::Witnessed)?),
            ("copied (log.checkpoint)", beside),
        ];
        for (which, bytes) in notes.into_iter().filter_map(|(which, bytes)| Some((which, bytes?))) {
            let Ok(text) = std::str::from_utf8(&bytes) else {
                let detail = format!("the {which} checkpoint is invalid: it is not valid UTF-8");
                faults.push(NoteFault { detail, is_unsigned: false });
                continue;
            };
            let opened = Note::parse(text).map_err(CheckpointError::Note);
            match opened.and_then(|note| Checkpoint::open(&note, key.public())) {
                Ok(checkpoint) => self.notes.push((which, checkpoint)),
                Err(problem) => faults.push(NoteFault {
                    detail: format!("the {which} checkpoint is invalid: {problem}"),
                    is_unsigned: matches!(problem, CheckpointError::Note(NoteError::Unsigned(_))),
                }),
            }
        }
        Ok(faults)
    }

    /// Continues after pruned rows. The root over these rows was recorded when they were pruned, and the hashes that remain must
    /// result in the same root. Collected tiles that were not compared yet are discarded, because they were removed together with
    /// the rows.
    pub(in crate::store) fn go_to(&mut self, conn: &Connection, pruned: &Pruned) -> rusqlite::Result<Option<String>> {
        self.full.clear();
        let fault = match tiles::resume(conn, pruned.to_seq) {
            Ok(builder) if builder.root() == pruned.root => {
                self.builder = builder;
                return Ok(None);
            }
            Ok(_) => format!(
                "the stored hashes of the {} pruned rows do not match the root recorded when they were pruned",
                pruned.to_seq
            ),
            Err(TreeError::Sqlite(error)) => return Err(error),
            Err(problem) => format!("the hashes of the pruned rows are damaged: {problem}"),
        };
        self.whole = false;
        Ok(Some(fault))
    }

    /// Adds the leaf of the next row, computed from its stored bytes.
    pub(in crate::store) fn row(&mut self, seq: u64, leaf: Hash) -> Vec<String> {
        self.whole &= seq == self.builder.size();
        if !self.whole {
            return Vec::new();
        }
        self.builder.push(leaf, |tile| self.full.push(tile));
        let size = self.builder.size();
        if self.notes.iter().all(|(_, checkpoint)| checkpoint.size != size) {
            return Vec::new();
        }
        let root = self.builder.root();
        let here = self.notes.extract_if(.., |(_, checkpoint)| checkpoint.size == size);
        here.filter(|(_, checkpoint)| checkpoint.root != root)
            .map(|(which, _)| format!("the first {size} rows do not match the {which} checkpoint"))
            .collect()
    }

    /// Compares the tiles that were filled since the last call.
    pub(in crate::store) fn compare_tiles(&mut self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut faults = Vec::new();
        for made in self.full.drain(..) {
            let (level, index) = (made.level, made.index);
            match stored_tile(conn, level, index) {
                Ok(stored) if stored == made.hashes => {
                    if tiles::stored_roots(conn, level, index, index + 1).ok() != Some(vec![made.root]) {
                        faults.push(format!("the root of tile {index} of level {level} does not match its hashes"));
                    }
                }
                Ok(_) => faults.push(format!("tile {index} of level {level} does not match its rows")),
                Err(TreeError::Sqlite(error)) => return Err(error),
                Err(problem) => faults.push(problem.to_string()),
            }
        }
        Ok(faults)
    }

    /// Reports notes that cover more rows than the log has, and tiles at invalid positions.
    pub(in crate::store) fn end(&mut self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        let size = self.builder.size();
        let mut faults: Vec<String> = self
            .notes
            .drain(..)
            .filter(|(_, checkpoint)| checkpoint.size > size && self.whole)
            .map(|(_, checkpoint)| {
                format!("{} rows were signed, but the log has only {size}: the end was cut off", checkpoint.size)
            })
            .collect();
        let stored: u64 = conn.query_row("SELECT count(*) FROM tiles WHERE id < 0", [], |row| row.get(0))?;
        if stored > 0 {
            faults.push(format!("{stored} tiles are stored at invalid positions"));
        }
        Ok(faults)
    }
}
