//! Rows on their way to a destination, and errors of sending them.

/// Why it did not work, for the person who has to fix it. What was sent and not confirmed is sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SinkError(pub(super) String);

impl SinkError {
    pub(super) fn new(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {problem}"))
    }
}

/// Rows of one slice in the words of the destination.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Rows in it.
    pub(super) rows: u64,
    /// Rows that had to leave something out, and say so.
    pub(super) reduced: u64,
    /// First and last of them.
    pub(super) range: (u64, u64),
    pub(super) generation: String,
}

impl Batch {
    pub(super) fn followed_by(mut self, next: Self) -> Self {
        self.bytes.extend_from_slice(&next.bytes);
        self.rows += next.rows;
        self.reduced += next.reduced;
        self.range.1 = next.range.1;
        self
    }
}
