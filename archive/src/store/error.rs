//! Errors of a store.

use std::path::PathBuf;

/// Reasons why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the archive at {address}: {reason}")]
    Open { address: String, reason: String },
    #[error("cannot create the directory {}: {error}", path.display())]
    Directory { path: PathBuf, error: std::io::Error },
    #[error(
        "unknown setting {0:?} in the file of credentials; use names such as aws_access_key_id, aws_secret_access_key, aws_endpoint, aws_region"
    )]
    Setting(String),
    #[error("{name} is missing from {store}")]
    Missing { name: String, store: String },
    #[error("access to {name} in {store} was denied: {reason}")]
    Denied { name: String, store: String, reason: String },
    #[error("{name} in {store} has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge { name: String, store: String, bytes: u64, bytes_max: u64 },
    #[error("cannot {what} {name} in {store}: {reason}")]
    Failed { what: &'static str, name: String, store: String, reason: String },
}

impl StoreError {
    pub(super) fn open(address: &str, error: &dyn std::error::Error) -> Self {
        Self::Open { address: address.to_owned(), reason: chain(error) }
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// Joins an error and its causes into one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
