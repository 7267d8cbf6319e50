//! Runs the fuzz targets in every test run: on their corpus, and on truncated, bit-flipped and concatenated inputs like those
//! that a fuzzer tries first.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::RangeProof;
use piperoll_format::time::Timestamp;
use piperoll_protocol::frame::{
    EntryParts, write_border, write_end, write_entry, write_erased, write_head, write_progress, write_proof,
};
use piperoll_protocol::node::{StreamEnd, StreamHead};

type Target = (&'static str, fn(&[u8]));
const TARGETS: [Target; 14] = [
    ("bundle", bodies::bundle),
    ("note", bodies::note),
    ("proof", bodies::proof),
    ("frame", bodies::frame),
    ("redact", bodies::redact),
    ("row", bodies::row),
    ("mapping", bodies::mapping),
    ("syslog", bodies::syslog),
    ("framing", bodies::framing),
    ("journal", bodies::journal),
    ("ndjson", bodies::ndjson),
    ("filter", bodies::filter),
    ("cursor", bodies::cursor),
    ("forwarded", bodies::forwarded),
];

fn corpus(target: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Returns seeds derived from the project's golden files; `UPDATE_GOLDEN=1` writes them.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let bundle = std::fs::read(golden.join("filtered.tar")).unwrap();
    let text = String::from_utf8_lossy(&bundle);
    let from = text.find("golden/mx1/").unwrap();
    let note = &text[from..][..text[from..].find('\0').unwrap()];
    let time = Timestamp::from_micros(1_776_240_000_000_000);
    let parts = EntryParts { seq: 3, place: time, timestamp: time, epoch: 0, mac: &[7; 32], body: b"{\"v\":1}" };
    let mut frames = Vec::new();
    let (cluster, node_id, generation) =
        ("golden".parse().unwrap(), "mx1".parse().unwrap(), Generation::from_bytes([7; 16]));
    let (head_seq, oldest_seq, pruned, epochs, fault) = (Some(9), Some(0), None, Vec::new(), None);
    write_head(
        &mut frames,
        &StreamHead { cluster, node_id, generation, head_seq, oldest_seq, pruned, epochs, fault, erased: 0 },
    );
    write_entry(&mut frames, &parts);
    write_erased(&mut frames, 2, &parts);
    write_border(&mut frames, &parts);
    write_proof(&mut frames, &RangeProof { runs: std::iter::once(2..4).collect(), hashes: vec![[1; 32], [2; 32]] });
    write_progress(&mut frames, 9, None);
    write_end(&mut frames, &StreamEnd { rows: 2, scanned: 9, more: false, faults: Vec::new() });
    let numbers: Vec<u8> = [3u64, 5, 700].iter().flat_map(|number| number.to_be_bytes()).collect();
    vec![
        ("bundle", "filtered", bundle[..40_960.min(bundle.len())].to_vec()),
        ("bundle", "erased", std::fs::read(golden.join("erased.tar")).unwrap()[2_048..20_480].to_vec()),
        ("note", "checkpoint", note.as_bytes().to_vec()),
        ("note", "trust", std::fs::read(golden.join("trust.toml")).unwrap()),
        ("proof", "range", [numbers, vec![9; 11 * 32]].concat()),
        ("frame", "stream", frames),
    ]
}

#[test]
fn the_corpus_is_what_the_formats_are_today() {
    for (target, name, bytes) in seeds() {
        let path = corpus(target).join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{target}/{name} is not what is made today");
    }
}

#[test]
fn no_target_panics_over_its_corpus_and_what_is_near_it() {
    for (name, run) in TARGETS {
        for file in std::fs::read_dir(corpus(name)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            run(&bytes);
            let step = (bytes.len() / 400).max(1);
            for at in (0..bytes.len()).step_by(step) {
                run(&bytes[..at]);
                run(&bytes[at..]);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                run(&changed);
                changed[at] = 0xff;
                run(&changed);
                run(&[&bytes[at..], &bytes[..at]].concat());
            }
        }
    }
}
