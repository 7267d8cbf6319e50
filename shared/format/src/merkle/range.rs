//! Range proofs: prove that rows are in a tree, at their positions and without omissions (docs/format.md, "Range proof").
//!
//! A proof contains, from left to right, the perfect subtrees that cover all rows of the tree except the given ones. For one
//! contiguous range, that is the compact range of transparency-dev/merkle: two short lists, about 1 KiB for any range. The shape
//! of a proof follows from the positions of the rows and the size of the tree, so a proof of any other shape is refused, and the
//! number and positions of the rows left out cannot be hidden.

use std::ops::Range;

use super::cover::cover;
use super::hash::{Hash, empty_root, node_hash};
use super::proof::ProofError;
use super::reader::{TileSource, TreeReader};

/// A range proof and the rows that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeProof {
    /// Runs of rows, ascending and not adjacent.
    pub runs: Vec<Range<u64>>,
    pub hashes: Vec<Hash>,
}

impl RangeProof {
    /// Checks that `rows` are exactly the rows of the proof's runs and are at their positions in the tree with this size and
    /// root, which come from one signed checkpoint. `rows` must ascend.
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

/// Creates the proof for the rows of `runs` among the first `size` rows. The runs must be ascending, must not be adjacent, and
/// must end within `size`.
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

/// Returns the gaps that the runs leave in `0..size`; some of the gaps may be empty.
pub fn left_out(runs: &[Range<u64>], size: u64) -> impl Iterator<Item = Range<u64>> {
    let begins = runs.iter().map(|run| run.start).chain([size]);
    let ends = [0].into_iter().chain(runs.iter().map(|run| run.end));
    ends.zip(begins).map(|(from, to)| from..to)
}

/// Appends the hashes that represent one gap (`stretch`) in a proof.
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

/// Groups ascending positions into runs of consecutive rows. Returns `None` if the positions do not ascend.
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

/// Computes the root from the leaves of the given rows and, for the gaps between them, from the hashes of the proof. If it equals
/// the signed root, every row, its position, and the number of rows that were left out are proven.
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

    /// Adds the next of the given rows; positions must ascend.
    pub fn leaf(&mut self, seq: u64, leaf: Hash) -> Result<(), ProofError> {
        if seq < self.edge.end || seq >= self.size {
            return Err(ProofError::Sizes);
        }
        self.skip_to(seq)?;
        self.edge.push(0, leaf);
        Ok(())
    }

    /// Returns the root of all `size` rows, after every given row was added.
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

/// A sequence of perfect subtrees from the left edge on, where two subtrees of equal width are merged into a wider one.
#[derive(Debug, Default)]
struct Edge {
    end: u64,
    subtrees: Vec<(u32, Hash)>,
}

impl Edge {
    /// Adds a subtree to the right of the existing ones; its position must be a multiple of its width.
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
