//! Builds a tree row by row, keeping only the hashes that are not in full tiles yet.

use super::cover::{TILE_LEVELS, TILE_WIDTH};
use super::hash::{Hash, empty_root, node_hash};

/// A tile that has become full; it never changes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullTile {
    /// 0 for leaves; a tile of level 1 holds the roots of 256 full tiles of level 0, and so on.
    pub level: u32,
    pub index: u64,
    pub hashes: Vec<Hash>,
    /// Root over all hashes of the tile, which is one hash of the tile above.
    pub root: Hash,
}

impl FullTile {
    /// Stored form of the tile: 256 concatenated hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }
}

/// Right edge of a growing tree. Cloning is cheap (a few tiles), so a group of rows can first be added to a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeBuilder {
    size: u64,
    /// Hashes of the unfinished tile of each level, lowest level first; each is shorter than a full tile.
    edge: Vec<Vec<Hash>>,
}

impl TreeBuilder {
    /// Creates a builder that continues a stored tree: `edge` contains the hashes of each level's unfinished tile. Returns `None`
    /// if the numbers of hashes do not match `size`.
    pub fn resume(size: u64, mut edge: Vec<Vec<Hash>>) -> Option<Self> {
        while edge.last().is_some_and(Vec::is_empty) {
            edge.pop();
        }
        let mut rest = size;
        for level in 0..8 {
            let expected = rest % TILE_WIDTH;
            if edge.get(level).map_or(0, Vec::len) as u64 != expected {
                return None;
            }
            rest /= TILE_WIDTH;
        }
        Some(Self { size, edge })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next leaf, and calls `full` for every tile that this leaf completes.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(FullTile)) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0u32.. {
            let at = level as usize;
            if self.edge.len() == at {
                self.edge.push(Vec::with_capacity(TILE_WIDTH as usize));
            }
            self.edge[at].push(hash);
            if (self.edge[at].len() as u64) < TILE_WIDTH {
                return;
            }
            let hashes = std::mem::replace(&mut self.edge[at], Vec::with_capacity(TILE_WIDTH as usize));
            hash = perfect_root(&hashes);
            let index = (self.size >> (TILE_LEVELS * (level + 1))) - 1;
            full(FullTile { level, index, hashes, root: hash });
        }
    }

    /// Root of the tree at its current size.
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // Combine from the right: within a level, narrow subtrees are to the right of wide ones, and the unfinished tile of
        // each level is to the right of the unfinished tile of the level above.
        for hashes in &self.edge {
            let mut end = hashes.len();
            while end > 0 {
                let width = 1 << end.trailing_zeros();
                let subtree = perfect_root(&hashes[end - width..end]);
                root = Some(root.map_or(subtree, |right| node_hash(&subtree, &right)));
                end -= width;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}

/// Root over `hashes`, which belong to one level and whose number must be a power of two. The root of a full tile is one hash of
/// the tile above.
pub fn perfect_root(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level.first().copied().unwrap_or_else(empty_root)
}
