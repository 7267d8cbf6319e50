//! State of a file at the last poll.

use std::time::Instant;

use super::family::FamilyFile;

/// State of a file at the last poll.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) length: u64,
    pub(super) modified: i64,
    /// Number of the life that it was matched with; `None` for a file that is not read.
    pub(super) number: Option<u64>,
    /// Since when it cannot be decompressed, why, and whether that was recorded in the log.
    pub(super) damaged: Option<(Instant, String, bool)>,
}

impl Seen {
    pub(super) fn new(member: &FamilyFile, number: Option<u64>) -> Self {
        Self { length: member.length, modified: member.modified, number, damaged: None }
    }
}
