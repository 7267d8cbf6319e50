//! Periods of membership of nodes and retention policies, as a cluster's administrators set them in the roster of aggregators and
//! in the trust file of verifiers.

use serde::{Deserialize, Serialize};

use piperoll_format::time::Timestamp;

/// Half-open period in which a node is expected to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Time at which the node joined. [`Timestamp::MIN`] if the node has always been a member, or joined before this time was
    /// recorded.
    pub from: Timestamp,
    /// Time at which the node left; [`Timestamp::MAX`] if the node is still a member.
    pub until: Timestamp,
}

impl Membership {
    pub const ALWAYS: Self = Self { from: Timestamp::MIN, until: Timestamp::MAX };

    /// Returns whether the node had left at or before `now`.
    pub fn has_ended_by(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// Returns whether the node had joined at or before `now`.
    pub fn has_begun_by(&self, now: Timestamp) -> bool {
        self.from <= now
    }

    /// Returns whether the half-open range `from..to` overlaps this period.
    pub fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        from < self.until && self.from < to
    }
}

/// One of the two instants at which a node's membership begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instant {
    MemberFrom,
    MemberUntil,
}

impl Instant {
    /// Returns the name of the instant's field in the roster and the trust file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemberFrom => "member_from",
            Self::MemberUntil => "member_until",
        }
    }
}

/// Record of a changed membership instant. A verdict lists the change as a note, because it affects which nodes were expected to
/// answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    pub instant: Instant,
    /// Previous value; `None` if the period was unlimited at this end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Timestamp>,
    /// Time of the change.
    pub at: Timestamp,
    pub reason: String,
}

impl Moved {
    /// Describes the change for people.
    pub fn describe(&self, node: &str) -> String {
        let was = self.was.map_or_else(|| "open before".to_owned(), |was| format!("{was} before"));
        format!("{} of {node} was moved at {} ({was}): {}", self.instant.as_str(), self.at, self.reason)
    }
}

/// Minimum time for which nodes keep entries, from a given time until the next policy takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepPolicy {
    pub from: Timestamp,
    pub keep_days: u32,
}

impl KeepPolicy {
    /// Returns the policy that was in effect at the given time.
    pub fn at(policies: &[Self], time: Timestamp) -> Option<Self> {
        policies.iter().filter(|policy| policy.from <= time).max_by_key(|policy| policy.from).copied()
    }
}
