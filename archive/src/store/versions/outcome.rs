//! Results of deleting an object in all versions.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

/// Result of deleting an object in all versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// The store lists no version any more. `versions` were removed, delete markers included.
    All { versions: usize },
    /// The store had no version of the object.
    Nothing,
    /// `versions` of the object cannot be deleted yet. All others were.
    Locked { versions: usize, lock: Lock },
    /// The object is deleted, but the store keeps `versions` that an administrator of the store can restore (soft delete). They are
    /// erased by the store at `until`, if it says when.
    Recoverable { versions: usize, until: Option<DateTime<Utc>> },
    /// The store has no list of versions, so it is not known whether all were deleted. Nothing was deleted.
    CannotList { reason: String },
}

impl Deleted {
    /// Why content of the object is left, and until when, if the store says when. Missing if nothing is left.
    #[must_use]
    pub fn remaining(&self) -> Option<(Option<DateTime<Utc>>, String)> {
        match self {
            Self::All { .. } | Self::Nothing => None,
            Self::Locked { versions, lock } => {
                Some((lock.until, format!("{lock} protects {versions} of its versions")))
            }
            Self::Recoverable { versions, until } => {
                let reason = format!("the store's soft delete keeps {versions} of its versions, which can be restored");
                Some((*until, reason))
            }
            Self::CannotList { reason } => Some((None, format!("the store offers no list of versions: {reason}"))),
        }
    }
}

/// Reason why a store refuses to delete a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub mode: LockMode,
    /// Time until which the lock holds. Missing for a hold, and if the store does not say.
    pub until: Option<DateTime<Utc>>,
}

/// Kinds of locks, by who can lift them. The order is by strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// An operator with a special right can lift it: `GOVERNANCE` on S3, an unlocked policy on Azure, `Unlocked` on Google.
    Governance,
    /// A policy of the whole bucket or container; the store does not say whether it can be lifted.
    Policy,
    /// No operator can lift it: `COMPLIANCE` on S3, a locked policy on Azure, `Locked` on Google.
    Compliance,
    /// A hold without an end: a legal hold on S3 and Azure, a temporary or event-based hold on Google.
    Hold,
}

impl Lock {
    /// The lock that is the last to end: a hold, or the later date.
    pub(super) fn or_longer(self, other: Self) -> Self {
        let rank = |lock: &Self| (lock.mode == LockMode::Hold, lock.until.is_none(), lock.until, lock.mode);
        if rank(&self) >= rank(&other) { self } else { other }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            LockMode::Governance => "a governance lock",
            LockMode::Policy => "a retention policy",
            LockMode::Compliance => "a compliance lock",
            LockMode::Hold => "a hold",
        })?;
        match self.until {
            Some(until) => write!(f, " until {}", until.to_rfc3339_opts(SecondsFormat::Secs, true)),
            None => f.write_str(" without a known end"),
        }
    }
}

/// A version as a store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) kind: Kind,
    /// The store's identifier; empty for [`Kind::Current`] in a store that does not number versions.
    pub(super) id: String,
    /// Lock that the list mentions, if the store lists locks.
    pub(super) lock: Option<Lock>,
    pub(super) state: State,
}

/// Whether a version was deleted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live,
    /// Soft-deleted: it can be restored until the store erases it. The time is missing if the store does not say.
    SoftDeleted {
        until: Option<DateTime<Utc>>,
    },
}

/// Kinds of versions. Azure deletes each in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Snapshot,
    Version,
    /// The version that a request without a version addresses. Azure does not delete it by its identifier.
    Current,
}

/// List of the versions of one object.
pub(super) enum Listing {
    Versions(Vec<Version>),
    /// The store offers no such list.
    Unsupported(String),
}

/// Result of deleting one version.
pub(super) enum Removal {
    /// Gone, or gone already.
    Removed,
    /// Became a version that the next list shows.
    Demoted,
    Locked(Lock),
    /// Remains soft-deleted; the store erases it at the given time.
    Kept {
        until: Option<DateTime<Utc>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_lock_counts() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0);
        let lock = |mode, until| Lock { mode, until };
        let (early, late) = (lock(LockMode::Compliance, at(1)), lock(LockMode::Governance, at(2)));
        let (hold, open) = (lock(LockMode::Hold, None), lock(LockMode::Policy, None));
        assert_eq!(early.clone().or_longer(late.clone()), late);
        assert_eq!(late.clone().or_longer(open.clone()), open);
        assert_eq!(open.or_longer(hold.clone()), hold);
        assert_eq!(hold.clone().or_longer(early.clone()), hold);
        assert_eq!(early.to_string(), "a compliance lock until 1970-01-01T00:00:01Z");
        assert_eq!(hold.to_string(), "a hold without a known end");
        let (until, reason) = Deleted::Locked { versions: 2, lock: early }.remaining().expect("something is left");
        assert_eq!(
            (until, reason.as_str()),
            (at(1), "a compliance lock until 1970-01-01T00:00:01Z protects 2 of its versions")
        );
        assert_eq!(Deleted::All { versions: 1 }.remaining(), None);
    }
}
