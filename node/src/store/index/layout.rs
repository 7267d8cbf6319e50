//! Layout of a block's file (docs/index.md, "File format").

use std::net::IpAddr;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::Hash;
use piperoll_query::column::{COLUMNS, Column};

pub(super) const MAGIC: &[u8; 8] = b"PRindex3";
pub(super) const ODD: usize = COLUMNS.len();
pub(super) const TIMES: usize = ODD + 1;
pub(super) const EARLIER: usize = ODD + 2;
pub(super) const DESCRIPTION: usize = ODD + 3;
pub(super) const DETAILS: usize = ODD + 4;
pub(super) const PARTS: usize = ODD + 5;
/// Number of bytes that one checksum covers.
pub(super) const CHUNK_BYTES: u64 = 4_096;
/// Length in bytes of one checksum, a CRC-32 as in IEEE 802.3, little-endian.
pub(super) const SUM_BYTES: u64 = 4;
/// Lengths in bytes: of the fixed fields before the list of parts, of one line of that list, and of the whole head.
pub(super) const FIXED_BYTES: usize = 96;
pub(super) const PART_BYTES: usize = 24;
pub(super) const HEAD_BYTES: usize = FIXED_BYTES + PARTS * PART_BYTES;

/// Identifies the rows that a block covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) generation: Generation,
    pub(super) first: u64,
    /// Root of the tree over these rows.
    pub(super) root: Hash,
}

/// One line of the list of parts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Section {
    /// Whether the dictionary holds hashes.
    pub(super) hashed: bool,
    /// Bytes per code; 0 if all rows have the same code.
    pub(super) width: u8,
    /// Number of values in the dictionary.
    pub(super) count: u32,
    pub(super) at: u64,
    /// Offset at which the dictionary ends and the codes begin; for parts without a dictionary, the offset at which the part
    /// ends.
    pub(super) middle: u64,
}

/// Appends a checksum of every chunk, and then one checksum over these checksums.
pub(super) fn add_sums(bytes: &mut Vec<u8>) {
    let sums: Vec<u8> = bytes.chunks(CHUNK_BYTES as usize).flat_map(sum).collect();
    bytes.extend_from_slice(&sums);
    bytes.extend_from_slice(&sum(&sums));
}

pub(super) fn sum(bytes: &[u8]) -> [u8; SUM_BYTES as usize] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// Primary sort key of a dictionary, which is compared before the text. Addresses are ordered by number, whatever their
/// notation, so that the addresses of a network are adjacent; other text follows the addresses.
pub(super) fn place_of(column: Column, value: &str) -> u128 {
    if column != Column::Ip {
        return 0;
    }
    value.parse::<IpAddr>().map_or(u128::MAX, number_of)
}

pub(super) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Computes a 64-bit FNV-1a hash and combines its two halves into 32 bits.
pub(super) fn short_hash(value: &str) -> u32 {
    let hash = value
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32) as u32 ^ hash as u32
}
