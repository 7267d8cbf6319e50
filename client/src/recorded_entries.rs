//! Keeps entries in memory, for tests of applications.

use std::sync::{Arc, Mutex, PoisonError};

use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::Receipt;
use serde_json::Value;

use super::outcome::Emitted;

/// Entries that were emitted through a recorder that keeps them in memory.
#[derive(Debug, Clone, Default)]
pub struct RecordedEntries(Arc<Mutex<Vec<Value>>>);

impl RecordedEntries {
    /// Returns all entries so far, as they would have been sent: checked, and with their secrets masked.
    pub fn entries(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets all entries.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn take(&self, id: EntryId, text: &str, now: Timestamp) -> Emitted {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(serde_json::from_str(text).unwrap_or_default());
        let seq = entries.len() as u64 - 1;
        let node_id = "captured".parse().expect("a constant name");
        Emitted::Recorded(Receipt { node_id, seq, timestamp: now, id, signature: String::new() })
    }
}
