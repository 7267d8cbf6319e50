//! Errors of a log on disk, with advice for the operator.

use std::path::PathBuf;

use piperoll_format::entry::EntryError;

/// Reason why a log could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}; check that the directory exists and that this user can access it")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} belongs to uid {owner}, but this process runs as uid {me}; run it as that user (for example with `sudo -u '#{owner}'`) so that the files keep one owner"
    )]
    WrongOwner { path: PathBuf, owner: u32, me: u32 },
    #[error("{path} is in use by another process; stop the running node first, or append through its socket")]
    InUse { path: PathBuf },
    #[error(
        "{path} is missing, but {marker} shows that a log of this node exists here; restore the file, or move {marker} away to begin a new generation"
    )]
    Missing { path: PathBuf, marker: PathBuf },
    #[error(
        "{path} holds no entries, but {marker} shows that a log of this node exists here: the database was emptied; restore it, or move both files away to begin a new generation"
    )]
    Emptied { path: PathBuf, marker: PathBuf },
    #[error("{path} is the log of {found}, but {expected} is expected here; restore the right file")]
    Foreign { path: PathBuf, found: String, expected: String },
    #[error("{path} is the log of {found}, but {marker} names {expected}; restore whichever of the two files is wrong")]
    OtherGeneration { path: PathBuf, found: String, marker: PathBuf, expected: String },
    #[error("{path} is a database of another program; move it away, or give this node a directory of its own")]
    NotOurs { path: PathBuf },
    #[error("no log in {path}; start the node once, or specify the right directory")]
    NoLog { path: PathBuf },
    #[error(
        "{path} has format version {found}, but this program supports only versions up to {known}; upgrade Piperoll"
    )]
    Version { path: PathBuf, found: i64, known: i64 },
    #[error(
        "{path} is not a readable database ({source}); restore it from a backup, or move it and log.json away to begin a new generation"
    )]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("no secret is configured for this node; `secrets` needs at least epoch 0")]
    NoSecret,
}

/// Reason why an entry was not recorded. No part of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("the id {id} was already used for another entry (seq {seq}); use a new id, or send the same entry again")]
    Conflict { id: String, seq: u64 },
    #[error("the disk is full; free space and send the entry again")]
    DiskFull,
    #[error("the log cannot be written: {0}")]
    Fault(String),
    #[error("the node is stopping; send the entry again in a moment")]
    Stopping,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the tree cannot be read: {0}")]
    Tree(#[from] super::tiles::TreeError),
    #[error("the log is now generation {now}, but the request was made for {asked}")]
    Generation { now: String, asked: String },
    #[error("rows were pruned while they were being read; try again")]
    PrunedMeanwhile,
    #[error("invalid filter: {0}")]
    Filter(String),
    /// A bug in this program made the read panic. The thread was replaced, and `Health` counts the panic.
    #[error("the read failed unexpectedly; see the daemon's log (other reads are not affected)")]
    Panicked,
    #[error("the node is stopping")]
    Stopping,
}

/// Reason why a maintenance operation failed. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The operation is not allowed; the message contains the reason.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    NotFound(String),
    #[error(transparent)]
    Log(#[from] AppendError),
    #[error("the log cannot be read: {0}")]
    Read(String),
}

impl From<rusqlite::Error> for AdminError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error.to_string())
    }
}

impl From<super::tiles::TreeError> for AdminError {
    fn from(error: super::tiles::TreeError) -> Self {
        Self::Read(error.to_string())
    }
}

impl From<ReadError> for AdminError {
    fn from(error: ReadError) -> Self {
        Self::Read(error.to_string())
    }
}

/// Maximum bytes of UTF-8 in the reason for an erasure or a hold.
pub const REASON_BYTES_MAX: usize = 1_024;

pub(in crate::store) fn check_reason(reason: &str) -> Result<(), AdminError> {
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(AdminError::Refused(format!("the reason must be 1 to {REASON_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

/// Converts a message about an untrustworthy part of the log into an error.
pub(in crate::store) fn refused<T>(found: Result<T, String>) -> Result<T, AdminError> {
    found.map_err(|message| AdminError::Refused(format!("{message}; run `piperoll node verify`")))
}
