//! The witness's conclusions: the verdict on one node, how a poll ended, and which rows a log lost.

use piperoll_format::time::Timestamp;
use piperoll_protocol::verdict::Verdict;

/// All verdicts of a witness. Metrics export one value for each.
pub(crate) const VERDICTS: [Verdict; 8] = [
    Verdict::Ok,
    Verdict::Unreachable,
    Verdict::Stale,
    Verdict::Rollback,
    Verdict::Fork,
    Verdict::RowInvalid,
    Verdict::FirstSeenAgain,
    Verdict::Unverifiable,
];

/// The witness's conclusion about one node's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WitnessStatus {
    /// One of `VERDICTS`.
    pub(crate) verdict: Verdict,
    /// Explanation of the verdict; `None` if it is `ok`.
    pub(crate) reason: Option<String>,
    /// Number of rows covered by the pinned checkpoint.
    pub(crate) size: Option<u64>,
    pub(crate) seen: Option<Timestamp>,
    /// Whether the verdict only means that this aggregator has not yet been able to check the node, for example shortly
    /// after a start. Such a verdict says nothing about the node, so a change to it is not recorded.
    pub(crate) is_pending: bool,
}

/// Reason why a node's checkpoint was not accepted although the checkpoint raises no alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The node could not be reached.
    Unreachable(String),
    /// The node presented no checkpoint, or one that could not be checked.
    Unverifiable(String),
    /// This aggregator is not ready yet to check the node's checkpoint; a later poll will check it.
    TooEarly(String),
}

impl From<String> for NotTaken {
    fn from(reason: String) -> Self {
        Self::Unverifiable(reason)
    }
}

impl WitnessStatus {
    /// Whether the verdict stays until an operator accepts it, regardless of the node's answers.
    pub(crate) fn is_held_against(&self) -> bool {
        self.is_alarm() || self.verdict == Verdict::RowInvalid
    }

    /// Whether the node's log is not the one that was witnessed.
    pub(crate) fn is_alarm(&self) -> bool {
        self.verdict.is_alarm()
    }
}

/// Rows of a queried range that the accepted log lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostHere {
    /// Lower bound for the times of the rows; `None` if unknown.
    pub(crate) oldest: Option<Timestamp>,
    /// Upper bound for the times of the rows.
    pub(crate) until: Timestamp,
    pub(crate) message: String,
}
