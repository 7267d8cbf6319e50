//! The filter language (docs/filters.md): one parser, one evaluation, used by every room.
//!
//! A filter is a list of terms that must all hold. A term is a key with one or more values, any of which
//! may fit (`user:alice,bob`), or quoted text; a leading minus negates it. Repeating a key adds a further
//! condition. Nodes evaluate filters; nobody else does.

mod conditions;
mod erased;
mod evaluate;
mod parse;
mod words;

use std::fmt;

use ipnet::IpNet;

use super::column::Column;
use super::ids::EntryId;
use super::time::Timestamp;

pub use conditions::{Atom, Condition, TRIGRAM_CHARS};
pub use erased::ErasedFit;
pub use evaluate::{net_contains, net_has};
pub use parse::FilterError;

pub use words::{IS_WORDS, KEY_WORDS};

/// A parsed filter; empty means every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// Exact match of one text field.
    Field(Column, Vec<String>),
    /// Who it was: the user, or whoever acted as the user.
    Actor(Vec<String>),
    /// Whom it is about: an exact user, impersonator, target or entity id, or part of the texts.
    Subject(Vec<Needle>),
    Action(Vec<ActionPattern>),
    Entity(Vec<EntityPattern>),
    Ip(Vec<IpPattern>),
    /// Case-insensitive substring of `user_agent`.
    Agent(Vec<Needle>),
    Flag(Vec<String>),
    Via(Vec<String>),
    Id(Vec<EntryId>),
    Seq(Vec<(u64, u64)>),
    /// Half-open ranges of `occurred_at`.
    Occurred(Vec<TimeRange>),
    /// Case-insensitive substring of the text of `changes` or `details`.
    Details(Vec<Needle>),
    Is(Vec<Property>),
    /// Case-insensitive substring of the description.
    Text(Needle),
}

/// Text fields that match exactly.
const FIELDS: [(&str, Column); 13] = [
    ("user", Column::User),
    ("user_type", Column::UserType),
    ("impersonator", Column::Impersonator),
    ("session", Column::Session),
    ("credential", Column::Credential),
    ("auth_method", Column::AuthMethod),
    ("category", Column::Category),
    ("outcome", Column::Outcome),
    ("reason", Column::Reason),
    ("target", Column::Target),
    ("domain", Column::Domain),
    ("request", Column::Request),
    ("node", Column::Node),
];

/// Every key of the language, for messages and help.
pub const KEYS: [&str; 26] = [
    "user",
    "actor",
    "subject",
    "user_type",
    "impersonator",
    "session",
    "credential",
    "auth_method",
    "action",
    "category",
    "outcome",
    "reason",
    "entity",
    "target",
    "domain",
    "ip",
    "agent",
    "request",
    "node",
    "flag",
    "via",
    "id",
    "seq",
    "occurred",
    "details",
    "is",
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum ActionPattern {
    Exact(String),
    Prefix(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EntityPattern {
    kind: String,
    id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum IpPattern {
    Net(IpNet),
    /// A source that is not an address, such as a service's name.
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TimeRange {
    text: String,
    from: Timestamp,
    to: Timestamp,
}

/// Text to find, with its lower-case form by full Unicode rules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Needle {
    text: String,
    lower: String,
}

impl Needle {
    fn new(text: String) -> Self {
        let lower = text.to_lowercase();
        Self { text, lower }
    }

    fn is_in(&self, haystack: &str) -> bool {
        haystack.to_lowercase().contains(&self.lower)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Failed,
    Denied,
    Flagged,
    Impersonated,
    Bulk,
    Redacted,
    Erased,
}

const PROPERTIES: [(&str, Property); 7] = [
    ("failed", Property::Failed),
    ("denied", Property::Denied),
    ("flagged", Property::Flagged),
    ("impersonated", Property::Impersonated),
    ("bulk", Property::Bulk),
    ("redacted", Property::Redacted),
    ("erased", Property::Erased),
];

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Both filters must hold.
    pub fn and(mut self, other: Self) -> Self {
        self.terms.extend(other.terms);
        self
    }

    /// Every node that the filter names, to want it or not.
    pub fn named_nodes(&self) -> impl Iterator<Item = &str> {
        self.terms
            .iter()
            .filter_map(|term| match &term.test {
                Test::Field(Column::Node, names) => Some(names.iter().map(String::as_str)),
                _ => None,
            })
            .flatten()
    }

    /// The nodes a filter can match, when it names some and nothing widens that: lets a reader leave the
    /// others out of a report's headline. `None` means any node.
    pub fn only_nodes(&self) -> Option<Vec<&str>> {
        self.terms.iter().find_map(|term| match &term.test {
            Test::Field(Column::Node, names) if !term.negated => Some(names.iter().map(String::as_str).collect()),
            _ => None,
        })
    }
}

/// The canonical text: parses back to an equal filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negated {
            f.write_str("-")?;
        }
        let (key, values) = self.test.key_and_values();
        if let Some(key) = key {
            write!(f, "{key}:")?;
        }
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            // A name in `ip:` is quoted, or it would be read as an address.
            let name = matches!(&self.test, Test::Ip(patterns) if matches!(patterns.get(i), Some(IpPattern::Text(_))));
            let special = value.chars().any(|c| c.is_whitespace() || "\",\\".contains(c));
            if key.is_some() && !value.is_empty() && !special && !name {
                f.write_str(value)?;
            } else {
                write!(f, "\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
            }
        }
        Ok(())
    }
}

impl Test {
    fn key_and_values(&self) -> (Option<&'static str>, Vec<String>) {
        let needles = |list: &[Needle]| list.iter().map(|n| n.text.clone()).collect();
        match self {
            Self::Field(field, values) => {
                (FIELDS.iter().find(|(_, f)| f == field).map(|(name, _)| *name), values.clone())
            }
            Self::Actor(values) => (Some("actor"), values.clone()),
            Self::Subject(list) => (Some("subject"), needles(list)),
            Self::Action(patterns) => (
                Some("action"),
                patterns
                    .iter()
                    .map(|p| match p {
                        ActionPattern::Exact(text) => text.clone(),
                        ActionPattern::Prefix(text) => format!("{text}*"),
                    })
                    .collect(),
            ),
            Self::Entity(patterns) => (
                Some("entity"),
                patterns
                    .iter()
                    .map(|p| p.id.as_ref().map_or_else(|| p.kind.clone(), |id| format!("{}/{id}", p.kind)))
                    .collect(),
            ),
            Self::Ip(patterns) => (
                Some("ip"),
                patterns
                    .iter()
                    .map(|p| match p {
                        IpPattern::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
                        IpPattern::Net(net) => net.to_string(),
                        IpPattern::Text(text) => text.clone(),
                    })
                    .collect(),
            ),
            Self::Agent(list) => (Some("agent"), needles(list)),
            Self::Flag(list) => (Some("flag"), list.clone()),
            Self::Via(list) => (Some("via"), list.clone()),
            Self::Id(list) => (Some("id"), list.iter().map(ToString::to_string).collect()),
            Self::Seq(list) => (
                Some("seq"),
                list.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}..{b}") }).collect(),
            ),
            Self::Occurred(list) => (Some("occurred"), list.iter().map(|r| r.text.clone()).collect()),
            Self::Details(list) => (Some("details"), needles(list)),
            Self::Is(list) => (
                Some("is"),
                list.iter()
                    .filter_map(|p| PROPERTIES.iter().find(|(_, q)| q == p).map(|(name, _)| (*name).to_owned()))
                    .collect(),
            ),
            Self::Text(needle) => (None, vec![needle.text.clone()]),
        }
    }
}
