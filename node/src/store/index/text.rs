//! Trigram search: finds the groups of rows that contain given three-character sequences.

use piperoll_query::filter::{TRIGRAM_CHARS, fold};

/// Number of rows that share a bit. Adjacent rows are similar, so a group takes little more space than one of its rows. The
/// only cost of a false match is that the rows of the group are read.
pub(super) const GROUP_ROWS: usize = 8;
/// Number of buckets into which trigrams are hashed. The only cost of a collision is that rows are read that do not match.
pub(super) const BUCKETS: usize = 1 << 16;

/// Returns the bucket of three characters: the upper bits of their product with 2^64 divided by the golden ratio, so that
/// neighboring characters are not in neighboring buckets.
fn bucket(a: char, b: char, c: char) -> u16 {
    let packed = u64::from(u32::from(a)) << 42 | u64::from(u32::from(b)) << 21 | u64::from(u32::from(c));
    (packed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

/// Returns the buckets of all trigrams of a text, one for each position.
pub(super) fn buckets(lower: &str) -> impl Iterator<Item = u16> + '_ {
    let mut chars = lower.chars();
    let (mut a, mut b) = (chars.next().unwrap_or_default(), chars.next().unwrap_or_default());
    const { assert!(TRIGRAM_CHARS == 3) };
    chars.map(move |c| {
        let found = bucket(a, b, c);
        (a, b) = (b, c);
        found
    })
}

/// The groups of rows in which one bucket occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Groups {
    /// Group numbers, ascending.
    List(Vec<u16>),
    /// One bit per group.
    Bits(Vec<u8>),
}

impl Groups {
    pub(super) fn contains(&self, group: usize) -> bool {
        match self {
            Self::List(list) => u16::try_from(group).is_ok_and(|group| list.binary_search(&group).is_ok()),
            Self::Bits(bits) => bits.get(group / 8).is_some_and(|byte| byte >> (group % 8) & 1 == 1),
        }
    }

    /// Number of bytes that a search has to read; 0 for a bucket that never occurs.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::List(list) => list.len() * size_of::<u16>(),
            Self::Bits(bits) => bits.len(),
        }
    }

    /// Writes the stored form: the gaps between the groups as LEB128, or one bit per group if that is not longer. The length
    /// tells the two forms apart: the bits of a block always have the same length, and the gaps are always shorter.
    fn write(&self, groups: usize, out: &mut Vec<u8>) {
        let start = out.len();
        if let Self::List(list) = self {
            let mut next = 0;
            for group in list {
                write_varint(u64::from(*group) - next, out);
                next = u64::from(*group) + 1;
            }
            if out.len() - start < groups.div_ceil(8) {
                return;
            }
            out.truncate(start);
        }
        out.resize(start + groups.div_ceil(8), 0);
        match self {
            Self::List(list) => {
                for group in list {
                    out[start + usize::from(*group) / 8] |= 1 << (group % 8);
                }
            }
            Self::Bits(bits) => out[start..].iter_mut().zip(bits).for_each(|(byte, bits)| *byte = *bits),
        }
    }

    pub(super) fn read(groups: usize, bytes: &[u8]) -> Option<Self> {
        if !bytes.is_empty() && bytes.len() == groups.div_ceil(8) {
            return Some(Self::Bits(bytes.to_vec()));
        }
        let (mut rest, mut next, mut list) = (bytes, 0u64, Vec::new());
        while !rest.is_empty() {
            let group = next.checked_add(read_varint(&mut rest)?)?;
            list.push(u16::try_from(group).ok()?);
            next = group + 1;
        }
        Some(Self::List(list))
    }
}

/// The texts of a block while rows are being added.
pub(super) struct Texts {
    groups_max: usize,
    /// Indexed by bucket.
    postings: Vec<Groups>,
    /// Buckets already seen in the current group, so that a text that is repeated in eight rows costs only one check per bucket
    /// and row.
    met: Vec<u64>,
    open: usize,
}

impl Texts {
    pub(super) fn new(rows: usize) -> Self {
        let postings = vec![Groups::List(Vec::new()); BUCKETS];
        Self { groups_max: rows.div_ceil(GROUP_ROWS), postings, met: vec![0; BUCKETS / 64], open: 0 }
    }

    /// Adds the text of a row. Rows must be added in ascending order.
    pub(super) fn add(&mut self, row: usize, text: &str) {
        let group = row / GROUP_ROWS;
        if group != self.open {
            self.met.fill(0);
            self.open = group;
        }
        if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.add_lower(group, text);
        } else {
            self.add_lower(group, &fold(text));
        }
    }

    fn add_lower(&mut self, group: usize, lower: &str) {
        for bucket in buckets(lower) {
            let bucket = usize::from(bucket);
            let (word, bit) = (&mut self.met[bucket / 64], 1 << (bucket % 64));
            if *word & bit == 0 {
                *word |= bit;
                self.postings[bucket].add(group, self.groups_max);
            }
        }
    }

    pub(super) fn groups(&self, bucket: u16) -> &Groups {
        &self.postings[usize::from(bucket)]
    }

    /// Encodes the postings: first the offsets at which the buckets begin and the offset at which the last bucket ends, 32 bits
    /// each, and then the buckets.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut postings = Vec::new();
        let mut out = Vec::with_capacity(4 * (BUCKETS + 1));
        for posting in &self.postings {
            out.extend_from_slice(&(postings.len() as u32).to_le_bytes());
            posting.write(self.groups_max, &mut postings);
        }
        out.extend_from_slice(&(postings.len() as u32).to_le_bytes());
        out.extend_from_slice(&postings);
        out
    }
}

impl Groups {
    /// Adds a group. If a list becomes longer than one bit per group, it is converted to bits, which bounds the size of a block
    /// of random text.
    fn add(&mut self, group: usize, groups_max: usize) {
        match self {
            Self::List(list) => {
                list.push(group as u16);
                if list.len() * 2 > groups_max.div_ceil(8) {
                    let mut bits = vec![0; groups_max.div_ceil(8)];
                    list.iter().for_each(|group| bits[usize::from(*group) / 8] |= 1 << (group % 8));
                    *self = Self::Bits(bits);
                }
            }
            Self::Bits(bits) => bits[group / 8] |= 1 << (group % 8),
        }
    }
}

/// Writes a number as LEB128 (DWARF 5, section 7.6).
pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
