//! What a fuzzer does with bytes, for each target. Nothing here may panic, and what is read must be what was written.

use bytes::BytesMut;
use piperoll_shared::api::frame;
use piperoll_shared::log::bundle::{Rows, Trust, verify_bundle};
use piperoll_shared::log::checkpoint::Checkpoint;
use piperoll_shared::log::entry::Prefix;
use piperoll_shared::log::note::{KeyKind, Note, SigningSeed, VerifyingKey};
use piperoll_shared::log::statement::Statement;
use piperoll_shared::log::tree::{Hash, RangeProof, leaf_hash, verify_consistency, verify_inclusion};

/// A trust file whose keys signed nothing, so that no bundle is sound under it.
const TRUST: &str = "format = \"piperoll trust v1\"\ncluster = \"golden\"\n";

pub(crate) fn bundle(bytes: &[u8]) {
    let trust = Trust::parse(TRUST).ok();
    assert!(trust.is_some() && !verify_bundle(bytes, trust.as_ref()).is_sound(), "nobody signed this");
    let _ = verify_bundle(bytes, None);
    for row in Rows::new(bytes).flatten() {
        let _ = (row.leaf(), row.to_row());
    }
}

pub(crate) fn note(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = VerifyingKey::parse(text.trim_end());
    let _ = Trust::parse(text);
    let Ok(note) = Note::parse(text) else { return };
    assert_eq!(note.to_string(), text, "a note has one spelling");
    let _ = note.cosigned_at();
    if let Ok(checkpoint) = Checkpoint::parse(note.text())
        && let Some(key) = SigningSeed::from_bytes([7; 32]).named(&checkpoint.origin, KeyKind::Log)
    {
        assert!(Checkpoint::open(&note, key.public()).is_err(), "a signature of a key that signed nothing");
    }
}

/// The first bytes are numbers, the rest are hashes.
pub(crate) fn proof(bytes: &[u8]) {
    let Some((numbers, rest)) = bytes.split_first_chunk::<24>() else { return };
    let number = |at: usize| numbers[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
    let (one, two, size) = (number(0), number(8), number(16));
    let (hashes, _) = rest.as_chunks::<32>();
    let hashes: Vec<Hash> = hashes.to_vec();
    let root = leaf_hash(b"no tree has this root", b"");
    assert!(verify_inclusion(&[0; 32], one, size, &hashes, &root).is_err());
    assert!(verify_consistency(one, &[0; 32], size, &root, &hashes).is_err() || one == 0);
    let runs = std::iter::once(one..two).collect();
    let rows = (one..two).take(1_000).map(|seq| (seq, leaf_hash(&seq.to_be_bytes(), b"")));
    assert!(RangeProof { runs, hashes }.verify(rows, size, &root).is_err());
}

pub(crate) fn frame(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = frame::decode(&mut buffer) {
        match frame {
            frame::Frame::Entry(entry)
            | frame::Frame::Border(entry)
            | frame::Frame::Erased(_, entry)
            | frame::Frame::ErasedBorder(_, entry) => {
                let _ = (Prefix::parse(&entry.body), Statement::read(&entry.body));
            }
            _ => {}
        }
    }
}
