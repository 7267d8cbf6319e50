//! Range proofs: that rows `begin..end` are exactly the rows of a tree, all of them, in order (docs/format.md, "Range
//! proof"; the idea is transparency-dev/merkle's compact range). Not standardised; about 1 KiB for any range.

use super::cover;
use super::hash::{Hash, empty_root, node_hash};
use super::proof::ProofError;
use super::reader::{TileSource, TreeReader};

/// The hashes left and right of a range. Their numbers follow from the range and the tree's size, so a proof of any
/// other shape is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeProof {
    /// The perfect subtrees that cover `0..begin`.
    pub left: Vec<Hash>,
    /// The perfect subtrees that cover `end..size`.
    pub right: Vec<Hash>,
}

/// Makes the proof for `begin..end` of the first `size` rows.
pub fn range_proof<S: TileSource>(
    tree: &mut TreeReader<S>,
    begin: u64,
    end: u64,
    size: u64,
) -> Result<RangeProof, S::Error> {
    let mut hashes = |begin, end| -> Result<Vec<Hash>, S::Error> {
        cover(begin, end).map(|(level, index)| tree.subtree(level, index)).collect()
    };
    Ok(RangeProof { left: hashes(0, begin)?, right: hashes(end, size)? })
}

/// The root that follows from a proof and the leaves of its range; comparing it with the signed one proves position,
/// order, and that no row is left out.
pub fn root_of_range(
    begin: u64,
    leaves: impl Iterator<Item = Hash>,
    size: u64,
    proof: &RangeProof,
) -> Result<Hash, ProofError> {
    let mut row = Row::default();
    let take = |row: &mut Row, begin: u64, end: u64, hashes: &[Hash]| {
        let expected = cover(begin, end).count();
        if hashes.len() != expected {
            return Err(ProofError::Length { found: hashes.len(), expected });
        }
        for ((level, _), hash) in cover(begin, end).zip(hashes) {
            row.push(level, *hash);
        }
        Ok(())
    };
    take(&mut row, 0, begin, &proof.left)?;
    for leaf in leaves {
        row.push(0, leaf);
    }
    if row.end > size {
        return Err(ProofError::Sizes);
    }
    let end = row.end;
    take(&mut row, end, size, &proof.right)?;
    Ok(row.root())
}

/// A row of perfect subtrees from the left edge on, merged wherever two make a wider one.
#[derive(Debug, Default)]
struct Row {
    end: u64,
    subtrees: Vec<(u32, Hash)>,
}

impl Row {
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
