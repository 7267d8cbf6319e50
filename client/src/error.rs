//! Why an entry could not be handed over.

use std::path::PathBuf;

use piperoll_shared::api::problem::Problem;

/// A failed call to the node's socket.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there; nothing was recorded.
    #[error("no node listens on {path}; start it, or name its socket")]
    Down { path: PathBuf },
    #[error("{path} may not be used by this user; join the socket's group or use sudo")]
    Permission { path: PathBuf },
    /// The node said why.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The connection broke after the request was sent: the entry may or may not be recorded. Send it again
    /// with the same id.
    #[error("the node did not answer ({0}); send the entry again with the same id")]
    Unknown(String),
    #[error("the node answered something unexpected: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Nobody was there to take it, so the directory may be used instead.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }
}
