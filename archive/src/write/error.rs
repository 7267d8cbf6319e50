//! Errors of the writer.

use std::path::PathBuf;

use piperoll_format::note::NoteError;
use piperoll_format::time::Timestamp;

use super::state::{AlarmKind, StateError};
use crate::file::EncodeError;
use crate::history::HistoryError;
use crate::record::RecordError;
use crate::store::{ProbeError, StoreError};

/// Reasons why a step was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot sign a record of the archive: {0}")]
    Note(#[from] NoteError),
    #[error("cannot use the local directory {}: {error}", path.display())]
    Local { path: PathBuf, error: std::io::Error },
    #[error(
        "{kind} of the archive: {reason} (since {since}). If you know the cause, accept the archive as it is now with `piperoll archive accept`"
    )]
    Alarm { kind: AlarmKind, reason: String, since: Timestamp },
    #[error(
        "{name} was written by {writer}, not by this writer ({own}). An archive has one writer; stop the other one. If it no longer exists, \
         take over with `piperoll archive accept`"
    )]
    AnotherWriter { name: String, writer: String, own: String },
    #[error(
        "this writer has no record of the archive at {0}, which has steps already; check it, then take over with `piperoll archive accept`"
    )]
    Unknown(String),
    #[error("another process uses {}; stop the aggregator, or wait until its round has ended", .0.display())]
    Locked(PathBuf),
    #[error("{name} exists already with other content; it was not written by this archive's writer")]
    OtherContent { name: String },
    #[error("{name} was committed by an earlier attempt; the next round continues from it")]
    CommittedBefore { name: String },
    #[error("step {0} has too many runs of rows to be described; this is a defect, please report it")]
    TooManyRuns(u64),
    #[error("{name} does not read back as it was written")]
    ReadBack { name: String },
    #[error("{at} exists already and is another archive: {found}")]
    Exists { at: String, found: String },
}

impl WriteError {
    /// Whether the error says nothing about the steps: the store did not answer, or the chain of steps is in order.
    pub(super) fn is_no_finding(&self) -> bool {
        let is_silent = |error: &StoreError| matches!(error, StoreError::Failed { .. });
        match self {
            Self::Store(error) | Self::History(HistoryError::Store(error)) => is_silent(error),
            Self::AnotherWriter { .. } => true,
            _ => false,
        }
    }
}
