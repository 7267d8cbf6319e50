//! The conditions that a filter is made of.

use std::net::IpAddr;

use ipnet::IpNet;

use super::path::{PathValue, Root};
use super::pattern::{Pattern, TextPattern};
use crate::column::Column;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;

/// One condition; it matches if any of its values matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// The whole of one text field.
    Field(Column, Vec<Pattern>),
    /// The acting person: the user, or the impersonator who acted as the user.
    Actor(Vec<Pattern>),
    /// The person or thing that an entry is about: the whole of the user, impersonator, target or entity id, or a part of the
    /// texts.
    Subject(Vec<Subject>),
    /// The last word of the action.
    Verb(Vec<Pattern>),
    Entity(Vec<EntityPattern>),
    Ip(Vec<IpPattern>),
    /// Part of `user_agent`.
    Agent(Vec<TextPattern>),
    Flag(Vec<Pattern>),
    Via(Vec<Pattern>),
    Id(Vec<EntryId>),
    /// Both ends included.
    Seq(Vec<(u64, u64)>),
    /// Half-open ranges of `occurred_at`.
    Occurred(Vec<TimeRange>),
    /// Part of the text of `changes` or `details`.
    Details(Vec<TextPattern>),
    /// A value inside `details` or `changes`.
    Path(Root, Vec<String>, Vec<PathValue>),
    Is(Vec<Property>),
    /// Part of the description.
    Text(Vec<TextPattern>),
}

/// A person or thing, both as a whole value and as a part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) whole: Pattern,
    pub(super) part: TextPattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityPattern {
    pub(super) kind: Pattern,
    pub(super) id: Option<Pattern>,
    /// Also matches a bulk entry that names the entity under `details.affected`; version 1 did not search there.
    pub(super) affected: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IpPattern {
    Net(IpNet),
    /// From one address to another of the same family, both included.
    Range(IpAddr, IpAddr),
    /// A source that is not an address, such as the name of a service.
    Text(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeRange {
    pub(super) text: String,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    Failed,
    Denied,
    Flagged,
    Impersonated,
    Bulk,
    Redacted,
    Erased,
}

pub(super) const PROPERTIES: [(&str, Property); 7] = [
    ("failed", Property::Failed),
    ("denied", Property::Denied),
    ("flagged", Property::Flagged),
    ("impersonated", Property::Impersonated),
    ("bulk", Property::Bulk),
    ("redacted", Property::Redacted),
    ("erased", Property::Erased),
];

impl Property {
    pub(super) fn named(word: &str) -> Option<Self> {
        PROPERTIES.iter().find(|(name, _)| *name == word).map(|(_, property)| *property)
    }
}

/// Text fields whose key compares the whole value.
pub(super) const FIELDS: [(&str, Column); 14] = [
    ("user", Column::User),
    ("user_type", Column::UserType),
    ("impersonator", Column::Impersonator),
    ("session", Column::Session),
    ("credential", Column::Credential),
    ("auth_method", Column::AuthMethod),
    ("action", Column::Action),
    ("category", Column::Category),
    ("outcome", Column::Outcome),
    ("reason", Column::Reason),
    ("target", Column::Target),
    ("domain", Column::Domain),
    ("request", Column::Request),
    ("node", Column::Node),
];

/// Separators between the parts of an action.
const ACTION_SEPARATORS: [char; 3] = ['.', ':', '/'];

/// Returns the last word of an action, which says what was done: `delete` of `mailbox.delete`.
pub fn verb(action: &str) -> &str {
    action.rsplit(ACTION_SEPARATORS).find(|word| !word.is_empty()).unwrap_or(action)
}

impl Test {
    /// Whether the same text would mean something else in version 2.
    pub(super) fn is_of_version_1_only(&self) -> bool {
        match self {
            Self::Details(needles) => needles.iter().any(|needle| needle.stored_form_only),
            Self::Subject(subjects) => subjects.iter().any(|subject| subject.part.stored_form_only),
            Self::Entity(patterns) => patterns.iter().any(|pattern| pattern.id.is_some() && !pattern.affected),
            _ => false,
        }
    }

    /// Whether the test reads texts, which is slow, rather than short values.
    pub(super) fn reads_texts(&self) -> bool {
        matches!(
            self,
            Self::Details(_) | Self::Subject(_) | Self::Text(_) | Self::Agent(_) | Self::Path(..) | Self::Entity(_)
        )
    }

    /// Returns the number of texts that the test searches for in other texts.
    pub(super) fn texts(&self) -> usize {
        match self {
            Self::Details(needles) | Self::Text(needles) | Self::Agent(needles) => needles.len(),
            Self::Subject(subjects) => subjects.len(),
            _ => 0,
        }
    }

    /// Changes the test to the meaning that the same text has in version 2.
    pub(super) fn lift(&mut self) {
        match self {
            Self::Details(needles) => needles.iter_mut().for_each(|needle| needle.stored_form_only = false),
            Self::Subject(subjects) => subjects.iter_mut().for_each(|subject| subject.part.stored_form_only = false),
            Self::Entity(patterns) => patterns.iter_mut().for_each(|pattern| pattern.affected = pattern.id.is_some()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_of_an_action_is_its_last_word() {
        for (action, word) in [
            ("mailbox.delete", "delete"),
            ("login", "login"),
            ("s3:DeleteBucket", "DeleteBucket"),
            ("k8s.pods/exec.create", "create"),
            ("a.", "a"),
            ("..", ".."),
        ] {
            assert_eq!(verb(action), word, "{action}");
        }
    }
}
