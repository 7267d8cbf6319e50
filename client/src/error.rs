//! Errors of recording.

use piperoll_protocol::problem::Problem;

/// A failed call to the node.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No process listens on the socket or address; nothing was recorded.
    #[error("no node is listening on {place}; start the node, or correct this path or address")]
    Down {
        /// The socket's path, or the address.
        place: String,
    },
    /// The operating system refuses access to the socket.
    #[error("permission denied for {place}; join the socket's group or use sudo")]
    Permission {
        /// The socket's path.
        place: String,
    },
    /// The node refused the request and gave a reason.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The connection broke after the request was sent: the entry may or may not have been recorded. Send it again with the same
    /// ID.
    #[error("the node did not answer ({0}); send the entry again with the same ID")]
    Unknown(String),
    /// The answer, or a setting of this client, is malformed.
    #[error("unexpected answer from the node: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Whether a retry may succeed. Sending the same entry again is safe.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(problem) => is_transient_status(problem.status),
            // Transient: an operator can start the node or remove the obstacle.
            _ => true,
        }
    }

    /// Whether no node is listening, so that the log's directory may be used instead.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }
}

/// Whether the status means that the node cannot accept entries at the moment, regardless of their content.
pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 401 | 408 | 425 | 429 | 500..=599)
}
