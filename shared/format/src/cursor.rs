//! Page cursor: everything that a later page needs, so that servers keep no state for clients.
//!
//! A cursor is opaque, versioned, authenticated and bound to the query. Because logs are append-only, the heads of all nodes at
//! the first page form a snapshot: later pages read only up to these heads, and new rows never shift a page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Generation, NodeId};
use crate::limits::CURSOR_BYTES_MAX;
use crate::order::Key;
use crate::time::Timestamp;

const VERSION: u8 = 1;
const MAC_LABEL: &[u8] = b"piperoll cursor v1";

/// Position of a client in a paged result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    v: u8,
    /// Hash of the filter and range as typed, the order and the caller's scope.
    query: String,
    /// Time at which the first page was read; ages in the filter are relative to this time on every page.
    pub asked_at: Timestamp,
    /// Absolute range, fixed at the first page.
    pub from: Timestamp,
    pub to: Timestamp,
    /// Key of the last row delivered or, with `back`, of the first one.
    pub last: Key,
    /// The snapshot: the newest row of each node at the first page.
    pub heads: Vec<Head>,
    /// Nodes that did not answer in full on some page so far. Later pages contain no rows from these nodes but still list them; rows of
    /// theirs that are in an archive may follow.
    pub incomplete: Vec<Incomplete>,
    /// Nodes whose archived rows could not be read for some page so far. Later pages contain no archived rows of these nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_archive: Vec<NodeId>,
    /// Version of the filter language in which the first page's filter was parsed; absent in cursors that predate version 2.
    #[serde(default = "filter_version_1", skip_serializing_if = "is_version_1")]
    pub filter_version: u32,
    /// Whether the cursor leads to the page before the row `last` instead of the page after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
}

/// Values that the first page fixes for all later pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub asked_at: Timestamp,
    pub from: Timestamp,
    pub to: Timestamp,
    pub heads: Vec<Head>,
    pub filter_version: u32,
}

fn filter_version_1() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_version_1(version: &u32) -> bool {
    *version == 1
}

/// A node's newest row when the first page was read; `None` for an empty log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub node_id: NodeId,
    pub generation: Generation,
    pub head_seq: Option<u64>,
}

/// A node that did not answer in full, with the message given at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    pub node_id: NodeId,
    /// The node's status at that time, as written in answers.
    pub status: String,
    pub reason: String,
}

/// Reasons why a cursor was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("the cursor is damaged or was not issued by this aggregator; start again without it")]
    Forged,
    #[error("the cursor belongs to another query; repeat the same filter, range and order, or start again without it")]
    OtherQuery,
}

impl Cursor {
    pub fn new(query: &QueryHash, snapshot: Snapshot, last: Key, incomplete: Vec<Incomplete>) -> Self {
        let Snapshot { asked_at, from, to, heads, filter_version } = snapshot;
        let query = query.0.clone();
        let without_archive = Vec::new();
        Self {
            v: VERSION,
            query,
            asked_at,
            from,
            to,
            last,
            heads,
            incomplete,
            without_archive,
            filter_version,
            back: false,
        }
    }

    /// Returns the cursor with the nodes whose archived rows later pages leave out.
    pub fn without_archive(self, nodes: Vec<NodeId>) -> Self {
        Self { without_archive: nodes, ..self }
    }

    /// Returns a cursor of the same snapshot for the page before the row `first`.
    pub fn back_from(self, first: Key) -> Self {
        Self { last: first, back: true, ..self }
    }

    pub fn encode(&self, key: &CursorKey) -> String {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        let mac = key.mac(&bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes a cursor after checking its authenticity, then checks that the cursor belongs to this query.
    pub fn decode(text: &str, key: &CursorKey, query: &QueryHash) -> Result<Self, CursorError> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(CursorError::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Forged)?;
        let split = bytes.len().checked_sub(32).ok_or(CursorError::Forged)?;
        let (body, mac) = bytes.split_at(split);
        if !key.verify(body, mac) {
            return Err(CursorError::Forged);
        }
        let cursor: Self = serde_json::from_slice(body).map_err(|_| CursorError::Forged)?;
        if cursor.v != VERSION || cursor.query != query.0 {
            return Err(CursorError::OtherQuery);
        }
        Ok(cursor)
    }
}

/// Identity of a query: a hash of everything that must be the same on every page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryHash(String);

impl QueryHash {
    /// Hashes `parts` (canonical filter, order, requested range, scope). Each part is prefixed with its length, so that
    /// different lists of parts cannot hash the same bytes.
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hex::encode(&hash.finalize()[..16]))
    }
}

/// The aggregator's own key for cursors. The key survives a restart, so cursors remain valid.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl CursorKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut block = zeroize::Zeroizing::new([0u8; 64]);
        block[..32].copy_from_slice(secret);
        Self(<Hmac<Sha256> as KeyInit>::new((&*block).into()))
    }

    fn state(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut state = self.0.clone();
        state.update(MAC_LABEL);
        state.update(body);
        state
    }

    fn mac(&self, body: &[u8]) -> [u8; 32] {
        self.state(body).finalize().into_bytes().into()
    }

    fn verify(&self, body: &[u8], mac: &[u8]) -> bool {
        self.state(body).verify_slice(mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(query: &QueryHash) -> Cursor {
        let node: NodeId = "mx1".parse().expect("a node");
        let last = Key { timestamp: Timestamp::from_micros(5), node_id: node.clone(), seq: 9 };
        let head = Head { node_id: node, generation: Generation::from_bytes([1; 16]), head_seq: Some(12) };
        let time = Timestamp::from_micros;
        let snapshot =
            Snapshot { asked_at: time(11), from: time(0), to: time(10), heads: vec![head], filter_version: 2 };
        Cursor::new(query, snapshot, last, vec![])
    }

    /// A cursor from before version 2 of the filter language continues in version 1.
    #[test]
    fn an_earlier_cursor_names_no_version() -> Result<(), CursorError> {
        let (query, key) = (QueryHash::of(&["q"]), CursorKey::new(&[1; 32]));
        let body =
            serde_json::to_string(&Cursor { filter_version: 1, ..cursor(&query) }).map_err(|_| CursorError::Forged)?;
        assert!(!body.contains("filter_version"), "{body}");
        let mut bytes = body.into_bytes();
        let mac = key.mac(&bytes);
        bytes.extend_from_slice(&mac);
        assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(bytes), &key, &query)?.filter_version, 1);
        assert_eq!(Cursor::decode(&cursor(&query).encode(&key), &key, &query)?.filter_version, 2);
        Ok(())
    }

    #[test]
    fn a_cursor_of_another_query_or_key_is_refused() {
        let (query, other) = (QueryHash::of(&["user:a", "desc"]), QueryHash::of(&["user:b", "desc"]));
        let key = CursorKey::new(&[1; 32]);
        let text = cursor(&query).encode(&key);
        assert_eq!(Cursor::decode(&text, &key, &query), Ok(cursor(&query)));
        assert_eq!(Cursor::decode(&text, &key, &other), Err(CursorError::OtherQuery));
        assert_eq!(Cursor::decode(&text, &CursorKey::new(&[2; 32]), &query), Err(CursorError::Forged));
        assert_ne!(QueryHash::of(&["ab", "c"]), QueryHash::of(&["a", "bc"]));
    }

    proptest! {
        #[test]
        fn any_changed_character_is_noticed(at in 0usize..300, to in "[A-Za-z0-9_-]") {
            let query = QueryHash::of(&["q"]);
            let key = CursorKey::new(&[3; 32]);
            let text = cursor(&query).encode(&key);
            let at = at % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(Cursor::decode(&changed, &key, &query).is_ok(), changed == text);
        }
    }
}
