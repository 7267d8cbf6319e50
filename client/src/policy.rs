//! Policies for entries that cannot be recorded immediately.

use std::collections::HashMap;
use std::time::Duration;

use super::entry::Category;

/// Default time limit for recording an entry, after which its policy applies.
pub(crate) const DEADLINE_DEFAULT: Duration = Duration::from_secs(2);

/// Policy for an entry that cannot be recorded immediately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeliveryPolicy {
    /// Emitting fails, and the operation should fail too.
    Strict,
    /// The entry is written to a synced file on this machine and recorded later, exactly once.
    Spool,
    /// The entry is written to a file without a sync while there is space, and counted as lost when there is none. Emitting does not wait
    /// for the node.
    BestEffort,
}

impl DeliveryPolicy {
    /// Returns the policy's name in metrics.
    #[cfg(feature = "metrics")]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Spool => "spool",
            Self::BestEffort => "best_effort",
        }
    }
}

/// A policy for each category. By default, categories that an attacker would want to suppress are strict, and no category is best
/// effort.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    of: HashMap<Category, DeliveryPolicy>,
    /// Policy of the application's own categories.
    other: DeliveryPolicy,
}

impl Default for Policies {
    fn default() -> Self {
        let policy = |category| match category {
            Category::Data | Category::Integration => DeliveryPolicy::Spool,
            _ => DeliveryPolicy::Strict,
        };
        let of = Category::ALL.into_iter().map(|category| (category, policy(category))).collect();
        Self { of, other: DeliveryPolicy::Strict }
    }
}

impl Policies {
    pub(crate) fn set(&mut self, category: Category, policy: DeliveryPolicy) {
        self.of.insert(category, policy);
    }

    /// Sets one policy for every category, including the application's own.
    pub(crate) fn set_all(&mut self, policy: DeliveryPolicy) {
        self.of.values_mut().for_each(|known| *known = policy);
        self.other = policy;
    }

    pub(crate) fn of(&self, category: Category) -> DeliveryPolicy {
        self.of.get(&category).copied().unwrap_or(self.other)
    }

    pub(crate) fn all_strict(&self) -> bool {
        self.other == DeliveryPolicy::Strict && self.of.values().all(|policy| *policy == DeliveryPolicy::Strict)
    }
}
