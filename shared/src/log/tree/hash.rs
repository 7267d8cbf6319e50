//! Hashing with domain separation: a leaf can never pass for an inner node (RFC 6962 section 2.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::HASH_BYTES;

/// A leaf's, an inner node's, or a tree's hash.
pub type Hash = [u8; HASH_BYTES];

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// The leaf of a row: `SHA-256(0x00 ‖ body ‖ mac)`. It binds the mac too, so that nobody can quietly seal old rows
/// anew after a key change.
pub fn leaf_hash(body: &[u8], mac: &[u8]) -> Hash {
    Sha256::new().chain_update(LEAF).chain_update(body).chain_update(mac).finalize().into()
}

/// `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update(NODE).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Standard base64 with padding, as in checkpoints and proofs.
pub fn encode_hash(hash: &Hash) -> String {
    STANDARD.encode(hash)
}

/// `None` when the text is not the base64 of 32 bytes.
pub fn decode_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
