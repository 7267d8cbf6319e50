//! Errors of recording.

use piperoll_protocol::problem::Problem;

/// A failed call to the node's socket.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there; nothing was recorded.
    #[error("no node listens on {place}; start it, or set its socket")]
    Down { place: String },
    #[error("permission denied for {place}; join the socket's group or use sudo")]
    Permission { place: String },
    /// The node said why.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The connection broke after the request was sent: the entry may or may not be recorded. Send it again
    /// with the same id.
    #[error("the node did not answer ({0}); send the entry again with the same ID")]
    Unknown(String),
    #[error("unexpected answer from the node: {0}")]
    Protocol(String),
}

impl ClientError {
    /// It may go better later, and sending the same entry again does no harm.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused(problem) => is_passing_status(problem.status),
            // Transient: an operator can start the node or remove the obstacle.
            _ => true,
        }
    }

    /// Nobody was there to take it, so the directory may be used instead.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }
}

/// Nothing is wrong with the entry: the node cannot take it now.
pub(crate) fn is_passing_status(status: u16) -> bool {
    matches!(status, 401 | 408 | 425 | 429 | 500..=599)
}
