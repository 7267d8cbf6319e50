//! Defines the dimensions of a tree, and computes the perfect subtrees that cover a range.

/// Number of hashes in a full tile (C2SP tlog-tiles, "Merkle Tree").
pub const TILE_WIDTH: u64 = 256;
/// Number of levels of the tree that one level of tiles spans.
pub const TILE_LEVELS: u32 = 8;
pub const HASH_BYTES: usize = 32;

/// Returns the perfect subtrees that cover `begin..end`, from left to right, each as wide as its position and `end`
/// allow. For `begin = 0` they correspond to the binary digits of `end`.
pub(crate) fn cover(begin: u64, end: u64) -> impl Iterator<Item = (u32, u64)> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let fits = left.ilog2();
        let level = if at == 0 { fits } else { at.trailing_zeros().min(fits) };
        let subtree = (level, at >> level);
        at += 1 << level;
        Some(subtree)
    })
}
