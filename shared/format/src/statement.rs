//! What a node says about its own log, in entries that verifiers act on (docs/format.md, "Entries by the node itself").
//!
//! Only the node writes `via: node`; no caller's entry can say any of this.

use serde::{Deserialize, Serialize};

use crate::entry::{CallerEntry, NODE_CATEGORY, Prefix, lifecycle};
use crate::ids::Generation;
use crate::merkle::{Hash, decode_hash, encode_hash};
use crate::time::Timestamp;
use crate::view::EntryView;

/// How every entry by the node itself ends; cheaper to look for than any field.
const OWN_ENDING: &[u8] = b",\"via\":\"node\"}";

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Pruned(Pruned),
    PruneFinished(PruneFinished),
    Erased(Erased),
    KeyRotated(KeyRotated),
    HoldAdded(Hold),
    HoldReleased(HoldRelease),
    TimesConfirmed(TimesConfirmed),
}

/// Rows below a place are about to go. It stands in the log, and is witnessed, before the first of them is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Where the log began before.
    pub from_seq: u64,
    /// The first row that stays; a multiple of 256.
    pub to_seq: u64,
    /// Epoch, era and time of the last row that goes: what a check of the rest goes on from.
    pub epoch: u32,
    pub era: u32,
    pub last_timestamp: Timestamp,
    /// The newest time of any row that goes or went before, in whatever era and log.
    pub newest: Timestamp,
    /// Root of the first `to_seq` rows.
    #[serde(with = "hash_text")]
    pub root: Hash,
    /// Why: the policy, or who asked.
    pub policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveDigest>,
    /// The oldest checkpoint that a witness cosigned with all of the rows that go, as far as the node kept one: it shows for how long they
    /// had been witnessed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<String>,
    /// The logs that this one took the place of and that went with its first rows, in this prune or in one before. Missing in entries of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierPruned>,
}

/// A log that another one took the place of, and that is removed whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierPruned {
    pub generation: Generation,
    /// How many rows it had, pruned ones included.
    pub rows: u64,
    /// The newest time of what was recorded in it after it was put aside, such as an erasure; none where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Timestamp>,
}

/// The file that the rows were written to before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveDigest {
    pub name: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// The rows that were stated as pruned are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneFinished {
    pub to_seq: u64,
    pub rows: u64,
    /// What the database's file shrank by.
    pub bytes_freed: u64,
}

/// One row was emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    pub seq: u64,
    /// Its place in the tree stays; this is the hash that stands there.
    #[serde(with = "hash_text")]
    pub leaf: Hash,
    pub era: u32,
    pub timestamp: Timestamp,
    pub reason: String,
    /// Who asked for it, such as `uid=0`.
    pub by: String,
}

/// A new secret seals from here on. The last row under the old secret says so, and the first one under the new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotated {
    pub from_epoch: u32,
    pub epoch: u32,
    /// The first row under `epoch`.
    pub first_seq: u64,
}

/// Rows of a time range are kept, whatever the policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub name: String,
    /// Half-open.
    pub from: Timestamp,
    pub to: Timestamp,
    pub reason: String,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRelease {
    pub name: String,
    pub reason: String,
    pub by: String,
}

/// An operator answers for the times of rows that no witness had seen before the node counted how long rows are witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimesConfirmed {
    /// Automatic retention goes by their own times for the rows below this one.
    pub to_seq: u64,
    pub reason: String,
    pub by: String,
}

mod hash_text {
    use super::{Hash, decode_hash, encode_hash};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_hash(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode_hash(&text).ok_or_else(|| D::Error::custom("not base64 of 32 bytes"))
    }
}

/// `log.pruned` has two stages under one action.
#[derive(Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
enum PruneStage {
    Begun(Pruned),
    Finished(PruneFinished),
}

impl Statement {
    /// Reads a body whose place or mac is checked; `None` for every entry that is none of these.
    pub fn read(body: &[u8]) -> Option<Self> {
        if !body.ends_with(OWN_ENDING) {
            return None;
        }
        let view = EntryView::parse(body)?;
        if view.category.as_deref() != Some(NODE_CATEGORY) {
            return None;
        }
        let details = view.details?.get();
        match view.action.as_deref()? {
            "log.pruned" => match serde_json::from_str(details).ok()? {
                PruneStage::Begun(pruned) => Some(Self::Pruned(pruned)),
                PruneStage::Finished(finished) => Some(Self::PruneFinished(finished)),
            },
            "log.erased" => serde_json::from_str(details).ok().map(Self::Erased),
            "log.key_rotated" => serde_json::from_str(details).ok().map(Self::KeyRotated),
            "log.hold_added" => serde_json::from_str(details).ok().map(Self::HoldAdded),
            "log.hold_released" => serde_json::from_str(details).ok().map(Self::HoldReleased),
            "log.times_confirmed" => serde_json::from_str(details).ok().map(Self::TimesConfirmed),
            _ => None,
        }
    }

    /// The entry that says it.
    pub fn to_entry(&self) -> CallerEntry {
        let json = |value: Result<serde_json::Value, _>| value.unwrap_or_default();
        let (action, words, details) = match self {
            Self::Pruned(pruned) => (
                "log.pruned",
                "the rows below `to_seq` are pruned as soon as a witness has seen this",
                json(serde_json::to_value(PruneStage::Begun(pruned.clone()))),
            ),
            Self::PruneFinished(finished) => (
                "log.pruned",
                "the rows below `to_seq` are gone",
                json(serde_json::to_value(PruneStage::Finished(finished.clone()))),
            ),
            Self::Erased(erased) => {
                ("log.erased", "the content of one row was erased", json(serde_json::to_value(erased)))
            }
            Self::KeyRotated(rotated) => {
                ("log.key_rotated", "a new secret seals from `first_seq` on", json(serde_json::to_value(rotated)))
            }
            Self::HoldAdded(hold) => {
                ("log.hold_added", "rows of this time range are kept", json(serde_json::to_value(hold)))
            }
            Self::HoldReleased(release) => {
                ("log.hold_released", "a hold does not keep rows any more", json(serde_json::to_value(release)))
            }
            Self::TimesConfirmed(confirmed) => (
                "log.times_confirmed",
                "an operator answers for the times of the rows below `to_seq`",
                json(serde_json::to_value(confirmed)),
            ),
        };
        lifecycle(action, words, &details)
    }
}

/// The action of the entry that a log begins with which took the place of another one. It is older than the statements above, and is
/// written as an entry of the log's life.
pub const GENERATION_BEGUN: &str = "log.generation_begun";

/// What that entry says of the log before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub generation: Option<String>,
    /// Rows under the newest checkpoint that was signed, and under the newest that a witness cosigned, where that could be read.
    pub signed_rows: Option<u64>,
    pub witnessed_rows: Option<u64>,
    /// Rows that were in it, signed or not, where it could be read. Missing in entries of earlier versions.
    pub rows: Option<u64>,
    pub at: Timestamp,
}

impl Begun {
    /// `None` when a row is no such entry of the node itself.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Details {
            previous: Previous,
        }
        #[derive(Deserialize)]
        struct Previous {
            generation: Option<String>,
            signed_rows: Option<u64>,
            witnessed_rows: Option<u64>,
            rows: Option<u64>,
        }
        let view = EntryView::parse(body)?;
        if view.action.as_deref() != Some(GENERATION_BEGUN) || view.via != "node" {
            return None;
        }
        let Details { previous } = serde_json::from_str(view.details?.get()).ok()?;
        let Previous { generation, signed_rows, witnessed_rows, rows } = previous;
        Some(Self { generation, signed_rows, witnessed_rows, rows, at: Prefix::parse(body)?.timestamp })
    }

    /// Whether the log before it is known to have had no rows.
    pub fn was_empty(&self) -> bool {
        self.signed_rows == Some(0) && self.witnessed_rows.max(self.rows).unwrap_or_default() == 0
    }

    /// How many rows the log before it must have for nothing of it to be missing; none where that is not known.
    pub fn rows_before(&self) -> Option<u64> {
        self.rows.map(|rows| rows.max(self.signed_rows.max(self.witnessed_rows).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Stamp, write_body};
    use crate::ids::NodeId;

    fn body(statement: &Statement, via: &str) -> String {
        let node_id: NodeId = "mx1".parse().expect("a node id");
        let stamp = Stamp {
            node_id: &node_id,
            generation: &Generation::from_bytes([7; 16]),
            seq: 42,
            era: 0,
            salt: [9; 16],
            timestamp: Timestamp::from_micros(1),
            id: "0198c0de-0000-7000-8000-000000000001".parse().expect("an id"),
            via,
        };
        write_body(&stamp, &statement.to_entry(), "").expect("a body")
    }

    #[test]
    fn what_is_written_is_read_and_only_from_the_node() {
        let time = Timestamp::from_micros(7);
        let (by, reason) = ("uid=0".to_owned(), "art. 17".to_owned());
        let archive = Some(ArchiveDigest { name: "a.tar".to_owned(), sha256: "00".to_owned() });
        for statement in [
            Statement::Pruned(Pruned {
                from_seq: 0,
                to_seq: 256,
                epoch: 1,
                era: 2,
                last_timestamp: time,
                newest: time,
                root: [3; 32],
                policy: "365 days".to_owned(),
                archive,
                witnessed: Some("a note".to_owned()),
                earlier: vec![EarlierPruned {
                    generation: Generation::from_bytes([8; 16]),
                    rows: 3,
                    added: Some(time),
                }],
            }),
            Statement::PruneFinished(PruneFinished { to_seq: 256, rows: 256, bytes_freed: 4_096 }),
            Statement::Erased(Erased {
                seq: 3,
                leaf: [4; 32],
                era: 0,
                timestamp: time,
                reason: reason.clone(),
                by: by.clone(),
            }),
            Statement::KeyRotated(KeyRotated { from_epoch: 0, epoch: 1, first_seq: 9 }),
            Statement::HoldAdded(Hold {
                name: "h".to_owned(),
                from: time,
                to: Timestamp::MAX,
                reason: reason.clone(),
                by: by.clone(),
            }),
            Statement::HoldReleased(HoldRelease { name: "h".to_owned(), reason, by }),
        ] {
            assert_eq!(Statement::read(body(&statement, "node").as_bytes()), Some(statement.clone()));
            assert_eq!(Statement::read(body(&statement, "cli").as_bytes()), None);
        }
    }
}
