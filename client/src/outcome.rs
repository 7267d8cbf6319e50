//! Outcome of an entry that was handed to a [`Recorder`](crate::Recorder).

use piperoll_format::entry::EntryError;
use piperoll_format::ids::EntryId;
use piperoll_protocol::node::Receipt;

use super::error::ClientError;
use super::spool::SpoolError;
use std::time::Duration;

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emitted {
    /// It is on the node's disk.
    Recorded(Receipt),
    /// It is kept on this machine, and will be recorded.
    Kept(EntryId),
    /// It was dropped and counted; the log will say so.
    Dropped,
}

/// Why an entry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// It can never be recorded as it is; nothing was.
    #[error("{0}")]
    Invalid(#[from] EntryError),
    /// The node said why; nothing was recorded.
    #[error("not recorded: {0}")]
    Refused(ClientError),
    /// The policy is strict and time is up. If the last try was cut short the entry may be recorded nevertheless; with the same
    /// id it can be emitted again.
    #[error("not recorded within {} ms: {problem}", deadline.as_millis())]
    Late { deadline: Duration, problem: String },
    /// It could be neither recorded nor kept, and was counted as lost.
    #[error("lost and counted: {0}")]
    Lost(SpoolError),
    #[error("the recorder is closed")]
    Closed,
    #[error("this policy needs a spool, and the recorder has none")]
    NoFolder,
}
