//! Rows encoded for a destination, and errors that occur while sending them.

/// Reason why sending failed, for the operator who has to fix it. Rows that were sent but not confirmed are sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SinkError(pub(super) String);

impl SinkError {
    pub(super) fn new(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {problem}"))
    }
}

/// Rows of one slice, encoded for the destination.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Number of rows in the batch.
    pub(super) rows: u64,
    /// Number of rows from which fields were omitted; each of these rows states what was omitted.
    pub(super) reduced: u64,
    /// Sequence numbers of the first and the last row.
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
