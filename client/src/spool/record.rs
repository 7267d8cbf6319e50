//! Encodes and parses one record of a segment: length, CRC-32, time, text. All numbers are little-endian.

/// Size of the header, which precedes the text: length of the text (4), CRC-32 of everything after it (4), time (8).
pub(super) const HEAD_BYTES: usize = 16;
/// Maximum length of a text, which is that of a caller's entry.
pub(super) const TEXT_BYTES_MAX: usize = piperoll_format::limits::CALLER_ENTRY_BYTES_MAX;

/// A spooled entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpooledEntry {
    /// Time at which the entry was emitted, in microseconds since 1970.
    pub(crate) time: i64,
    /// The entry as it is sent, with its secrets masked.
    pub(crate) text: String,
}

impl SpooledEntry {
    pub(crate) fn bytes(&self) -> u64 {
        (HEAD_BYTES + self.text.len()) as u64
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.text.len());
        bytes.extend(u32::try_from(self.text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.time.to_le_bytes());
        bytes.extend(self.text.as_bytes());
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Result of parsing the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A record, and the number of bytes it occupies.
    Record(SpooledEntry, usize),
    /// More bytes are needed to tell whether there is a record.
    Short,
    /// The bytes are not a record.
    Damaged,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Parsed::Short };
    let [l0, l1, l2, l3, c0, c1, c2, c3, time @ ..] = *head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > TEXT_BYTES_MAX {
        return Parsed::Damaged;
    }
    let Some(text) = rest.get(..length) else { return Parsed::Short };
    let whole = HEAD_BYTES + length;
    if crc32fast::hash(&bytes[8..whole]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Parsed::Damaged;
    }
    match std::str::from_utf8(text) {
        Ok(text) => Parsed::Record(SpooledEntry { time: i64::from_le_bytes(time), text: text.to_owned() }, whole),
        Err(_) => Parsed::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins the bytes of a record: a spool written before an upgrade must be readable after it (docs/recording.md, "Spool").
    #[test]
    fn bytes_of_a_record() {
        let kept = SpooledEntry { time: 1_776_240_000_000_001, text: "{}".to_owned() };
        let bytes = kept.to_bytes();
        assert_eq!(hex::encode(&bytes), "02000000a4c7b53d01603c1a7b4f06007b7d");
        assert_eq!(parse(&bytes), Parsed::Record(kept, 18));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Parsed::Short);
        }
        for at in 4..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x40;
            assert_eq!(parse(&wrong), Parsed::Damaged, "byte {at}");
        }
    }
}
