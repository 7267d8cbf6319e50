//! Statements of a node about its own log, in entries that verifiers act on (docs/format.md, "Entries by the node itself").
//!
//! Only the node writes `via: node`, so no caller's entry can contain such a statement.

use serde::{Deserialize, Serialize};

use crate::entry::{CallerEntry, NODE_CATEGORY, Prefix, lifecycle};
use crate::ids::Generation;
use crate::merkle::{Hash, decode_hash, encode_hash};
use crate::time::Timestamp;
use crate::view::EntryView;

/// Last bytes of every entry by the node itself; cheaper to check than any field.
const OWN_ENDING: &[u8] = b",\"via\":\"node\"}";

/// A statement of a node about its own log.
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

/// States that the rows below `to_seq` will be pruned. This entry is recorded and witnessed before the first of these rows is
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Log start before the prune.
    pub from_seq: u64,
    /// First retained row; a multiple of 256.
    pub to_seq: u64,
    /// Epoch, era and time of the last pruned row, from which a check of the remaining rows continues.
    pub epoch: u32,
    pub era: u32,
    pub last_timestamp: Timestamp,
    /// Newest time of any row that is pruned now or was pruned earlier, in any era and log.
    pub newest: Timestamp,
    /// Tree root of the first `to_seq` rows.
    #[serde(with = "hash_text")]
    pub root: Hash,
    /// Reason for the prune: the policy, or the operator who requested it.
    pub policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveDigest>,
    /// Oldest cosigned checkpoint that covers all of the pruned rows, if the node kept one: it shows for how long the rows had been
    /// witnessed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<String>,
    /// Archived logs that this log replaced, directly or indirectly, and that were pruned together with its first rows, in this
    /// prune or in a previous one. Absent in entries of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierPruned>,
}

/// A log that was replaced by another one and is pruned as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierPruned {
    pub generation: Generation,
    /// Number of rows in the log, including pruned ones.
    pub rows: u64,
    /// Newest time of the entries recorded in the log after it was archived, such as an erasure; `None` if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Timestamp>,
}

/// Name and digest of the file that the rows were archived to before the prune.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveDigest {
    pub name: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// States that the rows announced by [`Pruned`] were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneFinished {
    pub to_seq: u64,
    pub rows: u64,
    /// Bytes by which the database file shrank.
    pub bytes_freed: u64,
}

/// States that the content of one row was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    pub seq: u64,
    /// Leaf hash of the erased row, which remains in the tree.
    #[serde(with = "hash_text")]
    pub leaf: Hash,
    pub era: u32,
    pub timestamp: Timestamp,
    pub reason: String,
    /// The requester, such as `uid=0`.
    pub by: String,
}

/// States that entries are sealed with a new secret from this point on. The last row under the old secret and the first row under
/// the new secret both contain this statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotated {
    pub from_epoch: u32,
    pub epoch: u32,
    /// Seq of the first row whose MAC uses the key of `epoch`.
    pub first_seq: u64,
}

/// A legal hold, which keeps the rows of a time range regardless of the retention policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub name: String,
    /// Beginning of the half-open time range.
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

/// States that an operator takes responsibility for the timestamps of rows that were recorded before the node began to count how
/// long rows have been witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimesConfirmed {
    /// For the rows below this seq, automatic retention uses their own timestamps.
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

/// The two stages of a prune, which share the action `log.pruned`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
enum PruneStage {
    Begun(Pruned),
    Finished(PruneFinished),
}

impl Statement {
    /// Reads the statement in a body; returns `None` if the body contains none. The caller must have checked the body's position
    /// or mac.
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

    /// Returns the entry that contains the statement.
    pub fn to_entry(&self) -> CallerEntry {
        let json = |value: Result<serde_json::Value, _>| value.unwrap_or_default();
        // The descriptions are signed with the entry and are part of frozen bundles, so their wording must never change.
        let (action, message, details) = match self {
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
        lifecycle(action, message, &details)
    }
}

/// Action of the first entry of a log that replaced another one. This action predates the statements above and is written as a
/// lifecycle entry.
pub const GENERATION_BEGUN: &str = "log.generation_begun";

/// Content of a `log.generation_begun` entry: facts about the previous log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub generation: Option<String>,
    /// Rows covered by the newest signed checkpoint, and by the newest one that a witness cosigned, if they could be read.
    pub signed_rows: Option<u64>,
    pub witnessed_rows: Option<u64>,
    /// Rows in the previous log, signed or not, if it could be read. Absent in entries of earlier versions.
    pub rows: Option<u64>,
    pub at: Timestamp,
}

impl Begun {
    /// Reads a `log.generation_begun` entry; returns `None` for other entries and for those that the node did not write itself.
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

    /// Returns whether the previous log is known to have had no rows.
    pub fn was_empty(&self) -> bool {
        self.signed_rows == Some(0) && self.witnessed_rows.max(self.rows).unwrap_or_default() == 0
    }

    /// Number of rows that the previous log must have to be complete; `None` if that is not known.
    pub fn rows_before(&self) -> Option<u64> {
        self.rows.map(|rows| rows.max(self.signed_rows.max(self.witnessed_rows).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{NodeFields, write_body};
    use crate::ids::NodeId;

    fn body(statement: &Statement, via: &str) -> String {
        let node_id: NodeId = "mx1".parse().expect("a node id");
        let stamp = NodeFields {
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
