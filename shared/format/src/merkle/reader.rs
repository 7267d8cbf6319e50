//! Reads hashes of a stored tree from its tiles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::cover::{TILE_LEVELS, TILE_WIDTH, cover};
use super::hash::{Hash, empty_root, node_hash};

/// Storage that tiles are read from.
pub trait TileSource {
    type Error;

    /// Returns the first `width` hashes of a tile (1 to 256). The tree has all rows that these hashes cover.
    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, Self::Error>;
}

/// Tiles that were read and are kept for reuse, because proofs for one size read the same few tiles. Valid only for one size of
/// one tree.
#[derive(Debug, Default)]
pub struct TileMemory(HashMap<(u32, u64), Arc<Tile>>);

/// Maximum number of tiles in a cache; 16 KiB each.
const CACHED_TILES_MAX: usize = 1_024;

/// Cache of full tiles of one log, shared by readers of any size. Computing the inner hashes of a tile is the most expensive
/// part of a proof, and most proofs use the same tiles, because most clients ask for the newest rows.
#[derive(Debug, Default)]
pub struct TileCache(Mutex<HashMap<(u32, u64), Arc<Tile>>>);

impl TileCache {
    fn get(&self, level: u32, index: u64) -> Option<Arc<Tile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(level, index)).cloned()
    }

    fn keep(&self, level: u32, index: u64, tile: &Arc<Tile>) {
        let mut tiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tiles.len() >= CACHED_TILES_MAX {
            tiles.clear();
        }
        tiles.insert((level, index), Arc::clone(tile));
    }
}

/// Hashes of a tile and of the subtrees within it: `levels[l]` contains the roots of its perfect subtrees of `2^l` hashes.
#[derive(Debug)]
struct Tile {
    levels: Vec<Vec<Hash>>,
}

impl Tile {
    fn new(hashes: Vec<Hash>) -> Self {
        let mut levels = vec![hashes];
        while let Some(above) = levels.last().map(|level| pairs(level)).filter(|above| !above.is_empty()) {
            levels.push(above);
        }
        Self { levels }
    }
}

fn pairs(level: &[Hash]) -> Vec<Hash> {
    level.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect()
}

/// Reads hashes of perfect subtrees.
pub struct TreeReader<S> {
    source: S,
    /// Number of rows in the tree.
    size: u64,
    met: TileMemory,
    cache: Option<Arc<TileCache>>,
}

impl<S: TileSource> TreeReader<S> {
    pub fn new(source: S, size: u64) -> Self {
        Self::with_memory(source, size, TileMemory::default())
    }

    /// Creates a reader that reuses the tiles that an earlier reader of the same tree and size has read.
    pub fn with_memory(source: S, size: u64, met: TileMemory) -> Self {
        Self { source, size, met, cache: None }
    }

    /// Makes the reader look for full tiles in `cache` first. The cache must belong to the same log.
    pub fn beside(mut self, cache: Arc<TileCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Returns the tiles worth keeping. Leaf tiles are dropped: there are many of them, and each is needed for only a few proofs.
    pub fn into_memory(mut self) -> TileMemory {
        self.met.0.retain(|(level, _), _| *level > 0);
        self.met
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the hash of the perfect subtree at `(level, index)`, which must lie within the tree.
    pub fn subtree(&mut self, level: u32, index: u64) -> Result<Hash, S::Error> {
        let (tile_level, inside) = (level / TILE_LEVELS, level % TILE_LEVELS);
        let first = index << inside;
        let tile = self.tile(tile_level, first / TILE_WIDTH)?;
        let offset = usize::try_from((first % TILE_WIDTH) >> inside).unwrap_or(usize::MAX);
        Ok(tile.levels[inside as usize][offset])
    }

    fn tile(&mut self, level: u32, index: u64) -> Result<&Tile, S::Error> {
        if !self.met.0.contains_key(&(level, index)) {
            let hashes_there = self.size >> (TILE_LEVELS * level);
            let width = (hashes_there - index * TILE_WIDTH).min(TILE_WIDTH);
            // Only full tiles are identical for trees of every size.
            let cache = self.cache.as_ref().filter(|_| width == TILE_WIDTH);
            let tile = match cache.and_then(|cache| cache.get(level, index)) {
                Some(tile) => tile,
                None => {
                    let tile = Arc::new(Tile::new(self.source.tile(level, index, width)?));
                    if let Some(cache) = cache {
                        cache.keep(level, index, &tile);
                    }
                    tile
                }
            };
            self.met.0.insert((level, index), tile);
        }
        Ok(&self.met.0[&(level, index)])
    }

    /// Returns the root of the first `size` rows.
    pub fn root(&mut self, size: u64) -> Result<Hash, S::Error> {
        self.root_of(0, size)
    }

    /// Computes RFC 6962's MTH over `begin..end`, where `begin` is a multiple of the width of the range's widest subtree.
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
