//! Hashing with domain separation, so that a leaf can never be mistaken for an inner node (RFC 6962 section 2.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cover::HASH_BYTES;
use crate::digest::sha256;

/// Hash of a leaf, an inner node or a whole tree.
pub type Hash = [u8; HASH_BYTES];

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// Leaf of a row: `SHA-256(0x00 ‖ body ‖ mac)`. The hash also covers the mac, so that sealing old rows again with another key is
/// detected.
pub fn leaf_hash(body: &[u8], mac: &[u8]) -> Hash {
    sha256([&LEAF, body, mac])
}

/// Hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256([&NODE, left, right])
}

/// Root of a tree without leaves: SHA-256 of the empty string.
pub fn empty_root() -> Hash {
    sha256([])
}

/// Encodes a hash in standard base64 with padding, as in checkpoints and proofs.
pub fn encode_hash(hash: &Hash) -> String {
    STANDARD.encode(hash)
}

/// Decodes a hash; returns `None` if the text is not base64 of 32 bytes.
pub fn decode_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
