//! Rows as returned to people and programs: the verbatim body and the result of its verification.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::entry::is_one_object;
use crate::statement::Erased;
use crate::time::Timestamp;
use crate::verify::Integrity;

/// One row of an API answer or an NDJSON line:
/// `{"entry":<body, verbatim>,"signature":"<hex mac>","integrity":"ok","witnessed":false}`.
///
/// A body that is not exactly one JSON object is written as a JSON string, even if its mac is valid. Its bytes are then shown in
/// full, but cannot end the line or begin another row in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    pub body: Cow<'a, [u8]>,
    pub mac: Cow<'a, [u8]>,
    pub integrity: Integrity,
    /// Whether a proof leads from the row to a checkpoint that a witness cosigned; otherwise the row is authenticated only by its mac.
    pub witnessed: bool,
    pub reason: Option<Cow<'a, str>>,
    /// Position of a row whose own bytes cannot be trusted, or were removed.
    pub found_at: Option<FoundAt>,
    /// Set for an erased row, which no longer has a body or a mac.
    pub erased: Option<Tombstone>,
    /// Whether only the position of the row is shown, because the row is not known to be within the client's scope.
    pub withheld: bool,
}

/// The retained facts about an erased row: when it was recorded, and the entry that says why it was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub entry_seq: u64,
    pub timestamp: Timestamp,
    pub reason: String,
}

impl Tombstone {
    /// Creates the tombstone of an erased row from `said`, the statement in the `log.erased` entry at `entry_seq`.
    pub fn of(said: &Erased, entry_seq: u64) -> Self {
        Self { entry_seq, timestamp: said.timestamp, reason: said.reason.clone() }
    }

    /// Returns a human-readable message about the erasure.
    pub fn describe(&self) -> String {
        format!("erased under entry {}: {}", self.entry_seq, self.reason)
    }
}

impl<'a> Row<'a> {
    /// Creates an erased row, for which only the fact that it existed can be shown.
    pub fn erased(node_id: &str, said: &Erased, entry_seq: u64, witnessed: bool) -> Self {
        let tombstone = Tombstone::of(said, entry_seq);
        Row {
            body: Cow::Borrowed(b""),
            mac: Cow::Borrowed(b""),
            integrity: Integrity::Erased,
            witnessed,
            reason: Some(tombstone.describe().into()),
            found_at: Some(FoundAt { node_id: node_id.to_owned(), seq: said.seq }),
            erased: Some(tombstone),
            withheld: false,
        }
    }

    /// Creates a withheld row: a client with a scope may only see that the row exists, and the result of its verification.
    pub fn withheld(place: FoundAt, integrity: Integrity, witnessed: bool) -> Self {
        Row {
            body: Cow::Borrowed(b""),
            mac: Cow::Borrowed(b""),
            integrity,
            witnessed,
            reason: Some(WITHHELD.into()),
            found_at: Some(place),
            erased: None,
            withheld: true,
        }
    }
}

const WITHHELD: &str = "withheld: the row is not known to be within your scope";

/// The node and seq that a row was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundAt {
    pub node_id: String,
    pub seq: u64,
}

impl Row<'_> {
    /// Appends the row's JSON, without a newline.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"entry\":");
        if self.erased.is_some() || self.withheld {
            out.extend_from_slice(b"null");
        } else if is_one_object(&self.body) {
            out.extend_from_slice(&self.body);
        } else {
            let text = String::from_utf8_lossy(&self.body);
            out.extend_from_slice(serde_json::to_string(text.as_ref()).unwrap_or_default().as_bytes());
        }
        out.extend_from_slice(b",\"signature\":\"");
        let digits = out.len();
        out.resize(digits + 2 * self.mac.len(), b'0');
        // The slice has exactly the required length; `hex::encode` would allocate a string for every row.
        let _ = hex::encode_to_slice(&self.mac, &mut out[digits..]);
        out.extend_from_slice(b"\",\"integrity\":\"");
        out.extend_from_slice(self.integrity.as_str().as_bytes());
        out.extend_from_slice(b"\",\"witnessed\":");
        out.extend_from_slice(if self.witnessed { b"true" } else { b"false" });
        if let Some(reason) = &self.reason {
            out.extend_from_slice(b",\"reason\":");
            out.extend_from_slice(serde_json::to_string(reason).unwrap_or_default().as_bytes());
        }
        if let Some(place) = &self.found_at {
            out.extend_from_slice(b",\"found_at\":");
            out.extend_from_slice(serde_json::to_string(place).unwrap_or_default().as_bytes());
        }
        if let Some(tombstone) = &self.erased {
            out.extend_from_slice(b",\"erased\":");
            out.extend_from_slice(serde_json::to_string(tombstone).unwrap_or_default().as_bytes());
        }
        if self.withheld {
            out.extend_from_slice(b",\"withheld\":true");
        }
        out.push(b'}');
    }
}

/// A row line as read back by the command line and by tests.
#[derive(Debug, Deserialize)]
pub struct RowLine<'a> {
    #[serde(borrow)]
    pub entry: &'a RawValue,
    pub signature: String,
    pub integrity: Integrity,
    pub witnessed: bool,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub found_at: Option<FoundAt>,
    #[serde(default)]
    pub erased: Option<Tombstone>,
    #[serde(default)]
    pub withheld: bool,
}

impl RowLine<'_> {
    /// Returns the row that the line was written from. A body that was not JSON is restored except for bytes that are not UTF-8.
    pub fn to_row(&self) -> Row<'_> {
        let body = match serde_json::from_str::<String>(self.entry.get()) {
            _ if self.erased.is_some() || self.withheld => Cow::Borrowed(&b""[..]),
            Ok(text) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(self.entry.get().as_bytes()),
        };
        Row {
            body,
            mac: hex::decode(&self.signature).unwrap_or_default().into(),
            integrity: self.integrity,
            witnessed: self.witnessed,
            reason: self.reason.as_deref().map(Cow::Borrowed),
            found_at: self.found_at.clone(),
            erased: self.erased.clone(),
            withheld: self.withheld,
        }
    }
}
