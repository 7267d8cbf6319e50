//! Hashes of consecutive leaves whose other leaves are stored elsewhere: covers of a range, and compact ranges, which are covers
//! that begin with the first leaf.

use super::cover::{TILE_LEVELS, cover};
use super::hash::{Hash, empty_root, node_hash};

/// Hashes of the widest perfect subtrees that lie within the leaves `from..to`, from left to right. A cover grows leaf by leaf, and
/// adjacent covers can be joined, so parts of a log can be hashed independently of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    from: u64,
    to: u64,
    hashes: Vec<Hash>,
}

impl Cover {
    /// Creates the empty cover at a position.
    pub fn at(from: u64) -> Self {
        Self { from, to: from, hashes: Vec::new() }
    }

    /// Creates a cover from its hashes; returns `None` if the range requires another number of hashes.
    pub fn new(from: u64, to: u64, hashes: Vec<Hash>) -> Option<Self> {
        (from <= to && hashes.len() == Self::len_of(from, to)).then_some(Self { from, to, hashes })
    }

    /// Number of hashes that cover the leaves `from..to`.
    pub fn len_of(from: u64, to: u64) -> usize {
        cover(from, to).count()
    }

    pub fn from(&self) -> u64 {
        self.from
    }

    pub fn to(&self) -> u64 {
        self.to
    }

    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Adds the next leaf. Calls `tile` with index and root of the level-0 tile (C2SP tlog-tiles) that this leaf completes, if all
    /// leaves of that tile are in the range.
    pub fn push(&mut self, leaf: Hash, tile: impl FnMut(u64, Hash)) {
        self.push_subtree(0, leaf, tile);
    }

    /// Adds the leaves of the next cover.
    ///
    /// Returns false, and changes nothing, if `next` does not begin where this cover ends.
    pub fn append(&mut self, next: &Self, mut tile: impl FnMut(u64, Hash)) -> bool {
        if next.from != self.to {
            return false;
        }
        for ((level, _), hash) in cover(next.from, next.to).zip(&next.hashes) {
            self.push_subtree(level, *hash, &mut tile);
        }
        true
    }

    /// Adds the perfect subtree of `2^level` leaves that begins at the end of the cover, and joins it with its neighbors.
    fn push_subtree(&mut self, level: u32, hash: Hash, mut tile: impl FnMut(u64, Hash)) {
        let (mut level, mut index, mut hash) = (level, self.to >> level, hash);
        self.to += 1 << level;
        // The left neighbor is in the range if its first leaf is.
        while index % 2 == 1 && ((index - 1) << level) >= self.from {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            (level, index) = (level + 1, index / 2);
            if level == TILE_LEVELS {
                tile(index, hash);
            }
        }
        self.hashes.push(hash);
    }

    /// Root of the tree of which this cover has all leaves; `None` if the cover does not begin with the first leaf.
    pub fn root(&self) -> Option<Hash> {
        let mut hashes = self.hashes.iter().rev().copied();
        let last = hashes.next().unwrap_or_else(empty_root);
        (self.from == 0).then(|| hashes.fold(last, |right, left| node_hash(&left, &right)))
    }
}

/// Hashes of the perfect subtrees that cover the first `size` leaves of a tree, widest first. There is one hash for each binary
/// digit 1 of `size`, so a compact range has at most 64 hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRange(Cover);

impl Default for CompactRange {
    fn default() -> Self {
        Self(Cover::at(0))
    }
}

impl CompactRange {
    /// Creates a compact range from its hashes; returns `None` if `size` requires another number of hashes.
    pub fn new(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        Cover::new(0, size, hashes).map(Self)
    }

    pub fn size(&self) -> u64 {
        self.0.to
    }

    /// Hashes of the perfect subtrees, widest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.0.hashes
    }

    /// Adds the next leaf. Returns the root of the level-0 tile (C2SP tlog-tiles) that this leaf completes, if it completes one.
    pub fn push(&mut self, leaf: Hash) -> Option<Hash> {
        let mut full = None;
        self.0.push(leaf, |_, root| full = Some(root));
        full
    }

    /// Adds the leaves of the next cover; returns false if it does not begin where this range ends.
    pub fn append(&mut self, next: &Cover) -> bool {
        self.0.append(next, |_, _| ())
    }

    /// The range of only those leaves that are in full level-0 tiles.
    #[must_use]
    pub fn full_tiles(&self) -> Self {
        let size = self.size() >> TILE_LEVELS << TILE_LEVELS;
        let hashes = self.0.hashes[..size.count_ones() as usize].to_vec();
        Self(Cover { from: 0, to: size, hashes })
    }

    /// Adds the next full level-0 tile by its root.
    pub fn push_tile(&mut self, root: Hash) {
        self.0.push_subtree(TILE_LEVELS, root, |_, _| ());
    }

    /// Root of the tree of `size` leaves.
    pub fn root(&self) -> Hash {
        self.0.root().unwrap_or_else(empty_root)
    }

    /// Root of the tree of `size` leaves, of which `rest` covers those after this range; `None` if `rest` has the wrong number of
    /// hashes.
    pub fn root_of(&self, size: u64, rest: &[Hash]) -> Option<Hash> {
        let rest = Cover::new(self.size(), size, rest.to_vec())?;
        let mut whole = self.clone();
        whole.append(&rest).then(|| whole.root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{TILE_WIDTH, TreeBuilder, leaf_hash};
    use proptest::prelude::*;

    fn leaf(seq: u64) -> Hash {
        leaf_hash(&seq.to_be_bytes(), &[])
    }

    fn range(size: u64) -> CompactRange {
        let mut range = CompactRange::default();
        (0..size).for_each(|seq| {
            let _ = range.push(leaf(seq));
        });
        range
    }

    fn cover_of(from: u64, to: u64) -> Cover {
        let mut cover = Cover::at(from);
        (from..to).for_each(|seq| cover.push(leaf(seq), |_, _| ()));
        cover
    }

    #[test]
    fn it_grows_like_the_tree_and_names_the_tiles() {
        let (mut range, mut tree) = (CompactRange::default(), TreeBuilder::default());
        for seq in 0..(3 * TILE_WIDTH + 5) {
            let tile = range.push(leaf(seq));
            let mut full = None;
            tree.push(leaf(seq), |tile| full = full.or((tile.level == 0).then_some(tile.root)));
            assert_eq!(tile, full, "row {seq}");
            assert_eq!((range.root(), range.size()), (tree.root(), tree.size()));
        }
    }

    proptest! {
        #[test]
        fn the_rest_of_a_tree_leads_to_its_root(from in 0u64..600, more in 0u64..600, wrong in any::<prop::sample::Index>()) {
            let (small, large) = (range(from), range(from + more));
            let rest = cover_of(from, from + more);
            prop_assert_eq!(rest.hashes().len(), Cover::len_of(from, from + more));
            let rest = rest.hashes();
            prop_assert_eq!(small.root_of(from + more, rest), Some(large.root()));
            prop_assert_eq!(small.root_of(from + more, &[rest, &[[0; 32]]].concat()), None);
            if !rest.is_empty() {
                let mut changed = rest.to_vec();
                changed[wrong.index(rest.len())][0] ^= 1;
                prop_assert_ne!(small.root_of(from + more, &changed), Some(large.root()));
            }
        }

        #[test]
        fn parts_are_joined_to_the_whole(cuts in prop::collection::vec(0u64..700, 1..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (begin, end) = (cuts[0], cuts[cuts.len() - 1]);
            let mut joined = Cover::at(begin);
            let mut tiles = Vec::new();
            for pair in cuts.windows(2) {
                prop_assert!(joined.append(&cover_of(pair[0], pair[1]), |index, root| tiles.push((index, root))));
            }
            prop_assert_eq!(&joined, &cover_of(begin, end));
            let mut whole = range(begin);
            prop_assert!(whole.append(&joined));
            prop_assert_eq!(&whole, &range(end));
            prop_assert!(begin == end || !range(begin + 1).append(&joined), "a part at another position");
            // Full tiles alone lead to the same range of full tiles.
            let mut of_tiles = CompactRange::default();
            let mut tile = CompactRange::default();
            for seq in 0..end {
                if let Some(root) = tile.push(leaf(seq)) {
                    of_tiles.push_tile(root);
                }
            }
            prop_assert_eq!(of_tiles, whole.full_tiles());
        }
    }

    #[test]
    fn a_wrong_number_of_hashes_is_refused() {
        assert!(CompactRange::new(5, vec![[0; 32]; 2]).is_some());
        assert!(CompactRange::new(5, vec![[0; 32]; 3]).is_none());
        assert!(CompactRange::new(0, Vec::new()).is_some());
        assert!(Cover::new(3, 2, Vec::new()).is_none());
    }
}
