//! Hashes of a step: for every log, the compact range before and after its rows, the roots of the tiles that became full, and the
//! hashes that lead from the rows to the checkpoint.

use piperoll_format::merkle::{CompactRange, Hash, TILE_WIDTH, decode_hash, encode_hash};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::signed::RecordError;
use crate::row::LogId;

/// Maximum size of a step's hashes: 47 bytes for every 256 rows.
pub const TREE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The hashes of a step, in the order of its logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trees {
    pub logs: Vec<LogTree>,
}

/// Hashes of one log in one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogTree {
    pub log: LogId,
    pub from_seq: u64,
    pub to_seq: u64,
    /// Compact range of the rows before `from_seq`.
    #[serde(with = "hashes")]
    pub before: Vec<Hash>,
    /// Roots of the level-0 tiles that became full with these rows. The first one is that of the tile with `from_seq`.
    #[serde(with = "hashes")]
    pub tiles: Vec<Hash>,
    /// Compact range of the rows before `to_seq`.
    #[serde(with = "hashes")]
    pub after: Vec<Hash>,
    /// Hashes that cover the rows from `to_seq` to the end of the checkpoint; empty if the range ends with the checkpoint.
    #[serde(with = "hashes")]
    pub rest: Vec<Hash>,
}

impl LogTree {
    /// Index of the first of `tiles`.
    pub fn first_tile(&self) -> u64 {
        self.from_seq / TILE_WIDTH
    }

    /// Compact range before the rows; `None` if the number of hashes is wrong.
    pub fn before(&self) -> Option<CompactRange> {
        CompactRange::new(self.from_seq, self.before.clone())
    }

    /// Compact range after the rows.
    pub fn after(&self) -> Option<CompactRange> {
        CompactRange::new(self.to_seq, self.after.clone())
    }
}

impl Trees {
    /// Serializes the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the hashes. They are not signed; a step contains their digest.
    ///
    /// # Errors
    /// Fails if the bytes do not have the expected form.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        serde_json::from_slice(bytes).map_err(|error| RecordError::form(name, error))
    }
}

mod hashes {
    use super::{Deserialize, Deserializer, Hash, Serializer, decode_hash, encode_hash};
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(hashes: &[Hash], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(hashes.iter().map(encode_hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hash>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let decoded: Option<Vec<Hash>> = texts.iter().map(|text| decode_hash(text)).collect();
        decoded.ok_or_else(|| D::Error::custom("not base64 of 32 bytes"))
    }
}
