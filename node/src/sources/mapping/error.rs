//! Errors in mappings, and errors while a record is mapped.

/// Maximum characters of a value that an error message shows.
const VALUE_CHARS_SHOWN: usize = 60;

/// Reason why a mapping cannot be used, or why a record cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("{0}")]
    Plain(String),
    /// A value that is not valid for its field.
    #[error("field `{field}`: {value:?} at {at} {problem}")]
    Value { field: &'static str, at: String, value: String, problem: String },
}

impl MapError {
    pub(super) fn plain(problem: impl Into<String>) -> Self {
        Self::Plain(problem.into())
    }

    pub(super) fn value(field: &'static str, at: &str, value: &str, problem: &str) -> Self {
        let value = value.chars().take(VALUE_CHARS_SHOWN).collect();
        Self::Value { field, at: at.to_owned(), value, problem: problem.to_owned() }
    }
}
