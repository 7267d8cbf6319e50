//! Rows of an archive.

use std::fmt;

use bytes::Bytes;
use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::limits::MAC_BYTES;
use piperoll_format::merkle::{Hash, leaf_hash};
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One log: a node, and the generation of its database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    pub node_id: NodeId,
    pub generation: Generation,
}

impl LogId {
    /// Origin of the log's checkpoints: `cluster/node/generation`.
    pub fn origin(&self, cluster: &str) -> String {
        format!("{cluster}/{}/{}", self.node_id, self.generation)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node_id, self.generation)
    }
}

/// A row whose MAC, or whose erasure, was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedRow {
    pub seq: u64,
    pub era: u32,
    pub timestamp: Timestamp,
    pub content: Content,
}

/// Content of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Entry {
        /// Epoch of the MAC key.
        epoch: u32,
        body: Bytes,
        mac: [u8; MAC_BYTES],
    },
    /// The row was erased; only its leaf is left.
    Erased { leaf: Hash },
}

impl ArchivedRow {
    /// Leaf of the row in its log's tree.
    pub fn leaf(&self) -> Hash {
        match &self.content {
            Content::Entry { body, mac, .. } => leaf_hash(body, mac),
            Content::Erased { leaf } => *leaf,
        }
    }

    pub fn is_erased(&self) -> bool {
        matches!(self.content, Content::Erased { .. })
    }

    /// Copies the body, so that the row does not keep the memory of rows that were decoded together with it.
    #[must_use]
    pub fn detached(mut self) -> Self {
        if let Content::Entry { body, .. } = &mut self.content {
            *body = Bytes::copy_from_slice(body);
        }
        self
    }

    /// UTC day of the row.
    pub fn day(&self) -> Day {
        Day::of(self.timestamp)
    }

    /// Size of the row's bytes.
    pub fn bytes(&self) -> usize {
        match &self.content {
            Content::Entry { body, mac, .. } => body.len() + mac.len(),
            Content::Erased { leaf } => leaf.len(),
        }
    }
}

/// A UTC day, as the number of days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

impl Day {
    pub fn of(time: Timestamp) -> Self {
        Self(time.micros().div_euclid(DAY_MICROS))
    }

    /// First instant of the day.
    pub fn begin(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(DAY_MICROS))
    }

    /// First instant of the next day.
    pub fn end(self) -> Timestamp {
        Self(self.0 + 1).begin()
    }
}

/// `YYYY-MM-DD`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.begin().to_text();
        f.write_str(text.get(..10).unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        let at = |text: &str| Timestamp::parse_rfc3339(text).expect("a time");
        let day = Day::of(at("2026-11-27T23:59:59.999999Z"));
        assert_eq!(day.to_string(), "2026-11-27");
        assert_eq!(day.end(), at("2026-11-28T00:00:00Z"));
        assert_eq!(Day::of(day.end()).to_string(), "2026-11-28");
        assert_eq!(Day::of(at("1969-12-31T23:59:59Z")).to_string(), "1969-12-31");
    }
}
