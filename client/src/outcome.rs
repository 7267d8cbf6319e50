//! Outcome of an entry that was passed to a [`Recorder`](crate::Recorder).

use std::time::Duration;

use piperoll_format::entry::EntryError;
use piperoll_format::ids::EntryId;
use piperoll_protocol::node::Receipt;

use super::error::ClientError;
use super::spool::SpoolError;

/// Result of emitting an entry: where the entry is now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Emitted {
    /// On the node's disk.
    Recorded(Receipt),
    /// In this machine's spool; it will be recorded when the node accepts it.
    Spooled(EntryId),
    /// Dropped and counted; an entry in the log will state the count.
    Dropped,
}

/// Reason why an entry was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The entry breaks a rule of the format, so it can never be recorded.
    #[error("{0}")]
    Invalid(#[from] EntryError),
    /// The node refused the entry; nothing was recorded.
    #[error("not recorded: {0}")]
    Refused(ClientError),
    /// The policy is strict and the deadline has passed. If the last attempt was cut short, the entry may have been recorded
    /// nevertheless; it can be emitted again with the same ID.
    #[error("not recorded within {} ms: {problem}", deadline.as_millis())]
    Late {
        /// The recorder's deadline.
        deadline: Duration,
        /// Error of the last attempt.
        problem: String,
    },
    /// The entry could be neither recorded nor spooled, and was counted as lost.
    #[error("entry neither recorded nor spooled, counted as lost: {0}")]
    Lost(SpoolError),
    /// The recorder had already been closed.
    #[error("the recorder is closed")]
    Closed,
    /// The policy needs a spool; see [`Builder::spool`](crate::Builder::spool).
    #[error("this policy needs a spool, and the recorder has none")]
    NoSpool,
}
