//! Records that sources pass to the pipeline.

use std::sync::{Arc, Mutex};

use piperoll_format::limits::CALLER_ENTRY_BYTES_MAX;
use tokio::sync::mpsc;

use super::mark::Mark;

/// Maximum bytes of a record; a longer record is truncated and marked as such.
pub(super) const RECORD_BYTES_MAX: usize = CALLER_ENTRY_BYTES_MAX;

/// A record that a source passes to the pipeline.
pub(super) struct Record {
    /// JSON, or any other text that was found.
    pub(super) text: Vec<u8>,
    /// Set if the record is too long; `text` is then its beginning.
    pub(super) cut: Option<Cut>,
    /// Position of the record in its source, from which its id is derived, so that a record that is read again gets the same
    /// id. `None` for a record that cannot be read again.
    pub(super) place: Option<String>,
    /// The same position in the form that an earlier version of Piperoll used. An entry that was recorded with the earlier form
    /// belongs to this record.
    pub(super) earlier_place: Option<String>,
    /// Position to store once the record is recorded.
    pub(super) mark: Option<Mark>,
}

/// Length and hash of a record that was too long to be kept in full.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Message from a source to the pipeline.
pub(super) enum SourceMessage {
    Record(Record),
    /// Position at which reading begins, sent before the first record.
    Offset(Mark),
    /// Records that are known to be lost; `count` is `None` if their number is unknown.
    Lost {
        count: Option<u64>,
        cause: String,
    },
}

pub(super) type MessageSender = mpsc::Sender<SourceMessage>;
pub(super) type Shared<T> = Arc<Mutex<T>>;
