//! A tree whose leaves are all in memory, for proofs that tests make themselves.

use piperoll_shared::log::tree::{Hash, TILE_WIDTH, TileSource, perfect_root};

/// Tiles of these leaves; enough for trees of one level above the leaves' (65,536 rows).
pub struct Leaves(pub Vec<Hash>);

impl TileSource for Leaves {
    type Error = std::convert::Infallible;

    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, Self::Error> {
        let tile = TILE_WIDTH as usize;
        let from = index as usize * tile;
        let places = from..from + width as usize;
        Ok(match level {
            0 => self.0[places].to_vec(),
            _ => places.map(|below| perfect_root(&self.0[below * tile..(below + 1) * tile])).collect(),
        })
    }
}
