//! Reasons why rows of an archive cannot be read.

use crate::history::HistoryError;
use crate::record::RecordError;
use crate::store::StoreError;

/// Reasons why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The object is not what its step says: it was changed after it was archived.
    #[error("{name}: {reason}")]
    Changed { name: String, reason: String },
    #[error("{0} was replaced while it was read; repeat the request")]
    Replaced(String),
    #[error("{rows} were never archived")]
    NotArchived { rows: String },
    #[error("reading the archive was aborted")]
    Aborted,
}

impl ReadError {
    pub(super) fn changed(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::Changed { name: name.to_owned(), reason: reason.to_string().replace('\n', " ") }
    }

    /// Name of the object that is missing or changed.
    pub(super) fn object(&self) -> Option<&str> {
        match self {
            Self::Store(StoreError::Missing { name, .. }) | Self::Changed { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether the archive answered, and the answer contradicts its signed steps.
    pub fn is_violation(&self) -> bool {
        match self {
            Self::Store(StoreError::Missing { .. } | StoreError::TooLarge { .. })
            | Self::Changed { .. }
            | Self::Record(_) => true,
            Self::History(error) => !matches!(error, HistoryError::Store(_)),
            Self::Store(_) | Self::Replaced(_) | Self::NotArchived { .. } | Self::Aborted => false,
        }
    }
}
