//! Entries that are being appended, and their outcome.

use std::sync::Arc;

use piperoll_detect::Flag;
use piperoll_format::entry::{CallerEntry, EntryError};
use piperoll_protocol::node::Receipt;
use piperoll_redact::Redactor;

use super::error::AppendError;

/// An entry to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub entry: CallerEntry,
    /// Route by which the entry arrived; becomes the field `via`.
    pub via: Arc<str>,
}

/// Outcome of a successful append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    New(Receipt),
    /// The same entry was recorded before under the same id; this is its original receipt.
    Duplicate(Receipt),
}

impl From<Appended> for Receipt {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::New(receipt) | Appended::Duplicate(receipt) => receipt,
        }
    }
}

/// Parses an entry and masks its secrets. An entry that could never be recorded is refused here, before it reaches the writer.
pub fn parse_new_entry(bytes: &[u8], via: &Arc<str>, redactor: &Redactor) -> Result<NewEntry, EntryError> {
    Ok(NewEntry { entry: redactor.parse_entry(bytes)?, via: Arc::clone(via) })
}

/// Outcome of one append.
pub(in crate::store) type AppendResult = Result<Appended, AppendError>;

/// Formats flags as stored in a body; returns an empty string if there are none.
pub(in crate::store) fn to_text(flags: &[Flag]) -> String {
    if flags.is_empty() { String::new() } else { serde_json::to_string(flags).unwrap_or_default() }
}
