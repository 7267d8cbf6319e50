//! Errors of the writer's transactions.

use super::integrator::IntegratorStopped;
use crate::store::table::error::AppendError;

/// Reason why a transaction failed. None of its rows are in the log.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum WriteError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The thread that builds the tree has ended.
    #[error(transparent)]
    Integrator(#[from] IntegratorStopped),
    #[error("node.toml has no secret for key epoch {0}")]
    NoSecret(u32),
    /// The tree in the database does not match the rows or the checkpoints; `Health` contains the reason.
    #[error("the stored tree cannot be extended")]
    NoTree,
    /// The schema of the database was changed while the database was open.
    #[error("the database's schema was changed: {0}")]
    Schema(String),
    #[error("the system returned no random bytes: {0}")]
    Random(getrandom::Error),
    /// An entry that the node wrote about itself is invalid. Its fields are bounded, so this is a bug.
    #[error("an entry that the node wrote about itself was refused: {0}")]
    OwnEntry(AppendError),
    /// The fresh ID of an entry that the node wrote about itself was used before.
    #[error("an entry that the node wrote about itself got an ID that was used before")]
    OwnDuplicate,
}
