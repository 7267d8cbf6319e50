//! Hashing with domain separation: a leaf can never pass for an inner node (RFC 6962 section 2.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cover::HASH_BYTES;
use crate::digest::sha256;

/// A leaf's, an inner node's, or a tree's hash.
pub type Hash = [u8; HASH_BYTES];

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// The leaf of a row: `SHA-256(0x00 ‖ body ‖ mac)`. It binds the mac too, so that nobody can quietly seal old rows
/// anew after a key change.
pub fn leaf_hash(body: &[u8], mac: &[u8]) -> Hash {
    sha256([&LEAF, body, mac])
}

/// `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256([&NODE, left, right])
}

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    sha256([])
}

/// Standard base64 with padding, as in checkpoints and proofs.
pub fn encode_hash(hash: &Hash) -> String {
    STANDARD.encode(hash)
}

/// `None` when the text is not the base64 of 32 bytes.
pub fn decode_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
