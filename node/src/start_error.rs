//! Errors that keep a node from starting.

use piperoll_net::tls::TlsError;

use crate::sinks::OffsetError;
use crate::sources::IntakeError;
use crate::store::OpenError;

/// Reason why a node did not start. The node recorded nothing in this case.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "the certificate names {found}, but this node is {expected}; copy the folder that was created for this node"
    )]
    Identity { found: String, expected: String },
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error(transparent)]
    Forward(#[from] OffsetError),
    #[error("cannot listen on {place}: {source}")]
    Listen { place: String, source: std::io::Error },
}
