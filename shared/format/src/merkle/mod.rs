//! The Merkle tree over a node's rows (docs/format.md, "Tree"): RFC 6962 section 2.1, stored as the 256-wide tiles
//! of C2SP tlog-tiles.
//!
//! All functions work on *perfect subtrees*: the node at `(level, index)` covers the leaves
//! `index << level .. (index + 1) << level`. A tree of any size is a sequence of perfect subtrees, widest first, so roots
//! and proofs of every past size can be computed from hashes that never change.
//!
//! A root does not commit to the size of its tree: size and root must come from the same signed checkpoint.

mod builder;
mod compact;
mod cover;
mod hash;
mod proof;
mod range;
mod reader;

pub use builder::{FullTile, TreeBuilder, perfect_root};
pub use compact::{CompactRange, Cover};
pub use cover::{HASH_BYTES, TILE_LEVELS, TILE_WIDTH};
pub use hash::{Hash, decode_hash, empty_root, encode_hash, leaf_hash, node_hash};
pub use proof::{ProofError, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use range::{RangeProof, RangeRoot, cover_hashes, left_out, range_proof, runs_of};
pub use reader::{TileCache, TileMemory, TileSource, TreeReader};

#[cfg(test)]
mod tests;
