//! Records that sources pass to the pipeline.

use std::sync::{Arc, Mutex};

use piperoll_format::limits::CALLER_ENTRY_BYTES_MAX;
use tokio::sync::mpsc;

use super::mark::Mark;

/// Longest record; what is longer is cut there and said to be.
pub(super) const RECORD_BYTES_MAX: usize = CALLER_ENTRY_BYTES_MAX;

/// What a source hands over.
pub(super) struct Record {
    /// JSON, or whatever was found.
    pub(super) text: Vec<u8>,
    /// Of a record that is longer than one may be, `text` is the beginning.
    pub(super) cut: Option<Cut>,
    /// Where it stands, so that the same record gets the same id; none for what comes only once.
    pub(super) place: Option<String>,
    /// The same, as an earlier version of Piperoll wrote it: what was recorded under it is the same record.
    pub(super) earlier_place: Option<String>,
    /// What is kept once it is recorded.
    pub(super) mark: Option<Mark>,
}

/// Length and hash of a record that was too long to be kept whole.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// What goes from a source to the pipeline.
pub(super) enum Heard {
    Record(Record),
    /// Where reading begins, before anything was read.
    Place(Mark),
    /// Records that are known to be lost; none when nobody can say how many.
    Lost {
        count: Option<u64>,
        cause: String,
    },
}

pub(super) type Heards = mpsc::Sender<Heard>;
pub(super) type Shared<T> = Arc<Mutex<T>>;
