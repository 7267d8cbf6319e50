//! The Merkle tree over a node's rows (docs/format.md, "Tree"): RFC 6962 section 2.1, stored as the 256-wide tiles
//! of C2SP tlog-tiles.
//!
//! Everything here is about *perfect subtrees*: the node at `(level, index)` covers the leaves
//! `index << level .. (index + 1) << level`. A tree of any size is a row of perfect subtrees, widest first, so roots
//! and proofs of every past size can be made from hashes that never change.
//!
//! A root does not commit to the size of its tree: size and root must come from the same signed checkpoint.

mod builder;
mod hash;
mod proof;
mod range;
mod reader;

pub use builder::{FullTile, TreeBuilder, perfect_root};
pub use hash::{Hash, decode_hash, empty_root, encode_hash, leaf_hash, node_hash};
pub use proof::{ProofError, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use range::{RangeProof, RangeRoot, cover_hashes, left_out, range_proof, runs_of};
pub use reader::{TileCache, TileMemory, TileSource, TreeReader};

/// Hashes in a full tile (C2SP tlog-tiles, "Merkle Tree").
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree that one level of tiles spans.
pub const TILE_LEVELS: u32 = 8;
pub const HASH_BYTES: usize = 32;

/// The perfect subtrees that cover `begin..end`, from left to right: each as wide as its place and the end allow.
/// For `begin = 0` they are the binary digits of `end`.
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

#[cfg(test)]
mod tests;
