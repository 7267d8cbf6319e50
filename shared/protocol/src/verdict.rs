//! Verdicts on a node's log.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Verdict on a node's log as a whole. On the wire it is a word, such as `row_invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The log matches what was witnessed, and no problem was found in it.
    Ok,
    /// The node cannot be reached.
    Unreachable,
    /// The witness has not seen a new checkpoint for a while.
    Stale,
    /// The node signs fewer rows than were witnessed.
    Rollback,
    /// The node signs rows that differ from those that were witnessed.
    Fork,
    /// A row of the node failed verification.
    RowInvalid,
    /// The aggregator lost its state about the node.
    FirstSeenAgain,
    /// The node's checkpoint could not be checked.
    Unverifiable,
    /// Rows are sealed under a key that the aggregator does not have.
    UnknownKey,
    /// Rows of the range were pruned, as the policy allows.
    Pruned,
    /// Rows of the range were pruned, and there is no proof that the policy allowed it.
    PrunedUnshown,
    /// Rows of the range were pruned earlier than the policy allows.
    PrunedEarly,
    /// Rows of the range were in a log that has since been replaced.
    Superseded,
    /// The node left the cluster.
    Retired,
    /// A verdict that this version does not know.
    Other,
}

impl Verdict {
    /// Every verdict that has its own word on the wire.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::Unreachable,
        Self::Stale,
        Self::Rollback,
        Self::Fork,
        Self::RowInvalid,
        Self::FirstSeenAgain,
        Self::Unverifiable,
        Self::UnknownKey,
        Self::Pruned,
        Self::PrunedUnshown,
        Self::PrunedEarly,
        Self::Superseded,
        Self::Retired,
    ];

    /// Returns the verdict's word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Stale => "stale",
            Self::Rollback => "rollback",
            Self::Fork => "fork",
            Self::RowInvalid => "row_invalid",
            Self::FirstSeenAgain => "first_seen_again",
            Self::Unverifiable => "unverifiable",
            Self::UnknownKey => "unknown_key",
            Self::Pruned => "pruned",
            Self::PrunedUnshown => "pruned_unshown",
            Self::PrunedEarly => "pruned_early",
            Self::Superseded => "superseded",
            Self::Retired => "retired",
            Self::Other => "other",
        }
    }

    /// Whether the verdict means that the log is not the one that was witnessed.
    pub fn is_alarm(self) -> bool {
        matches!(self, Self::Rollback | Self::Fork)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads an unknown word as [`Verdict::Other`], so that an older client can read the answer of a newer aggregator.
impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|verdict| verdict.as_str() == word).unwrap_or(Self::Other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_unknown_ones_are_no_failure() {
        for verdict in Verdict::ALL {
            let word = serde_json::to_string(&verdict).expect("a word");
            assert_eq!(word, format!("\"{verdict}\""));
            assert_eq!(serde_json::from_str::<Verdict>(&word).expect("a verdict"), verdict);
        }
        assert_eq!(serde_json::from_str::<Verdict>("\"of_a_later_version\"").expect("any word"), Verdict::Other);
        assert!(serde_json::from_str::<Verdict>("7").is_err());
    }
}
