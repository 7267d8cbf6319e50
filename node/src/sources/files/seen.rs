//! State of a file at the last poll.

use std::time::Instant;

use super::family::FamilyFile;

/// State of a file at the last poll.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) length: u64,
    pub(super) modified: i64,
    /// Number of the followed file with which this file was matched; `None` for a file that is not read.
    pub(super) number: Option<u64>,
    /// For a file that cannot be decompressed: the time at which this was found, the reason, and whether the loss was already
    /// recorded in the log.
    pub(super) damaged: Option<(Instant, String, bool)>,
}

impl Seen {
    pub(super) fn new(member: &FamilyFile, number: Option<u64>) -> Self {
        Self { length: member.length, modified: member.modified, number, damaged: None }
    }
}
