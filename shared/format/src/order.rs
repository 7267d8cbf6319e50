//! Defines the order of entries: `(timestamp, node_id, seq)`.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::time::Timestamp;

/// Sort key of an entry among the entries of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub timestamp: Timestamp,
    pub node_id: NodeId,
    pub seq: u64,
}

/// Position in one node's rows: a [`Key`] without the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub timestamp: Timestamp,
    pub seq: u64,
}

impl Position {
    /// Returns the first position after this one.
    pub fn next(self) -> Self {
        Self { timestamp: self.timestamp, seq: self.seq.saturating_add(1) }
    }
}

/// Order of the entries in an answer: the oldest or the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    #[default]
    Desc,
}

impl Order {
    /// Returns whether `a` comes before `b` in this order.
    pub fn before<T: Ord>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Asc => a < b,
            Self::Desc => a > b,
        }
    }

    pub fn reversed(self) -> Self {
        match self {
            Self::Asc => Self::Desc,
            Self::Desc => Self::Asc,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}
