//! The mask that replaces a secret, and how an application marks one.

/// What stands where a secret stood.
pub const MASK: &str = "***";

/// The only key of the object that stands for a value marked as secret by the application; never recorded, always masked.
pub const MARK: &str = "$piperoll_secret";

/// A name that would hide everything, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of a secret: write a key such as \"ssn\" or \"card_*\"")]
pub struct BadName(pub(super) String);

pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Texts and lists of texts cannot fail to serialise.
    serde_json::to_string(value).unwrap_or_default()
}
