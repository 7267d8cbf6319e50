//! Range proofs: that some rows are rows of a tree, at their places and in full (docs/format.md, "Range proof").
//!
//! A proof holds the perfect subtrees that cover whatever the rows leave out, from left to right. For one contiguous
//! range that is transparency-dev/merkle's compact range: two short lists, about 1 KiB for any range. The shape follows
//! from the places of the rows and the size of the tree, so a proof of any other shape is refused, and how many rows
//! are left out, and where, cannot be hidden.

use std::ops::Range;

use super::cover::cover;
use super::hash::{Hash, empty_root, node_hash};
use super::proof::ProofError;
use super::reader::{TileSource, TreeReader};

/// A range proof and the rows it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeProof {
    /// Ascending and apart from each other.
    pub runs: Vec<Range<u64>>,
    pub hashes: Vec<Hash>,
}

impl RangeProof {
    /// Whether these are the rows of its runs, and they stand at their places in the tree with this size and root,
    /// which come from one signed checkpoint. `rows` ascend.
    pub fn verify(&self, rows: impl Iterator<Item = (u64, Hash)>, size: u64, root: &Hash) -> Result<(), ProofError> {
        let mut expected = self.runs.iter().cloned().flatten();
        let mut made = RangeRoot::new(size, &self.hashes);
        for (seq, leaf) in rows {
            if expected.next() != Some(seq) {
                return Err(ProofError::Sizes);
            }
            made.leaf(seq, leaf)?;
        }
        if expected.next().is_some() {
            return Err(ProofError::Sizes);
        }
        if made.root()? == *root { Ok(()) } else { Err(ProofError::Root) }
    }
}

/// Makes the proof for the rows of `runs` among the first `size` rows. The runs are ascending and apart from each
/// other, and end within `size`.
pub fn range_proof<S: TileSource>(
    tree: &mut TreeReader<S>,
    runs: &[Range<u64>],
    size: u64,
) -> Result<Vec<Hash>, S::Error> {
    let mut hashes = Vec::new();
    for gap in left_out(runs, size) {
        cover_hashes(tree, gap, &mut hashes)?;
    }
    Ok(hashes)
}

/// What the runs leave out of `0..size`; some of the stretches are empty.
pub fn left_out(runs: &[Range<u64>], size: u64) -> impl Iterator<Item = Range<u64>> {
    let begins = runs.iter().map(|run| run.start).chain([size]);
    let ends = [0].into_iter().chain(runs.iter().map(|run| run.end));
    ends.zip(begins).map(|(from, to)| from..to)
}

/// The part of a proof that stands for one stretch.
pub fn cover_hashes<S: TileSource>(
    tree: &mut TreeReader<S>,
    stretch: Range<u64>,
    hashes: &mut Vec<Hash>,
) -> Result<(), S::Error> {
    for (level, index) in cover(stretch.start, stretch.end) {
        hashes.push(tree.subtree(level, index)?);
    }
    Ok(())
}

/// The runs that these ascending places make: neighbours share one. `None` when they do not ascend.
pub fn runs_of(places: impl Iterator<Item = u64>) -> Option<Vec<Range<u64>>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for seq in places {
        match runs.last_mut() {
            Some(last) if seq < last.end => return None,
            Some(last) if seq == last.end => last.end += 1,
            _ => runs.push(seq..seq.checked_add(1)?),
        }
    }
    Some(runs)
}

/// Follows the leaves of the rows that are there, and fills what lies between them from the proof. Comparing the root
/// with the signed one proves every row, its place, and the number of rows that were left out.
#[derive(Debug)]
pub struct RangeRoot<'a> {
    size: u64,
    edge: Edge,
    proof: std::slice::Iter<'a, Hash>,
}

impl<'a> RangeRoot<'a> {
    pub fn new(size: u64, proof: &'a [Hash]) -> Self {
        Self { size, edge: Edge::default(), proof: proof.iter() }
    }

    /// The next row that is there; places must ascend.
    pub fn leaf(&mut self, seq: u64, leaf: Hash) -> Result<(), ProofError> {
        if seq < self.edge.end || seq >= self.size {
            return Err(ProofError::Sizes);
        }
        self.skip_to(seq)?;
        self.edge.push(0, leaf);
        Ok(())
    }

    /// The root of all `size` rows, once every row that is there was given.
    pub fn root(mut self) -> Result<Hash, ProofError> {
        self.skip_to(self.size)?;
        if !self.proof.as_slice().is_empty() {
            return Err(ProofError::Long);
        }
        Ok(self.edge.root())
    }

    fn skip_to(&mut self, seq: u64) -> Result<(), ProofError> {
        for (level, _) in cover(self.edge.end, seq) {
            let hash = self.proof.next().ok_or(ProofError::Short)?;
            self.edge.push(level, *hash);
        }
        Ok(())
    }
}

/// A row of perfect subtrees from the left edge on, merged wherever two make a wider one.
#[derive(Debug, Default)]
struct Edge {
    end: u64,
    subtrees: Vec<(u32, Hash)>,
}

impl Edge {
    /// Adds a subtree right of what is there; its place must be a multiple of its width.
    fn push(&mut self, level: u32, hash: Hash) {
        self.end += 1 << level;
        let (mut level, mut hash) = (level, hash);
        while let Some((_, left)) = self.subtrees.pop_if(|(left_level, _)| *left_level == level) {
            hash = node_hash(&left, &hash);
            level += 1;
        }
        self.subtrees.push((level, hash));
    }

    fn root(&self) -> Hash {
        let mut hashes = self.subtrees.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = hashes.next() else { return empty_root() };
        hashes.fold(last, |right, left| node_hash(&left, &right))
    }
}
