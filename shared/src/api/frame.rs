//! Frames of a peer scan (docs/format.md, "Peer frames"): one byte kind, four bytes length big-endian,
//! payload. Entries pass as they are stored, so that nobody between the database and the check of the mac
//! parses or rewrites them.

use bytes::{Buf, Bytes, BytesMut};

use super::node::{StreamEnd, StreamHead};
use crate::log::limits::BODY_AND_MAC_BYTES_MAX;
use crate::log::time::Timestamp;

pub const MEDIA_TYPE: &str = "application/vnd.piperoll.frames.v1";

/// A stored row may have been made longer by whoever edited the file; it still has to be shown.
pub const FRAME_BYTES_MAX: usize = 16 * BODY_AND_MAC_BYTES_MAX;
const HEADER_BYTES: usize = 5;
/// seq 8, timestamp 8, epoch 4, mac length 1.
const ENTRY_FIXED_BYTES: usize = 21;

const HEAD: u8 = b'H';
const ENTRY: u8 = b'E';
const PROGRESS: u8 = b'P';
const END: u8 = b'Z';

/// One decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Head(StreamHead),
    Entry(EntryFrame),
    /// Rows scanned so far; tells a working node from a silent one.
    Progress(u64),
    End(StreamEnd),
}

/// A row on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFrame {
    pub seq: u64,
    pub timestamp: Timestamp,
    pub epoch: u32,
    /// As stored: empty when NULL, possibly short.
    pub mac: Bytes,
    pub body: Bytes,
}

/// A stream that is not frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the answer is not a Piperoll stream (unknown frame kind {0})")]
    Kind(u8),
    #[error("a frame of {0} bytes is longer than {FRAME_BYTES_MAX}")]
    Length(usize),
    #[error("a {0} frame cannot be read")]
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

pub fn write_progress(out: &mut Vec<u8>, scanned: u64) {
    push(out, PROGRESS, &[&scanned.to_be_bytes()]);
}

/// A mac longer than 255 bytes cannot be a mac and is cut; it stays a violation.
pub fn write_entry(out: &mut Vec<u8>, seq: u64, timestamp: Timestamp, epoch: u32, mac: &[u8], body: &[u8]) {
    let mac = &mac[..mac.len().min(255)];
    let mac_len = u8::try_from(mac.len()).unwrap_or(u8::MAX);
    push(
        out,
        ENTRY,
        &[&seq.to_be_bytes(), &timestamp.micros().to_be_bytes(), &epoch.to_be_bytes(), &[mac_len], mac, body],
    );
}

/// Takes one frame off the front of what has arrived; `None` when it is not complete yet.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let kind = buffer[0];
    if ![HEAD, ENTRY, PROGRESS, END].contains(&kind) {
        return Err(FrameError::Kind(kind));
    }
    let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
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
        PROGRESS => {
            let scanned = payload.as_ref().try_into().map_err(|_| FrameError::Payload("progress"))?;
            Frame::Progress(u64::from_be_bytes(scanned))
        }
        _ => Frame::Entry(entry(payload).ok_or(FrameError::Payload("entry"))?),
    };
    Ok(Some(frame))
}

fn entry(mut payload: Bytes) -> Option<EntryFrame> {
    if payload.len() < ENTRY_FIXED_BYTES {
        return None;
    }
    let seq = payload.get_u64();
    let micros = payload.get_i64();
    let epoch = payload.get_u32();
    let mac_len = usize::from(payload.get_u8());
    if payload.len() < mac_len {
        return None;
    }
    let mac = payload.split_to(mac_len);
    Some(EntryFrame { seq, timestamp: Timestamp::from_micros(micros), epoch, mac, body: payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The golden bytes of docs/format.md.
    #[test]
    fn entry_frame_bytes_are_fixed() {
        let mut out = Vec::new();
        write_entry(&mut out, 1, Timestamp::from_micros(2), 3, &[0xaa, 0xbb], b"{}");
        assert_eq!(hex::encode(&out), "45000000190000000000000001000000000000000200000003".to_owned() + "02aabb7b7d");
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8), cut in 1usize..64) {
            let mut wire = Vec::new();
            for (i, body) in bodies.iter().enumerate() {
                write_entry(&mut wire, i as u64, Timestamp::from_micros(i as i64), 0, &[1; 32], body);
            }
            write_progress(&mut wire, 7);
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
