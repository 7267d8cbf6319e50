//! Errors of the cluster authority.

use std::path::{Path, PathBuf};

/// Reason why the authority refused. Nothing was changed unless the message says so.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0} exists already and is not overwritten; choose another directory or move it away")]
    Exists(PathBuf),
    #[error("{0} is not a cluster directory; make one with `piperoll cluster init`")]
    NotACluster(PathBuf),
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
    #[error("{0} is a member already; use `renew` for a new certificate")]
    MemberExists(String),
    #[error("there is no member {0}; `members.json` lists them")]
    NoMember(String),
    #[error(
        "{0:?} is not an address; write HOST:PORT, such as mx1.example.org:7443 (a name with other letters in its xn-- form)"
    )]
    Address(String),
    #[error("{0}")]
    Keys(String),
    #[error("the certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

pub(crate) type Result<T> = std::result::Result<T, CertsError>;

pub(crate) fn io(path: &Path, source: std::io::Error) -> CertsError {
    CertsError::Io { path: path.to_owned(), source }
}
