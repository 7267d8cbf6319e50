//! Frames of a peer scan (docs/format.md, "Peer frames"): one byte for the kind, four bytes for the length (big endian), then the
//! payload. Entries are sent as stored, so that no code between the database and the check of the MAC parses or rewrites them.

use bytes::{Buf, Bytes, BytesMut};

use crate::node::{Mark, StreamEnd, StreamHead};
use piperoll_format::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_format::merkle::{HASH_BYTES, Hash, RangeProof};
use piperoll_format::order::Position;
use piperoll_format::time::Timestamp;
use piperoll_query::stats::CountPart;

pub const MEDIA_TYPE: &str = "application/vnd.piperoll.frames.v1";
/// `Accept` header of an aggregator that understands positions in progress frames; nodes of earlier versions ignore the parameter.
pub const MEDIA_TYPE_WITH_PLACES: &str = "application/vnd.piperoll.frames.v1; progress=places";

/// Longest payload of a frame other than a proof. It is larger than any valid entry, because a row that an attacker lengthened in
/// the database must still be shown.
pub const FRAME_BYTES_MAX: usize = 4 * BODY_AND_MAC_BYTES_MAX;
const HEADER_BYTES: usize = 5;
/// Size of a position in a progress frame in bytes: timestamp 8, seq 8.
const PLACE_BYTES: usize = 16;
/// Size of the fixed part of an entry in bytes: seq 8, `place` 8, timestamp 8, epoch 4, mac length 1.
const ENTRY_FIXED_BYTES: usize = 29;
/// Maximum number of bytes of a body that are sent. No valid body is longer. A body that was lengthened by tampering is
/// truncated, and its row still fails verification.
const BODY_SENT_BYTES_MAX: usize = FRAME_BYTES_MAX - ENTRY_FIXED_BYTES - MAC_SENT_BYTES_MAX;
const MAC_SENT_BYTES_MAX: usize = 255;

const HEAD: u8 = b'H';
const ENTRY: u8 = b'E';
const PROGRESS: u8 = b'P';
const BORDER: u8 = b'B';
const PROOF: u8 = b'W';
const ERASED: u8 = b'X';
const ERASED_BORDER: u8 = b'Y';
const COUNT: u8 = b'C';
const MARK: u8 = b'M';
const END: u8 = b'Z';

/// Longest payload of a proof frame. A proof has up to two hashes per level of the tree for every row; a batch has a few hundred
/// rows.
pub const PROOF_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Head(StreamHead),
    Entry(EntryFrame),
    /// A row outside the answer that proves where the range of the answer ends.
    Border(EntryFrame),
    /// An erased row: its seq, and the `log.erased` entry about it.
    Erased(u64, EntryFrame),
    /// An erased border row, in the same form.
    ErasedBorder(u64, EntryFrame),
    /// A proof for some of the rows that were sent since the previous proof.
    Proof(RangeProof),
    /// Part of a count, sent before the end frame.
    Count(CountPart),
    /// Progress of a stream that follows a log.
    Mark(Mark),
    /// Number of rows scanned so far, which shows that the node is still working. If the client requested positions, also the
    /// position up to which every row was read.
    Progress(u64, Option<Position>),
    End(StreamEnd),
}

/// A row on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFrame {
    pub seq: u64,
    /// Time by which the node sorts the row. For a valid row, this is the row's own time.
    pub place: Timestamp,
    /// Value of the time column.
    pub timestamp: Timestamp,
    pub epoch: u32,
    /// The MAC as stored: empty if the column is NULL, and possibly shorter than a valid MAC.
    pub mac: Bytes,
    pub body: Bytes,
}

/// Reasons why a stream cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the answer is not a Piperoll stream (unknown frame kind {0})")]
    Kind(u8),
    #[error("a frame of {0} bytes exceeds the limit of {FRAME_BYTES_MAX}")]
    Length(usize),
    #[error("cannot decode a {0} frame")]
    Payload(&'static str),
}

fn push(out: &mut Vec<u8>, kind: u8, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in payload {
        out.extend_from_slice(part);
    }
}

pub fn write_head(out: &mut Vec<u8>, head: &StreamHead) {
    push(out, HEAD, &[&serde_json::to_vec(head).unwrap_or_default()]);
}

pub fn write_end(out: &mut Vec<u8>, end: &StreamEnd) {
    push(out, END, &[&serde_json::to_vec(end).unwrap_or_default()]);
}

pub fn write_count(out: &mut Vec<u8>, part: &CountPart) {
    push(out, COUNT, &[&serde_json::to_vec(part).unwrap_or_default()]);
}

pub fn write_mark(out: &mut Vec<u8>, mark: &Mark) {
    push(out, MARK, &[&serde_json::to_vec(mark).unwrap_or_default()]);
}

pub fn write_progress(out: &mut Vec<u8>, scanned: u64, reached: Option<Position>) {
    let scanned = scanned.to_be_bytes();
    match reached {
        None => push(out, PROGRESS, &[&scanned]),
        Some(Position { timestamp, seq }) => {
            push(out, PROGRESS, &[&scanned, &timestamp.micros().to_be_bytes(), &seq.to_be_bytes()]);
        }
    }
}

/// A stored row to be written as a frame.
#[derive(Debug, Clone, Copy)]
pub struct EntryParts<'a> {
    pub seq: u64,
    pub place: Timestamp,
    pub timestamp: Timestamp,
    pub epoch: u32,
    pub mac: &'a [u8],
    pub body: &'a [u8],
}

/// Writes the number of runs, each run as a pair of begin and end, then the hashes.
pub fn write_proof(out: &mut Vec<u8>, proof: &RangeProof) {
    let mut runs = u32::try_from(proof.runs.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    for run in &proof.runs {
        runs.extend_from_slice(&run.start.to_be_bytes());
        runs.extend_from_slice(&run.end.to_be_bytes());
    }
    push(out, PROOF, &[&runs, proof.hashes.as_flattened()]);
}

pub fn write_border(out: &mut Vec<u8>, entry: &EntryParts<'_>) {
    write_row(out, BORDER, entry);
}

/// Writes a row. A mac or body that is longer than a valid one is truncated; such a row is a violation either way.
pub fn write_entry(out: &mut Vec<u8>, entry: &EntryParts<'_>) {
    write_row(out, ENTRY, entry);
}

/// Writes an erased row and the complete `log.erased` entry about it.
pub fn write_erased(out: &mut Vec<u8>, seq: u64, entry: &EntryParts<'_>) {
    write_gone(out, ERASED, seq, entry);
}

/// Writes an erased border row in the same form as [`write_erased`].
pub fn write_erased_border(out: &mut Vec<u8>, seq: u64, entry: &EntryParts<'_>) {
    write_gone(out, ERASED_BORDER, seq, entry);
}

fn write_gone(out: &mut Vec<u8>, kind: u8, seq: u64, entry: &EntryParts<'_>) {
    let mut row = Vec::new();
    write_row(&mut row, kind, entry);
    push(out, kind, &[&seq.to_be_bytes(), &row[HEADER_BYTES..]]);
}

fn write_row(out: &mut Vec<u8>, kind: u8, entry: &EntryParts<'_>) {
    let mac = &entry.mac[..entry.mac.len().min(MAC_SENT_BYTES_MAX)];
    let body = &entry.body[..entry.body.len().min(BODY_SENT_BYTES_MAX)];
    let mac_len = u8::try_from(mac.len()).unwrap_or(u8::MAX);
    let (place, timestamp) = (entry.place.micros().to_be_bytes(), entry.timestamp.micros().to_be_bytes());
    let (seq, epoch) = (entry.seq.to_be_bytes(), entry.epoch.to_be_bytes());
    push(out, kind, &[&seq, &place, &timestamp, &epoch, &[mac_len], mac, body]);
}

/// Removes one frame from the start of `buffer`; returns `None` if the frame is not complete yet.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let kind = buffer[0];
    if ![HEAD, ENTRY, BORDER, ERASED, ERASED_BORDER, PROOF, PROGRESS, COUNT, MARK, END].contains(&kind) {
        return Err(FrameError::Kind(kind));
    }
    let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > if kind == PROOF { PROOF_BYTES_MAX } else { FRAME_BYTES_MAX } {
        return Err(FrameError::Length(length));
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(length).freeze();
    let frame = match kind {
        HEAD => Frame::Head(serde_json::from_slice(&payload).map_err(|_| FrameError::Payload("head"))?),
        END => Frame::End(serde_json::from_slice(&payload).map_err(|_| FrameError::Payload("end"))?),
        COUNT => Frame::Count(serde_json::from_slice(&payload).map_err(|_| FrameError::Payload("count"))?),
        MARK => Frame::Mark(serde_json::from_slice(&payload).map_err(|_| FrameError::Payload("mark"))?),
        PROGRESS => {
            let mut rest = payload;
            let bad = || FrameError::Payload("progress");
            let scanned = rest.try_get_u64().map_err(|_| bad())?;
            let reached = match rest.len() {
                0 => None,
                PLACE_BYTES => {
                    Some(Position { timestamp: Timestamp::from_micros(rest.get_i64()), seq: rest.get_u64() })
                }
                _ => return Err(bad()),
            };
            Frame::Progress(scanned, reached)
        }
        PROOF => Frame::Proof(proof(payload).ok_or(FrameError::Payload("proof"))?),
        ERASED | ERASED_BORDER => {
            let mut rest = payload;
            let seq = rest.try_get_u64().map_err(|_| FrameError::Payload("erased"))?;
            let statement = entry(rest).ok_or(FrameError::Payload("erased"))?;
            if kind == ERASED { Frame::Erased(seq, statement) } else { Frame::ErasedBorder(seq, statement) }
        }
        BORDER => Frame::Border(entry(payload).ok_or(FrameError::Payload("border"))?),
        _ => Frame::Entry(entry(payload).ok_or(FrameError::Payload("entry"))?),
    };
    Ok(Some(frame))
}

fn entry(mut payload: Bytes) -> Option<EntryFrame> {
    if payload.len() < ENTRY_FIXED_BYTES {
        return None;
    }
    let seq = payload.get_u64();
    let place = Timestamp::from_micros(payload.get_i64());
    let timestamp = Timestamp::from_micros(payload.get_i64());
    let epoch = payload.get_u32();
    let mac_len = usize::from(payload.get_u8());
    if payload.len() < mac_len {
        return None;
    }
    let mac = payload.split_to(mac_len);
    Some(EntryFrame { seq, place, timestamp, epoch, mac, body: payload })
}

fn proof(mut payload: Bytes) -> Option<RangeProof> {
    let count = usize::try_from(payload.try_get_u32().ok()?).ok()?;
    if payload.len() < count.checked_mul(16)? {
        return None;
    }
    let runs = (0..count).map(|_| payload.get_u64()..payload.get_u64()).collect();
    let (hashes, rest) = payload.as_chunks::<HASH_BYTES>();
    rest.is_empty().then(|| RangeProof { runs, hashes: hashes.to_vec() as Vec<Hash> })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Compares the written frame with the golden bytes in docs/format.md.
    #[test]
    fn entry_frame_bytes_are_fixed() {
        let mut out = Vec::new();
        let (place, timestamp) = (Timestamp::from_micros(4), Timestamp::from_micros(2));
        write_entry(&mut out, &EntryParts { seq: 1, place, timestamp, epoch: 3, mac: &[0xaa, 0xbb], body: b"{}" });
        let expected = "4500000021000000000000000100000000000000040000000000000002".to_owned() + "0000000302aabb7b7d";
        assert_eq!(hex::encode(&out), expected);
    }

    /// Compares the written frame with the golden bytes in docs/format.md.
    #[test]
    fn proof_frame_bytes_are_fixed() {
        let mut out = Vec::new();
        let proof = RangeProof { runs: vec![1..3, 4..5], hashes: vec![[0xcc; 32]] };
        write_proof(&mut out, &proof);
        let runs = "0000000000000001000000000000000300000000000000040000000000000005";
        assert_eq!(hex::encode(&out), format!("570000004400000002{runs}{}", "cc".repeat(32)));
        assert_eq!(decode(&mut BytesMut::from(&out[..])), Ok(Some(Frame::Proof(proof))));
    }

    /// Compares the written frame with the golden bytes in docs/format.md.
    #[test]
    fn erased_frame_bytes_are_fixed() {
        let mut out = Vec::new();
        let time = Timestamp::from_micros(2);
        write_erased(
            &mut out,
            7,
            &EntryParts { seq: 9, place: time, timestamp: time, epoch: 3, mac: &[0xaa], body: b"{}" },
        );
        let expected = "58000000280000000000000007".to_owned()
            + "000000000000000900000000000000020000000000000002"
            + "0000000301aa7b7d";
        assert_eq!(hex::encode(&out), expected);
        assert!(matches!(decode(&mut BytesMut::from(&out[..])), Ok(Some(Frame::Erased(7, entry))) if entry.seq == 9));
    }

    /// Compares the written frame with the golden bytes in docs/format.md.
    #[test]
    fn progress_frame_bytes_are_fixed() {
        let mut out = Vec::new();
        write_progress(&mut out, 7, None);
        assert_eq!(hex::encode(&out), "50000000080000000000000007");
        let place = Position { timestamp: Timestamp::from_micros(2), seq: 5 };
        out.clear();
        write_progress(&mut out, 7, Some(place));
        assert_eq!(hex::encode(&out), "5000000018000000000000000700000000000000020000000000000005");
        assert_eq!(decode(&mut BytesMut::from(&out[..])), Ok(Some(Frame::Progress(7, Some(place)))));
        assert!(decode(&mut BytesMut::from(&b"P\0\0\0\x09123456789"[..])).is_err());
    }

    #[test]
    fn a_planted_body_of_any_length_passes() {
        let mut out = Vec::new();
        let time = Timestamp::from_micros(0);
        let (mac, body) = ([1; 400], vec![b'x'; 2 * FRAME_BYTES_MAX]);
        write_entry(&mut out, &EntryParts { seq: 0, place: time, timestamp: time, epoch: 0, mac: &mac, body: &body });
        let frame = decode(&mut BytesMut::from(&out[..])).expect("a frame");
        assert!(matches!(frame, Some(Frame::Entry(entry)) if entry.body.len() == BODY_SENT_BYTES_MAX));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8), cut in 1usize..64) {
            let mut wire = Vec::new();
            for (i, body) in bodies.iter().enumerate() {
                let time = Timestamp::from_micros(i as i64);
                let entry = EntryParts { seq: i as u64, place: time, timestamp: time, epoch: 0, mac: &[1; 32], body };
                write_entry(&mut wire, &entry);
            }
            write_progress(&mut wire, 7, None);
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decode(&mut buffer).expect("frames") {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen.len(), bodies.len() + 1);
            for (frame, body) in seen.iter().zip(&bodies) {
                let Frame::Entry(entry) = frame else { panic!("not an entry") };
                prop_assert_eq!(&entry.body[..], &body[..]);
            }
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }
}
