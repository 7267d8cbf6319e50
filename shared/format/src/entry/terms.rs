//! Permitted values of an entry's fields, and reasons for refusing an entry.

use crate::json::JsonError;

/// Version of the body format, the field `v`.
pub const FORMAT_VERSION: u8 = 1;
/// Category of the node's own lifecycle entries; entries of callers with this category are refused.
pub const NODE_CATEGORY: &str = "log";
/// Categories that detection rules, SIEM formats and loss policies recognize. Any other word that [`is_category`] accepts is also
/// a category.
pub const CATEGORIES: [&str; 8] = ["auth", "user", "config", "data", "cluster", "security", "integration", "audit"];
pub const OUTCOMES: [&str; 4] = ["success", "failure", "denied", "unknown"];

/// Returns whether a word is a valid category: a lower-case ASCII letter followed by lower-case letters, digits, `_` and `-`. The
/// length is not checked here; it has the limit of all short words. `log` is valid too, but callers may not use it.
pub fn is_category(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
}

/// Reason why a caller's entry was refused. No part of a refused entry is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the entry is not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the entry is not valid UTF-8 from byte {0} on")]
    Utf8(usize),
    #[error("the entry does not match the schema: {0}")]
    Schema(String),
    #[error("field `{0}` is set by the node; omit it")]
    NodeField(&'static str),
    #[error("field `{field}`: {problem}")]
    Field { field: &'static str, problem: String },
    #[error("the entry is {bytes} bytes, more than the limit of {max}; shorten `details` or `changes`")]
    TooLarge { bytes: usize, max: usize },
    #[error("category `log` and actions `log.*` are reserved for the node itself; use another category and action")]
    Reserved,
}

impl EntryError {
    /// Returns whether the entry was refused because it uses something reserved for the node, not because it is malformed.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Reserved)
    }

    pub(super) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }
}
