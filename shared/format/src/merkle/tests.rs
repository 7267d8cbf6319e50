//! Compares the tree with its definition, for many small sizes and shapes.

use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// RFC 6962's MTH, written as in the RFC.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let split = 1 << (leaves.len() - 1).ilog2();
            node_hash(&naive(&leaves[..split]), &naive(&leaves[split..]))
        }
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes(), b"mac")).collect()
}

/// Stores full tiles as the node's log does, and computes unfinished tiles from the leaves.
struct Memory {
    full: HashMap<(u32, u64), Vec<Hash>>,
    leaves: Vec<Hash>,
}

impl TileSource for Memory {
    type Error = Infallible;

    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, Infallible> {
        if let Some(tile) = self.full.get(&(level, index)) {
            assert_eq!(width, TILE_WIDTH);
            return Ok(tile.clone());
        }
        assert!(width < TILE_WIDTH, "a full tile was not handed over");
        let first = (index * TILE_WIDTH) as usize;
        if level == 0 {
            return Ok(self.leaves[first..first + width as usize].to_vec());
        }
        Ok((0..width).map(|n| perfect_root(&self.full[&(level - 1, first as u64 + n)])).collect())
    }
}

fn grown(count: u64) -> (TreeBuilder, TreeReader<Memory>) {
    let mut builder = TreeBuilder::default();
    let mut full = HashMap::new();
    let leaves = leaves(count);
    for leaf in &leaves {
        builder.push(*leaf, |tile| assert!(full.insert((tile.level, tile.index), tile.hashes).is_none()));
    }
    (builder, TreeReader::new(Memory { full, leaves }, count))
}

#[test]
fn the_root_is_the_definition_at_every_past_size() {
    let all = leaves(1_100);
    for size in [0, 1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 1_023, 1_100] {
        let expected = naive(&all[..size as usize]);
        assert_eq!(grown(size).0.root(), expected, "built at {size}");
        assert_eq!(grown(1_100).1.root(size), Ok(expected), "read at {size}");
    }
}

/// The golden values of docs/format.md.
#[test]
fn golden_roots() {
    assert_eq!(encode_hash(&empty_root()), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_eq!(hex::encode(leaf_hash(b"", b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_eq!(decode_hash("AAAA"), None);
}

/// Crosses the size at which a tile of the second level becomes full.
#[test]
fn a_second_level_of_tiles() {
    let size = 65_536 + 300;
    let (builder, mut reader) = grown(size);
    let all = leaves(size);
    assert_eq!(builder.root(), naive(&all));
    let proof = inclusion_proof(&mut reader, 70, size).expect("a proof");
    assert_eq!(verify_inclusion(&all[70], 70, size, &proof, &builder.root()), Ok(()));
    let proof = consistency_proof(&mut reader, 65_000, size).expect("a proof");
    assert_eq!(verify_consistency(65_000, &naive(&all[..65_000]), size, &builder.root(), &proof), Ok(()));
}

#[test]
fn a_resumed_builder_goes_on_where_it_was() {
    let mut whole = TreeBuilder::default();
    for leaf in leaves(600) {
        whole.push(leaf, |_| {});
    }
    let all = leaves(600);
    let level1 = vec![naive(&all[..256]), naive(&all[256..512])];
    assert_eq!(TreeBuilder::resume(600, vec![all[512..].to_vec(), level1.clone()]), Some(whole));
    assert_eq!(TreeBuilder::resume(601, vec![all[512..].to_vec(), level1]), None);
}

proptest! {
    #[test]
    fn inclusion_holds_and_nothing_else_does(size in 1u64..600, pick: u64, bit in 0usize..256) {
        let (builder, mut reader) = grown(size);
        let (index, root, all) = (pick % size, builder.root(), leaves(size));
        let leaf = all[index as usize];
        let mut proof = inclusion_proof(&mut reader, index, size).expect("a proof");
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
        let mut other = leaf;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&other, index, size, &proof, &root).is_err());
        if size > 1 {
            prop_assert!(verify_inclusion(&leaf, (index + 1) % size, size, &proof, &root).is_err());
            let at = bit % proof.len();
            proof[at][bit / 8] ^= 1;
            prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root).is_err());
            proof[at][bit / 8] ^= 1;
        }
        proof.push(root);
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root).is_err());
    }

    #[test]
    fn consistency_holds_and_nothing_else_does(size in 2u64..600, pick: u64, bit in 0usize..256) {
        let (_, mut reader) = grown(size);
        let old = 1 + pick % (size - 1);
        let (old_root, root) = (reader.root(old).expect("a root"), reader.root(size).expect("a root"));
        let mut proof = consistency_proof(&mut reader, old, size).expect("a proof");
        prop_assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()));
        let mut other = old_root;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_consistency(old, &other, size, &root, &proof).is_err());
        prop_assert!(verify_consistency(old, &old_root, size, &other, &proof).is_err());
        let at = bit % proof.len();
        proof[at][bit / 8] ^= 1;
        prop_assert!(verify_consistency(old, &old_root, size, &root, &proof).is_err());
        proof[at][bit / 8] ^= 1;
        proof.push(root);
        prop_assert!(verify_consistency(old, &old_root, size, &root, &proof).is_err());
    }

    /// In a proof of any set of rows, a row that is omitted, repeated, swapped or changed is detected, and so is a hash that is
    /// added or missing.
    #[test]
    fn a_range_is_whole_or_refused(
        size in 1u64..700,
        cuts in prop::collection::vec(any::<u64>(), 0..8),
        what in 0u8..6,
        pick: u64,
    ) {
        let (builder, mut reader) = grown(size);
        let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut % (size + 1)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let runs: Vec<_> = cuts.as_chunks::<2>().0.iter().map(|[begin, end]| *begin..*end).collect();
        let mut proof = range_proof(&mut reader, &runs, size).expect("a proof");
        let all = leaves(size);
        let mut rows: Vec<(u64, Hash)> =
            runs.iter().cloned().flatten().map(|seq| (seq, all[seq as usize])).collect();
        prop_assert_eq!(runs_of(rows.iter().map(|row| row.0)), Some(runs));
        let root = |rows: &[(u64, Hash)], proof: &[Hash]| {
            let mut root = RangeRoot::new(size, proof);
            rows.iter().try_for_each(|(seq, leaf)| root.leaf(*seq, *leaf))?;
            root.root()
        };
        prop_assert_eq!(root(&rows, &proof), Ok(builder.root()));
        let at = if rows.is_empty() { 0 } else { (pick % rows.len() as u64) as usize };
        match what {
            0 if !rows.is_empty() => { rows.remove(at); }
            1 if !rows.is_empty() => { rows.insert(at, rows[at]); }
            2 if rows.len() > 1 => {
                let next = (at + 1) % rows.len();
                (rows[at].1, rows[next].1) = (rows[next].1, rows[at].1);
            }
            3 if !rows.is_empty() => rows[at].1[31] ^= 1,
            4 => proof.push([0; 32]),
            5 if !proof.is_empty() => { proof.remove((pick % proof.len() as u64) as usize); }
            _ => return Ok(()),
        }
        prop_assert_ne!(root(&rows, &proof), Ok(builder.root()));
    }
}
