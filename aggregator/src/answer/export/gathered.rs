//! Rows of one log while they are being received for a bundle, and rows with their proof.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use piperoll_evidence::bundle::ERASED_HEAD_BYTES;
use piperoll_format::entry::Prefix;
use piperoll_format::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_format::merkle::{Hash, RangeRoot, leaf_hash};
use piperoll_format::verify::Integrity;

use super::spool::{Spool, SpoolRows};
use crate::cluster::witness::pinned::Pinned;
use crate::scan::verified_row::{BorderRow, VerifiedRow};

/// Rows of one log that can be proven.
#[derive(Default)]
pub(super) struct Gathered {
    /// Rows by era: intact, witnessed and within the caller's scope. `seq` also ascends from one era to the next.
    pub(super) eras: BTreeMap<u32, Spool>,
    /// Seqs of the rows, by era.
    runs: BTreeMap<u32, Vec<Range<u64>>>,
    /// Further rows that the proof covers, sorted by `seq`.
    pub(super) borders: Vec<BorderRow>,
}

/// Rows of one log while they are being received.
pub(super) struct Gathering {
    dir: PathBuf,
    gathered: Gathered,
    /// Received rows that no proof covers, kept unchanged as JSON lines.
    pub(super) rejected: Option<Spool>,
    /// The entries that record the erasure of rows.
    statements: Vec<BorderRow>,
}

/// Rows that a node sent and proved.
pub(super) struct Proven {
    pub(super) pinned: Pinned,
    pub(super) rows: Gathered,
    pub(super) proof: Vec<Hash>,
}

impl Gathering {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, gathered: Gathered::default(), rejected: None, statements: Vec::new() }
    }

    pub(super) fn take(&mut self, row: &VerifiedRow) -> io::Result<()> {
        if row.withheld && row.erased.is_some() {
            // Skip the row: whether it was within the scope cannot be determined, and the entry that records its
            // erasure may be outside of the scope.
            return Ok(());
        }
        let head = if row.erased.is_some() { ERASED_HEAD_BYTES } else { 0 };
        let fits = head + row.body.len() + row.mac.len() <= BODY_AND_MAC_BYTES_MAX;
        let sound = matches!(row.integrity, Integrity::Ok | Integrity::Erased) && row.witnessed && !row.withheld;
        let prefix = Prefix::parse(&row.body).filter(|_| fits && sound);
        let Some(prefix) = prefix else {
            let spool = match &mut self.rejected {
                Some(spool) => spool,
                None => self.rejected.insert(Spool::new(&self.dir)?),
            };
            let mut line = Vec::new();
            row.to_row().write_json(&mut line);
            line.push(b'\n');
            return spool.push_line(&line);
        };
        let (seq, era) = match &row.erased {
            Some(gone) => (gone.said.seq, gone.said.era),
            None => (prefix.seq, prefix.era),
        };
        let spool = match self.gathered.eras.entry(era) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Spool::new(&self.dir)?),
        };
        match &row.erased {
            None => spool.push(&row.body, &row.mac)?,
            Some(gone) => {
                spool.push_erased(seq, &row.body, &row.mac)?;
                // A verifier must be able to check that the erasure entry is part of the log.
                self.statements.push(statement(gone.entry_seq, &row.body, &row.mac));
            }
        }
        let runs = self.gathered.runs.entry(era).or_default();
        match runs.last_mut() {
            Some(last) if last.end == seq => last.end += 1,
            _ => runs.push(seq..seq + 1),
        }
        Ok(())
    }

    /// Adds the border rows, and the entries that record erasures.
    ///
    /// # Errors
    /// Fails if such an entry is not among the first `size` rows, so that it cannot be proven.
    pub(super) fn finish(mut self, mut borders: Vec<BorderRow>, size: u64) -> Result<Gathered, String> {
        let room = BODY_AND_MAC_BYTES_MAX - ERASED_HEAD_BYTES;
        borders.retain(|border| border.body.len() + border.mac.len() <= room);
        self.statements
            .extend(borders.iter().filter_map(|row| Some(statement(row.erased_under?, &row.body, &row.mac))));
        if let Some(young) = self.statements.iter().find(|entry| entry.seq >= size) {
            return Err(format!("a row was erased under entry {}, which is not witnessed yet", young.seq));
        }
        self.gathered.add_borders(borders);
        self.gathered.add_borders(self.statements);
        Ok(self.gathered)
    }
}

/// Builds a border row from an entry that records the erasure of a row.
fn statement(seq: u64, body: &Bytes, mac: &Bytes) -> BorderRow {
    BorderRow { seq, leaf: leaf_hash(body, mac), body: body.clone(), mac: mac.clone(), erased_under: None }
}

impl Gathered {
    /// Number of rows for the timeline.
    pub(super) fn count(&self) -> u64 {
        self.eras.values().map(|spool| spool.rows).sum()
    }

    /// Whether a row for the timeline has this seq.
    fn has(&self, seq: u64) -> bool {
        self.runs.values().flatten().any(|run| run.contains(&seq))
    }

    /// Adds border rows, except those that are there already.
    fn add_borders(&mut self, borders: Vec<BorderRow>) {
        let new: Vec<BorderRow> = borders.into_iter().filter(|border| !self.has(border.seq)).collect();
        self.borders.extend(new);
        self.borders.sort_by_key(|border| border.seq);
        self.borders.dedup_by_key(|border| border.seq);
    }

    /// Runs of all rows, borders included: ascending and not adjacent.
    pub(super) fn all_runs(&self) -> Vec<Range<u64>> {
        let mut all: Vec<Range<u64>> = self.runs.values().flatten().cloned().collect();
        all.extend(self.borders.iter().map(|border| border.seq..border.seq + 1));
        joined(all)
    }

    /// Adds the later rows of the same log.
    pub(super) fn append(&mut self, later: Self) -> io::Result<()> {
        for (era, mut spool) in later.eras {
            match self.eras.get_mut(&era) {
                Some(known) => known.append(&mut spool)?,
                None => drop(self.eras.insert(era, spool)),
            }
        }
        for (era, runs) in later.runs {
            self.runs.entry(era).or_default().extend(runs);
        }
        let borders = std::mem::take(&mut self.borders);
        self.add_borders(borders);
        self.add_borders(later.borders);
        Ok(())
    }
}

/// Sorts runs, and joins adjacent ones.
pub(super) fn joined(mut all: Vec<Range<u64>>) -> Vec<Range<u64>> {
    all.sort_by_key(|run| run.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for run in all {
        match joined.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => joined.push(run),
        }
    }
    joined
}

impl Proven {
    /// Returns whether the rows, border rows and proof lead to the pinned root. A verifier makes the same check.
    pub(super) fn fits(&mut self) -> io::Result<bool> {
        lead_to(&self.pinned, &self.proof, &mut [&mut self.rows])
    }
}

/// Returns whether rows and a proof lead to the root of a checkpoint. The rows of each part are below those of the next one.
pub(super) fn lead_to(pinned: &Pinned, proof: &[Hash], parts: &mut [&mut Gathered]) -> io::Result<bool> {
    let borders = parts.iter().flat_map(|part| &part.borders);
    // A border row of one part can be a row of another part.
    let borders = borders.filter(|border| parts.iter().all(|part| !part.has(border.seq)));
    let borders: BTreeMap<u64, Hash> = borders.map(|border| (border.seq, border.leaf)).collect();
    let mut borders = borders.into_iter().peekable();
    let mut root = RangeRoot::new(pinned.size, proof);
    let mut good = true;
    for spool in parts.iter_mut().flat_map(|part| part.eras.values_mut()) {
        let mut rows = SpoolRows::new(spool)?;
        while rows.advance()? {
            let Some(row) = rows.current() else { return Ok(false) };
            while let Some((seq, leaf)) = borders.next_if(|(seq, _)| *seq < row.seq()) {
                good &= root.leaf(seq, leaf).is_ok();
            }
            good &= root.leaf(row.seq(), row.leaf()).is_ok();
        }
    }
    for (seq, leaf) in borders {
        good &= root.leaf(seq, leaf).is_ok();
    }
    Ok(good && root.root() == Ok(pinned.root))
}
