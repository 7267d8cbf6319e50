//! A row as people and programs read it: the body verbatim, and beside it what was concluded.

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
/// Bytes that are not one JSON object are a JSON string there, whatever their mac says: they must not end the line or begin another
/// row in it, and nothing is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    pub body: Cow<'a, [u8]>,
    pub mac: Cow<'a, [u8]>,
    pub integrity: Integrity,
    /// A proof leads from it to a checkpoint that a witness cosigned; otherwise it is authenticated by its mac only.
    pub witnessed: bool,
    pub reason: Option<Cow<'a, str>>,
    /// Where a row was found whose own bytes cannot be believed, or are gone.
    pub found_at: Option<FoundAt>,
    /// Of an erased row, which has no body and no mac any more.
    pub erased: Option<Tombstone>,
    /// Nothing of it is shown but its place: it is not known to be within what the reader may see.
    pub withheld: bool,
}

/// What is left of an erased row: when it was recorded, and the entry that says why it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub entry_seq: u64,
    pub timestamp: Timestamp,
    pub reason: String,
}

impl Tombstone {
    /// `entry_seq` is the entry that says it.
    pub fn of(said: &Erased, entry_seq: u64) -> Self {
        Self { entry_seq, timestamp: said.timestamp, reason: said.reason.clone() }
    }

    /// For people.
    pub fn words(&self) -> String {
        format!("erased under entry {}: {}", self.entry_seq, self.reason)
    }
}

impl<'a> Row<'a> {
    /// A row that was erased: nothing of it can be shown but that it was there.
    pub fn erased(node_id: &str, said: &Erased, entry_seq: u64, witnessed: bool) -> Self {
        let tombstone = Tombstone::of(said, entry_seq);
        Row {
            body: Cow::Borrowed(b""),
            mac: Cow::Borrowed(b""),
            integrity: Integrity::Erased,
            witnessed,
            reason: Some(tombstone.words().into()),
            found_at: Some(FoundAt { node_id: node_id.to_owned(), seq: said.seq }),
            erased: Some(tombstone),
            withheld: false,
        }
    }

    /// A row of which a reader with a scope may only know that it is there, and what was concluded about it.
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

const WITHHELD: &str = "withheld: it is not known to be within what you may see";

/// The place a row was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundAt {
    pub node_id: String,
    pub seq: u64,
}

impl Row<'_> {
    /// Appends the row's JSON, without a line end.
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
        // The room is exactly what is needed; `encode` would make a text of its own for every row.
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

/// A row line read back, for the command line and for tests.
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
    /// The row that the line was made of. A body that was no JSON any more comes back as far as text can hold it.
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
