//! Hashes of a stored tree, from its tiles.

use std::collections::HashMap;

use super::builder::perfect_root;
use super::hash::{Hash, empty_root, node_hash};
use super::{TILE_LEVELS, TILE_WIDTH, cover};

/// Where tiles are kept.
pub trait TileSource {
    type Error;

    /// The first `width` hashes of a tile (1 to 256). All of them belong to rows that are there.
    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, Self::Error>;
}

/// Reads hashes of perfect subtrees and remembers the tiles it has met: proofs for one size touch the same few.
pub struct TreeReader<S> {
    source: S,
    /// Rows there are; no subtree beyond is asked for.
    size: u64,
    met: HashMap<(u32, u64), Vec<Hash>>,
}

impl<S: TileSource> TreeReader<S> {
    pub fn new(source: S, size: u64) -> Self {
        Self { source, size, met: HashMap::new() }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of the perfect subtree at `(level, index)`, which must lie within the tree.
    pub fn subtree(&mut self, level: u32, index: u64) -> Result<Hash, S::Error> {
        let (tile_level, inside) = (level / TILE_LEVELS, level % TILE_LEVELS);
        let first = index << inside;
        let tile = self.tile(tile_level, first / TILE_WIDTH)?;
        let offset = usize::try_from(first % TILE_WIDTH).unwrap_or(usize::MAX);
        Ok(perfect_root(&tile[offset..offset + (1 << inside)]))
    }

    fn tile(&mut self, level: u32, index: u64) -> Result<&[Hash], S::Error> {
        if !self.met.contains_key(&(level, index)) {
            let hashes_there = self.size >> (TILE_LEVELS * level);
            let width = (hashes_there - index * TILE_WIDTH).min(TILE_WIDTH);
            let tile = self.source.tile(level, index, width)?;
            self.met.insert((level, index), tile);
        }
        Ok(&self.met[&(level, index)])
    }

    /// The root of the first `size` rows.
    pub fn root(&mut self, size: u64) -> Result<Hash, S::Error> {
        self.root_of(0, size)
    }

    /// RFC 6962's MTH over `begin..end`, where `begin` is a multiple of the width of the range's widest subtree.
    pub(super) fn root_of(&mut self, begin: u64, end: u64) -> Result<Hash, S::Error> {
        let subtrees: Vec<_> = cover(begin, end).collect();
        let mut root: Option<Hash> = None;
        for (level, index) in subtrees.into_iter().rev() {
            let subtree = self.subtree(level, index)?;
            root = Some(root.map_or(subtree, |right| node_hash(&subtree, &right)));
        }
        Ok(root.unwrap_or_else(empty_root))
    }
}
