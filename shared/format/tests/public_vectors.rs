//! Compares the tree and the notes with third-party work: the public RFC 6962 vectors of transparency-dev/merkle, and independent
//! implementations.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::merkle::{
    Hash, TileSource, TreeBuilder, TreeReader, consistency_proof, decode_hash, inclusion_proof, leaf_hash,
    perfect_root, verify_consistency, verify_inclusion,
};
use piperoll_format::note::{KeyKind, SigningSeed, VerifyingKey};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use signed_note::{Note, StandardVerifier, VerifierList};

/// Third-party data, which is stored next to the project directory and is not part of it.
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/rfc6962/testdata");

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Decodes the hashes of a vector. Returns `None` if one of them is not 32 bytes long, because our types cannot represent it.
fn hashes(texts: &[&Value]) -> Option<Vec<Hash>> {
    texts.iter().map(|text| decode_hash(text.as_str().unwrap())).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: Value,
    leaf_hash: Value,
    proof: Option<Vec<Value>>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: Value,
    root2: Value,
    proof: Option<Vec<Value>>,
    want_err: bool,
}

#[test]
fn public_vectors() {
    let root = Path::new(VECTORS);
    if !root.exists() {
        eprintln!("SKIPPED: {VECTORS} is not here");
        return;
    }
    let (mut inclusions, mut consistencies, mut inexpressible) = (0, 0, Vec::new());
    for file in files(&root.join("inclusion")) {
        let case: Inclusion = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let proof = case.proof.unwrap_or_default();
        let verdict = hashes(&[&case.root, &case.leaf_hash]).zip(hashes(&proof.iter().collect::<Vec<_>>()));
        let holds = verdict.is_some_and(|(ends, proof)| {
            verify_inclusion(&ends[1], case.leaf_idx, case.tree_size, &proof, &ends[0]).is_ok()
        });
        assert_eq!(holds, !case.want_err, "{}", file.display());
        inclusions += 1;
    }
    for file in files(&root.join("consistency")) {
        let case: Consistency = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let proof = case.proof.unwrap_or_default();
        let verdict = hashes(&[&case.root1, &case.root2]).zip(hashes(&proof.iter().collect::<Vec<_>>()));
        let Some((ends, proof)) = verdict else {
            inexpressible.push(!case.want_err);
            continue;
        };
        let holds = verify_consistency(case.size1, &ends[0], case.size2, &ends[1], &proof).is_ok();
        assert_eq!(holds, !case.want_err, "{}", file.display());
        consistencies += 1;
    }
    assert_eq!((inclusions, consistencies + inexpressible.len()), (98, 98), "the vectors are not all there");
    assert!(inexpressible.iter().filter(|good| **good).count() <= 1, "good cases were passed over");
}

/// The example note of the C2SP signed-note specification.
#[test]
fn the_specifications_note() {
    let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let note = "This is an example message.\n\n\u{2014} example.com/foo \
                Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let key = VerifyingKey::parse(key).unwrap();
    let good = piperoll_format::note::Note::parse(note).unwrap();
    assert_eq!(good.verify(&key), Ok(0));
    assert_eq!(good.to_string(), note);
    let changed = piperoll_format::note::Note::parse(&note.replace("message", "Message")).unwrap();
    assert!(changed.verify(&key).is_err());
}

/// Another implementation reads our notes and keys.
#[test]
fn signed_note_agrees() {
    let key = SigningSeed::from_bytes([3; 32]).named("example/mx1/0707", KeyKind::Log).unwrap();
    let checkpoint = Checkpoint { origin: "example/mx1/0707".to_owned(), size: 70_000, root: [9; 32] };
    let ours = checkpoint.sign(&key).unwrap().to_string();
    let verifier = StandardVerifier::new(&key.public().to_string()).unwrap();
    let theirs = Note::from_bytes(ours.as_bytes()).unwrap();
    let (good, unknown) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((good.len(), unknown.len()), (1, 0));
    assert_eq!(theirs.to_bytes(), ours.as_bytes());
    let read = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
    assert_eq!((read.origin(), read.size(), read.hash().0), ("example/mx1/0707", 70_000, [9; 32]));
}

/// Hashes by their index, as tlog_tiles stores them.
struct Stored(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

struct Tiles {
    full: HashMap<(u32, u64), Vec<Hash>>,
    edge: Vec<Hash>,
}

impl TileSource for Tiles {
    type Error = Infallible;

    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, Infallible> {
        if let Some(tile) = self.full.get(&(level, index)) {
            return Ok(tile.clone());
        }
        let first = (index * 256) as usize;
        Ok(if level == 0 {
            self.edge[first..first + width as usize].to_vec()
        } else {
            (0..width).map(|n| perfect_root(&self.full[&(level - 1, first as u64 + n)])).collect()
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ct_merkle_and_tlog_tiles_agree(size in 1u64..700, pick: u64) {
        let rows: Vec<Vec<u8>> = (0..size).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut builder = TreeBuilder::default();
        let mut full = HashMap::new();
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut stored = Stored(Vec::new());
        for (n, row) in rows.iter().enumerate() {
            builder.push(leaf_hash(row, b""), |tile| { full.insert((tile.level, tile.index), tile.hashes); });
            theirs.push(row.clone());
            let more = tlog_tiles::stored_hashes(n as u64, row, &stored).unwrap();
            stored.0.extend(more);
        }
        let edge = rows.iter().map(|row| leaf_hash(row, b"")).collect();
        let mut reader = TreeReader::new(Tiles { full, edge }, size);
        let root = builder.root();
        let their_root = theirs.root();
        prop_assert_eq!(&root[..], &their_root.as_bytes()[..]);
        prop_assert_eq!(root, tlog_tiles::tree_hash(size, &stored).unwrap().0);

        let index = pick % size;
        let ours = inclusion_proof(&mut reader, index, size).unwrap();
        let as_theirs = theirs.prove_inclusion(index as usize);
        let flat = ours.concat();
        prop_assert_eq!(&flat[..], as_theirs.as_bytes());
        let tiles: Vec<Hash> = tlog_tiles::prove_record(size, index, &stored).unwrap().iter().map(|h| h.0).collect();
        prop_assert_eq!(&ours, &tiles);

        let old = 1 + pick % size;
        let ours = consistency_proof(&mut reader, old, size).unwrap();
        if old < size {
            let as_theirs = theirs.prove_consistency((size - old) as usize);
            let flat = ours.concat();
            prop_assert_eq!(&flat[..], as_theirs.as_bytes());
            let tiles: Vec<Hash> = tlog_tiles::prove_tree(size, old, &stored).unwrap().iter().map(|h| h.0).collect();
            prop_assert_eq!(&ours, &tiles);
        }
        let old_root = reader.root(old).unwrap();
        prop_assert_eq!(verify_consistency(old, &old_root, size, &root, &ours), Ok(()));
    }
}
