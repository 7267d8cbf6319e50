//! Address of a row that only the archive still has.

use std::fmt;
use std::str::FromStr;

use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::merkle::Hash;
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A row that its node pruned, with what an entry about its erasure states: `NODE/GENERATION/SEQ/ERA/TIME/LEAF`, where the time is RFC 3339 and
/// the leaf hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedRowRef {
    pub node_id: NodeId,
    pub generation: Generation,
    pub seq: u64,
    pub era: u32,
    pub timestamp: Timestamp,
    pub leaf: Hash,
}

/// Reason why a text is not the address of an archived row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of an archived row; `piperoll archive row NODE/SEQ` prints it")]
pub struct ArchivedRowRefError(String);

impl fmt::Display for ArchivedRowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node_id, generation, seq, era, timestamp, leaf } = self;
        write!(f, "{node_id}/{generation}/{seq}/{era}/{timestamp}/{}", hex::encode(leaf))
    }
}

impl FromStr for ArchivedRowRef {
    type Err = ArchivedRowRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let parts: Vec<&str> = text.split('/').collect();
            let [node_id, generation, seq, era, timestamp, leaf] = parts.as_slice() else { return None };
            let mut hash = Hash::default();
            hex::decode_to_slice(leaf, &mut hash).ok()?;
            Some(Self {
                node_id: node_id.parse().ok()?,
                generation: generation.parse().ok()?,
                seq: seq.parse().ok()?,
                era: era.parse().ok()?,
                timestamp: Timestamp::parse_rfc3339(timestamp).ok()?,
                leaf: hash,
            })
        };
        // One form only, so that a row has one address.
        let row = parse().filter(|row: &Self| row.to_string() == text);
        row.ok_or_else(|| ArchivedRowRefError(text.to_owned()))
    }
}

impl Serialize for ArchivedRowRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ArchivedRowRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        let text = format!("mx1/{}/4711/2/2026-04-01T08:00:00.000000Z/{}", "0a".repeat(16), "ff".repeat(32));
        let row: ArchivedRowRef = text.parse().expect("an address");
        assert_eq!((row.to_string(), row.seq, row.era), (text.clone(), 4711, 2));
        for bad in [
            text.replace("4711", "+4711"),
            text.replace("4711", "04711"),
            text.replace(".000000Z", "Z"),
            text.replace("ff", "FF"),
            format!("{text}/"),
            text.replace("mx1/", ""),
            String::new(),
        ] {
            assert!(bad.parse::<ArchivedRowRef>().is_err(), "{bad}");
        }
    }
}
