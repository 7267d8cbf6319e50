//! Creates inclusion and consistency proofs (RFC 6962 sections 2.1.1 and 2.1.2) and verifies them (RFC 9162 sections
//! 2.1.3.2 and 2.1.4.2).

use super::hash::{Hash, node_hash};
use super::reader::{TileSource, TreeReader};

/// Reasons why a proof is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof does not match the rows and sizes")]
    Sizes,
    #[error("the proof has {found} hashes, expected {expected}")]
    Length { found: usize, expected: usize },
    #[error("the hashes do not lead to the root")]
    Root,
    #[error("the proof has too few hashes for the given rows")]
    Short,
    #[error("the proof has too many hashes for the given rows")]
    Long,
}

/// Largest power of two below `size`, where RFC 6962 splits a tree; `size` is at least 2.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Returns the sibling hashes from leaf `index` up to the root of the first `size` rows. `index` must be less than `size`, and
/// the tree must have at least `size` rows.
pub fn inclusion_proof<S: TileSource>(tree: &mut TreeReader<S>, index: u64, size: u64) -> Result<Vec<Hash>, S::Error> {
    let (mut begin, mut end) = (0, size);
    let mut siblings = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((begin, middle));
            begin = middle;
        }
    }
    siblings.into_iter().rev().map(|(begin, end)| tree.root_of(begin, end)).collect()
}

/// Returns a proof that the first `old` rows are unchanged in the tree of `size` rows. The proof is empty if there is nothing to
/// prove.
pub fn consistency_proof<S: TileSource>(tree: &mut TreeReader<S>, old: u64, size: u64) -> Result<Vec<Hash>, S::Error> {
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let (mut begin, mut end) = (0, size);
    let mut parts = Vec::new();
    while end != old {
        let middle = begin + split(end - begin);
        if old <= middle {
            parts.push((middle, end));
            end = middle;
        } else {
            parts.push((begin, middle));
            begin = middle;
        }
    }
    // If `begin` is 0, this subtree is the old root, which the verifier already has.
    if begin > 0 {
        parts.push((begin, end));
    }
    parts.into_iter().rev().map(|(begin, end)| tree.root_of(begin, end)).collect()
}

/// Checks that `leaf` is at `index` in the tree with this size and root, which come from one signed checkpoint.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Sizes);
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Root);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree of `size` rows with root `new_root` begins with the tree of `old` rows with root `old_root`.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > size {
        return Err(ProofError::Sizes);
    }
    if old == size {
        if !proof.is_empty() {
            return Err(ProofError::Length { found: proof.len(), expected: 0 });
        }
        return if old_root == new_root { Ok(()) } else { Err(ProofError::Root) };
    }
    if old == 0 {
        // Every tree extends the empty tree, so such a proof would prove nothing and is refused.
        return Err(ProofError::Sizes);
    }
    // If the old tree is a perfect subtree of the new one, its root is the first hash, which the proof omits.
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(ProofError::Length { found: 0, expected: 1 })?;
        (*first, rest)
    };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (first, first);
    for hash in rest {
        if last == 0 {
            return Err(ProofError::Root);
        }
        if at & 1 == 1 || at == last {
            from_old = node_hash(hash, &from_old);
            from_new = node_hash(hash, &from_new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && from_old == *old_root && from_new == *new_root { Ok(()) } else { Err(ProofError::Root) }
}
