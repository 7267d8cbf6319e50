//! A Merkle tree with all leaves in memory, from which tests compute proofs independently of the store.

use piperoll_format::merkle::{Hash, TILE_WIDTH, TileSource, perfect_root};

/// Tile source over a list of leaves.
pub struct Leaves(pub Vec<Hash>);

impl Leaves {
    /// Returns one hash of a tile: a leaf, or the root of a full tile of the level below.
    fn hash(&self, level: u32, index: u64) -> Hash {
        match level.checked_sub(1) {
            None => self.0[index as usize],
            Some(below) => perfect_root(&self.hashes(below, index, TILE_WIDTH)),
        }
    }

    fn hashes(&self, level: u32, index: u64, width: u64) -> Vec<Hash> {
        let first = index * TILE_WIDTH;
        (first..first + width).map(|place| self.hash(level, place)).collect()
    }
}

impl TileSource for Leaves {
    type Error = std::convert::Infallible;

    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, Self::Error> {
        Ok(self.hashes(level, index, width))
    }
}
