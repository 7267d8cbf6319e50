//! Errors of the cluster authority.

use std::path::{Path, PathBuf};

/// Reason why the authority refused an operation. Unless the message states otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0} already exists and will not be overwritten; choose another directory or move it away")]
    Exists(PathBuf),
    #[error("{0} is not a cluster directory; create one with `piperoll cluster init`")]
    NotACluster(PathBuf),
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
    #[error("{0} is already a member; use `renew` for a new certificate")]
    MemberExists(String),
    #[error("no such member: {0}; `members.json` lists all members")]
    NoMember(String),
    #[error(
        "{0:?} is not an address; write HOST:PORT, such as mx1.example.org:7443 (a non-ASCII name in its xn-- form)"
    )]
    Address(String),
    #[error("{0}")]
    Keys(String),
    #[error("cannot issue the certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("cannot get random bytes from the operating system: {0}")]
    Random(getrandom::Error),
}

pub(crate) type Result<T> = std::result::Result<T, CertsError>;

pub(crate) fn io(path: &Path, source: std::io::Error) -> CertsError {
    CertsError::Io { path: path.to_owned(), source }
}
