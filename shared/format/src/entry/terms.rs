//! Values of an entry's fields, and reasons for refusing one.

use crate::json::JsonError;

/// Version of the body format, the field `v`.
pub const FORMAT_VERSION: u8 = 1;
/// Category of the node's own lifecycle entries; a caller who uses it is refused.
pub const NODE_CATEGORY: &str = "log";
/// The categories that rules, SIEM formats and loss policies know. Any other word that [`is_category`] accepts is a category too.
pub const CATEGORIES: [&str; 8] = ["auth", "user", "config", "data", "cluster", "security", "integration", "audit"];
pub const OUTCOMES: [&str; 4] = ["success", "failure", "denied", "unknown"];

/// Whether a word may be a category: a lower-case ASCII letter, then lower-case letters, digits, `_` and `-`. Its length is limited as
/// that of every short word. `log` is one, but no caller may use it.
pub fn is_category(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
}

/// Why a caller's entry was refused. Nothing of it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the entry is not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the entry is not valid UTF-8 from byte {0} on")]
    Utf8(usize),
    #[error("the entry does not fit the schema: {0}")]
    Schema(String),
    #[error("field `{0}` is set by the node; leave it out")]
    NodeField(&'static str),
    #[error("field `{field}`: {problem}")]
    Field { field: &'static str, problem: String },
    #[error("the entry is {bytes} bytes, more than the {max} that fit; shorten `details` or `changes`")]
    TooLarge { bytes: usize, max: usize },
    #[error("category `log` and actions `log.*` are written by the node itself only; use another category and action")]
    Reserved,
}

impl EntryError {
    /// Refused for what it tries, not for how it is written.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Reserved)
    }

    pub(super) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }
}
