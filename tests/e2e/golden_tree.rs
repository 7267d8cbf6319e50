//! docs/golden-tree.json: roots, proofs and a cosigned checkpoint, computed by this library and checked by an independent script.

use std::process::Command;

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::merkle::{
    Hash, TreeReader, consistency_proof, encode_hash, inclusion_proof, leaf_hash, range_proof,
};
use piperoll_format::note::{KeyKind, Note, SigningSeed};
use piperoll_tests::Leaves;
use serde_json::{Value, json};

const LEAVES: u64 = 700;
const MAC: [u8; 4] = [0xaa, 0xbb, 0xcc, 0xdd];
const ORIGIN: &str = "example/mx1/07070707070707070707070707070707";
const COSIGNED_AT: u64 = 1_776_240_000;

fn made() -> Value {
    let leaves: Vec<Hash> = (0..LEAVES).map(|n| leaf_hash(&n.to_be_bytes(), &MAC)).collect();
    let tree = |size: u64| TreeReader::new(Leaves(leaves[..size as usize].to_vec()), size);
    let text = |hashes: Vec<Hash>| hashes.iter().map(encode_hash).collect::<Vec<_>>();
    let roots = [0, 1, 2, 3, 7, 8, 255, 256, 257, 512, 700]
        .map(|size| json!({ "size": size, "root": encode_hash(&tree(size).root(size).unwrap()) }));
    let inclusion = [(0, 1), (0, 2), (4, 7), (255, 256), (256, 257), (300, 700), (699, 700)].map(|(index, size)| {
        json!({ "index": index, "size": size, "proof": text(inclusion_proof(&mut tree(size), index, size).unwrap()) })
    });
    let consistency = [(1, 2), (3, 7), (4, 7), (6, 8), (256, 700), (257, 700), (699, 700)].map(|(old, size)| {
        json!({ "old": old, "size": size, "proof": text(consistency_proof(&mut tree(size), old, size).unwrap()) })
    });
    let range = [
        (&[(0, 1)][..], 1),
        (&[(2, 5)][..], 7),
        (&[(0, 1), (3, 4), (6, 7)][..], 7),
        (&[(100, 300)][..], 700),
        (&[][..], 700),
        (&[(1, 2), (256, 512), (699, 700)][..], 700),
    ]
    .map(|(runs, size)| {
        let ranges: Vec<_> = runs.iter().map(|(begin, end)| *begin..*end).collect();
        let proof = text(range_proof(&mut tree(size), &ranges, size).unwrap());
        let runs: Vec<[u64; 2]> = runs.iter().map(|(begin, end)| [*begin, *end]).collect();
        json!({ "runs": runs, "size": size, "proof": proof })
    });
    let (node, witness) = (SigningSeed::from_bytes([7; 32]), SigningSeed::from_bytes([8; 32]));
    let key = node.named(ORIGIN, KeyKind::Log).unwrap();
    let cosigner = witness.named("example/aggregator/agg", KeyKind::Witness).unwrap();
    let root = tree(LEAVES).root(LEAVES).unwrap();
    let note = Checkpoint { origin: ORIGIN.to_owned(), size: LEAVES, root }.sign(&key).unwrap();
    let cosignature = cosigner.cosign(note.text(), COSIGNED_AT);
    let note = note.with(cosignature);
    json!({
        "leaves": { "count": LEAVES, "mac_hex": hex::encode(MAC), "first": encode_hash(&leaves[0]) },
        "roots": roots, "inclusion": inclusion, "consistency": consistency, "range": range,
        "checkpoint": {
            "seeds_hex": ["07".repeat(32), "08".repeat(32)], "cosigned_at": COSIGNED_AT, "note": note.to_string(),
            "keys": [[1, hex::encode(node.public_bytes())], [4, hex::encode(witness.public_bytes())]],
            "vkeys": [key.public().to_string(), cosigner.public().to_string()],
        },
    })
}

#[test]
fn tree_vectors_agree() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/golden-tree.json");
    let made = made();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{made:#}\n")).unwrap();
    }
    let frozen: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(frozen == made, "docs/golden-tree.json is not what is made today: the format has changed");
    let note = Note::parse(frozen["checkpoint"]["note"].as_str().unwrap()).unwrap();
    let witness = piperoll_format::note::VerifyingKey::parse(frozen["checkpoint"]["vkeys"][1].as_str().unwrap());
    assert_eq!(note.verify(&witness.unwrap()), Ok(COSIGNED_AT));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/golden_tree.py");
    let run = Command::new("python3").args([script, path]).output().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}
