//! Creates the proofs that accompany a scan: they prove that its rows are in the tree that the client trusts and, together with
//! the border rows, that no row of the range was left out (docs/format.md, "Completeness of a range").

use std::ops::Range;
use std::sync::Arc;

use piperoll_format::merkle::{
    Hash, RangeProof, TileCache, TileMemory, TreeReader, cover_hashes, left_out, range_proof, runs_of,
};
use piperoll_format::verify::RowChecker;
use rusqlite::Connection;

use crate::store::table::erased::row_at;
use crate::store::table::rows::StoredRow;
use crate::store::table::tiles::{StoredTiles, TreeError};

/// Maximum number of rows in one proof. A proof may contain two hashes per level of the tree for each row.
pub(in crate::store) const ROWS_PER_PROOF: usize = 512;

/// Proves that rows of one scan are in the tree of one size.
pub(in crate::store) struct Prover {
    size: u64,
    met: TileMemory,
    cache: Arc<TileCache>,
}

impl Prover {
    pub(in crate::store) fn new(size: u64, cache: Arc<TileCache>) -> Self {
        Self { size, met: TileMemory::default(), cache }
    }

    pub(in crate::store) fn size(&self) -> u64 {
        self.size
    }

    /// Creates the proof for the rows that are sound and covered by the tree.
    pub(in crate::store) fn prove(&mut self, conn: &Connection, rows: &[StoredRow]) -> Result<RangeProof, TreeError> {
        let sound = rows.iter().filter(|row| row.is_sound() && row.seq < self.size);
        let mut places: Vec<u64> = sound.map(|row| row.seq).collect();
        places.sort_unstable();
        places.dedup();
        let runs = runs_of(places.into_iter()).unwrap_or_default();
        if runs.is_empty() {
            return Ok(RangeProof { runs, hashes: Vec::new() });
        }
        let mut tree = TreeReader::with_memory(StoredTiles(conn), self.size, std::mem::take(&mut self.met))
            .beside(Arc::clone(&self.cache));
        let hashes = range_proof(&mut tree, &runs, self.size)?;
        self.met = tree.into_memory();
        Ok(RangeProof { runs, hashes })
    }
}

/// Number of ranges that one step of a long proof covers.
const STRETCHES_PER_STEP: usize = 500;

/// A long proof that is created in steps.
pub(in crate::store) struct Making {
    left_out: std::vec::IntoIter<Range<u64>>,
    size: u64,
    met: TileMemory,
    pub(in crate::store) hashes: Vec<Hash>,
}

impl Making {
    pub(in crate::store) fn new(runs: &[Range<u64>], size: u64) -> Self {
        let left_out: Vec<_> = left_out(runs, size).collect();
        Self { left_out: left_out.into_iter(), size, met: TileMemory::default(), hashes: Vec::new() }
    }

    /// Runs one step. Returns whether the proof is complete.
    pub(in crate::store) fn step(&mut self, conn: &Connection) -> Result<bool, TreeError> {
        let mut tree = TreeReader::with_memory(StoredTiles(conn), self.size, std::mem::take(&mut self.met));
        for stretch in self.left_out.by_ref().take(STRETCHES_PER_STEP) {
            cover_hashes(&mut tree, stretch, &mut self.hashes)?;
        }
        self.met = tree.into_memory();
        Ok(self.left_out.as_slice().is_empty())
    }
}

/// The part of one era that a scan has read.
#[derive(Debug, Clone)]
pub(in crate::store) struct ProofPart {
    /// All rows of the era that the scan may read.
    pub(in crate::store) era: Range<u64>,
    /// Rows within the requested range.
    pub(in crate::store) part: Range<u64>,
    /// Rows that were returned.
    pub(in crate::store) given: Range<u64>,
}

impl ProofPart {
    /// Returns the rows that, together with the returned rows, show that no row below `size` in the range was left out.
    fn borders(&self, size: u64) -> impl Iterator<Item = u64> {
        let end = self.era.end.min(size);
        let Range { start, end: part_end } = self.part.clone();
        let given = self.given.clone();
        let candidates = [
            Some(self.era.start),
            start.checked_sub(1),
            given.start.checked_sub(1),
            Some(given.end),
            Some(part_end),
            end.checked_sub(1),
        ];
        let era = self.era.start..end;
        candidates.into_iter().flatten().filter(move |seq| era.contains(seq) && !given.contains(seq))
    }
}

/// Reads the border rows of all eras, and the entry that states the log start.
pub(in crate::store) fn border_rows(
    conn: &Connection,
    parts: &[ProofPart],
    statement: Option<u64>,
    size: u64,
    checker: &mut RowChecker,
) -> rusqlite::Result<Vec<StoredRow>> {
    let mut places: Vec<u64> = parts.iter().flat_map(|part| part.borders(size)).collect();
    let given = |seq: &u64| parts.iter().any(|part| part.given.contains(seq));
    places.extend(statement.filter(|seq| *seq < size && !given(seq)));
    places.sort_unstable();
    places.dedup();
    let mut found = Vec::new();
    for seq in places {
        found.extend(row_at(conn, checker, seq)?);
    }
    Ok(found)
}
