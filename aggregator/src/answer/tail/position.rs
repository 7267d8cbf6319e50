//! Position of a tail in each node's log, as text that clients send back.

use std::collections::BTreeMap;
use std::fmt;

use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::time::Timestamp;

use crate::cluster::roster::Cluster;

/// Maximum bytes of the text; enough for a thousand nodes with short names.
pub(crate) const POSITIONS_BYTES_MAX: usize = 128 * 1_024;

/// Position at which the tail of one node continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TailPosition {
    /// The row `next_seq` of the log `generation`.
    At { generation: Generation, next_seq: u64 },
    /// The first row recorded at or after this time; the node's log is not known yet.
    Since(Timestamp),
}

/// `mx1:<generation>:<next seq>` or `mx1@<microseconds since 1970>` for every node, with commas in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Positions(BTreeMap<NodeId, TailPosition>);

/// Error for text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid tail position; send the id of the last event")]
pub(crate) struct BadPosition(String);

impl Positions {
    pub(crate) fn parse(text: &str) -> Result<Self, BadPosition> {
        let bad = |part: &str| BadPosition(part.chars().filter(|c| !c.is_control()).take(80).collect());
        if text.len() > POSITIONS_BYTES_MAX {
            return Err(bad(text));
        }
        let mut places = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let place = parse_part(part).ok_or_else(|| bad(part))?;
            if places.insert(place.0, place.1).is_some() {
                return Err(bad(part));
            }
        }
        Ok(Self(places))
    }

    pub(crate) fn of(&self, node: &NodeId) -> Option<TailPosition> {
        self.0.get(node).copied()
    }

    /// Returns a node that has a position but is not in the roster.
    pub(crate) fn unknown(&self, cluster: &Cluster) -> Option<&NodeId> {
        let known = |id: &NodeId| cluster.members.iter().any(|member| &member.node.id == id);
        self.0.keys().find(|id| !known(id))
    }

    /// Applies the position changes of an event.
    pub(crate) fn follow(&mut self, changes: &[(NodeId, TailPosition)]) {
        for (node, place) in changes {
            self.set(node, *place);
        }
    }

    pub(crate) fn set(&mut self, node: &NodeId, place: TailPosition) {
        match self.0.get_mut(node) {
            Some(known) => *known = place,
            None => {
                self.0.insert(node.clone(), place);
            }
        }
    }
}

fn parse_part(part: &str) -> Option<(NodeId, TailPosition)> {
    if let Some((node, micros)) = part.split_once('@') {
        return Some((node.parse().ok()?, TailPosition::Since(Timestamp::from_micros(micros.parse().ok()?))));
    }
    let mut pieces = part.split(':');
    let node = pieces.next()?.parse().ok()?;
    let (generation, next_seq) = (pieces.next()?.parse().ok()?, pieces.next()?.parse().ok()?);
    pieces.next().is_none().then_some((node, TailPosition::At { generation, next_seq }))
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (node, place)) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match place {
                TailPosition::At { generation, next_seq } => write!(f, "{comma}{node}:{generation}:{next_seq}")?,
                TailPosition::Since(time) => write!(f, "{comma}{node}@{}", time.micros())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_text_and_back() -> Result<(), BadPosition> {
        let text = "mx1:000102030405060708090a0b0c0d0e0f:42,mx2@1776240000000000";
        assert_eq!(Positions::parse(text)?.to_string(), text);
        assert_eq!(Positions::parse("")?, Positions::default());
        for bad in ["mx1", "mx1:00:4", "mx1@x", "mx1@1,mx1@2", "mx1:000102030405060708090a0b0c0d0e0f:42:1", ":::"] {
            assert!(Positions::parse(bad).is_err(), "{bad}");
        }
        Ok(())
    }
}
