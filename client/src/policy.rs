//! Policies for entries that cannot be recorded immediately.

use std::collections::HashMap;
use std::time::Duration;

use super::entry::Category;

/// How long an entry may take until its policy decides.
pub(crate) const DEADLINE_DEFAULT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossPolicy {
    /// Emitting fails, and so should the operation.
    Strict,
    /// It is kept in a synced file on this machine and recorded later, exactly once.
    Spool,
    /// It is kept in a file that is not synced while there is room, and counted when there is none. Emitting does not wait for
    /// the node.
    BestEffort,
}

impl LossPolicy {
    /// As metrics name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Spool => "spool",
            Self::BestEffort => "best_effort",
        }
    }
}

/// A policy for each category. What an attacker would like to have missing is strict; nothing is best effort unless asked for.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    of: HashMap<Category, LossPolicy>,
    /// Of categories of the application's own.
    other: LossPolicy,
}

impl Default for Policies {
    fn default() -> Self {
        let policy = |category| match category {
            Category::Data | Category::Integration => LossPolicy::Spool,
            _ => LossPolicy::Strict,
        };
        let of = Category::ALL.into_iter().map(|category| (category, policy(category))).collect();
        Self { of, other: LossPolicy::Strict }
    }
}

impl Policies {
    pub(crate) fn set(&mut self, category: Category, policy: LossPolicy) {
        self.of.insert(category, policy);
    }

    /// One for every category, those of the application's own among them.
    pub(crate) fn set_all(&mut self, policy: LossPolicy) {
        self.of.values_mut().for_each(|known| *known = policy);
        self.other = policy;
    }

    pub(crate) fn of(&self, category: Category) -> LossPolicy {
        self.of.get(&category).copied().unwrap_or(self.other)
    }

    pub(crate) fn all_strict(&self) -> bool {
        self.other == LossPolicy::Strict && self.of.values().all(|policy| *policy == LossPolicy::Strict)
    }
}
