//! The mask that replaces a secret, and the key with which an application marks a value as secret.

/// Text that replaces a secret.
pub const MASK: &str = "***";

/// The only key of an object with which an application marks a value as secret. The object is always masked and never recorded.
pub const MARK: &str = "$piperoll_secret";

/// Error for a name that would mask everything or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid name to redact: use a key such as \"ssn\" or \"card_*\"")]
pub struct BadName(pub(super) String);

pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Serializing strings and lists of strings cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}
