//! Since when and until when a node is a member of its cluster, and how long rows have to stay: what a cluster's administrators say, in the
//! roster of aggregators and in the trust file of verifiers.

use serde::{Deserialize, Serialize};

use piperoll_format::time::Timestamp;

/// Until when a node is expected to answer, and since when: half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// [`Timestamp::MIN`] means since ever: members of before the instants were kept.
    pub from: Timestamp,
    /// [`Timestamp::MAX`] means that it is still a member.
    pub until: Timestamp,
}

impl Life {
    pub const ALWAYS: Self = Self { from: Timestamp::MIN, until: Timestamp::MAX };

    /// Whether it has left by then.
    pub fn has_ended_by(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// Whether it was known as a member by then.
    pub fn has_begun_by(&self, now: Timestamp) -> bool {
        self.from <= now
    }

    /// Whether a half-open range reaches into it.
    pub fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        from < self.until && self.from < to
    }
}

/// One of a member's two instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instant {
    MemberFrom,
    MemberUntil,
}

impl Instant {
    /// The name of its field in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemberFrom => "member_from",
            Self::MemberUntil => "member_until",
        }
    }
}

/// An instant that was another one before. Who reads evidence sees it, because moving an instant changes who was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    pub instant: Instant,
    /// What it was; missing where it was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Timestamp>,
    /// When it was moved.
    pub at: Timestamp,
    pub reason: String,
}

impl Moved {
    /// For people.
    pub fn words(&self, node: &str) -> String {
        let was = self.was.map_or_else(|| "open before".to_owned(), |was| format!("{was} before"));
        format!("{} of {node} was moved at {} ({was}): {}", self.instant.as_str(), self.at, self.reason)
    }
}

/// How long rows have to stay, from some time on; an earlier policy holds until a later one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepPolicy {
    pub from: Timestamp,
    pub keep_days: u32,
}

impl KeepPolicy {
    /// The policy that held at some time.
    pub fn at(policies: &[Self], time: Timestamp) -> Option<Self> {
        policies.iter().filter(|policy| policy.from <= time).max_by_key(|policy| policy.from).copied()
    }
}
