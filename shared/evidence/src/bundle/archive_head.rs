//! The head of an archive of pruned rows.

use serde::{Deserialize, Serialize};

use piperoll_format::ids::{ClusterName, NodeId};

/// First line of an archive's head.
const FORMAT: &str = "piperoll archive v1";
/// Name of the first member of an archive. No bundle has a member of this name.
pub const ARCHIVE: &str = "archive";

/// Identity of an archive: its log and its range of rows. The head states it, and the other members imply the same identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveHead {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub generation: String,
    pub from_seq: u64,
    pub to_seq: u64,
}

impl ArchiveHead {
    /// Returns the bytes of the `archive` member.
    pub fn to_text(&self) -> String {
        format!("{FORMAT}\n{}\n", serde_json::to_string(self).unwrap_or_default())
    }

    pub(super) fn parse(member: &[u8]) -> Option<Self> {
        let json = std::str::from_utf8(member).ok()?.strip_prefix(FORMAT)?.trim();
        let head: Self = serde_json::from_str(json).ok()?;
        (head.to_text().as_bytes() == member).then_some(head)
    }
}
