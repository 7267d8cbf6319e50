//! Converts a filter to conditions that an index can evaluate: on columns, texts and positions.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::evaluate::{ACTOR, SUBJECT, range_contains, via_matches};
use super::expr::{Expr, Filter};
use super::fold::fold;
use super::path::PathValue;
use super::pattern::{Pattern, TextPattern};
use super::test::{EntityPattern, IpPattern, Property, Test, verb};
use crate::column::{Column, FLAG_SEPARATOR};
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;

/// Length of the character sequences in an index of texts; shorter needles can only be found by reading the entries.
pub const TRIGRAM_CHARS: usize = 3;

/// Condition on one entry.
pub enum Condition<'a> {
    All(Vec<Condition<'a>>),
    Any(Vec<Condition<'a>>),
    Not(Box<Condition<'a>>),
    Atom(Atom<'a>),
    /// A necessary condition: an entry that does not meet it does not match, and an entry that meets it may or may not match.
    AtMost(Box<Condition<'a>>),
}

/// Condition on one entry that an index can evaluate without reading the entry.
pub enum Atom<'a> {
    /// The column has one of these values.
    Is(Column, Vec<&'a str>),
    /// The column has a value, and the function accepts it.
    Fits(Column, Box<dyn Fn(&str) -> bool + 'a>),
    /// The address belongs to this network; see [`net_contains`](super::net_contains).
    Net(&'a IpNet),
    /// The folded description contains this text; see [`fold`].
    Description(String),
    /// The folded text of `changes` or `details` contains this text, as it is stored or with its escapes resolved.
    Details(String),
    Seq(RangeInclusive<u64>),
    Id(EntryId),
    /// The time at which the entry's event occurred is in this half-open range.
    Occurred(Timestamp, Timestamp),
    /// Matches no entry. Used for erased rows, which are no longer entries.
    Nothing,
}

impl Filter {
    /// Returns the condition of the whole filter.
    pub fn condition(&self) -> Condition<'_> {
        Condition::All(self.all.iter().map(Expr::condition).collect())
    }

    /// Returns the ids that the filter names.
    pub fn named_ids(&self) -> impl Iterator<Item = EntryId> {
        let ids = self.tests().filter_map(|test| match test {
            Test::Id(ids) => Some(ids.iter().copied()),
            _ => None,
        });
        ids.flatten()
    }

    /// Returns the texts that are too short for an index to find; because of them, every entry of the range must be read.
    pub fn too_short_to_index(&self) -> Vec<&str> {
        let short = |needle: &TextPattern| needle.lower().iter().all(|piece| piece.chars().count() < TRIGRAM_CHARS);
        let needles = self.tests().flat_map(|test| match test {
            Test::Text(needles) | Test::Details(needles) => needles.iter().collect(),
            Test::Subject(subjects) => subjects.iter().map(|subject| &subject.part).collect(),
            _ => Vec::new(),
        });
        let mut found: Vec<&str> = Vec::new();
        for text in needles.filter(|needle| short(needle)).filter_map(|needle| needle.pieces.first()) {
            if !found.contains(&text.as_str()) {
                found.push(text);
            }
        }
        found
    }
}

impl Expr {
    fn condition(&self) -> Condition<'_> {
        match self {
            Self::All(parts) => Condition::All(parts.iter().map(Self::condition).collect()),
            Self::Any(parts) => Condition::Any(parts.iter().map(Self::condition).collect()),
            Self::Not(part) => Condition::Not(Box::new(part.condition())),
            Self::Test(test) => test.condition(),
        }
    }
}

fn any<'a, T>(list: &'a [T], condition: impl Fn(&'a T) -> Condition<'a>) -> Condition<'a> {
    Condition::Any(list.iter().map(condition).collect())
}

/// Returns a condition that is met if one of the patterns matches the column's value.
fn matches<'a>(column: Column, patterns: impl Iterator<Item = &'a Pattern>) -> Condition<'a> {
    let patterns: Vec<&Pattern> = patterns.collect();
    let literals: Option<Vec<&str>> = patterns.iter().map(|pattern| pattern.literal()).collect();
    Condition::Atom(match literals {
        Some(values) => Atom::Is(column, values),
        None => Atom::Fits(column, Box::new(move |have| patterns.iter().any(|pattern| pattern.matches(have)))),
    })
}

/// Returns a condition that requires the pieces in any order and at any position. The condition is necessary but not sufficient,
/// because an index cannot check more about a text.
fn text<'a>(needle: &TextPattern, atom: impl Fn(String) -> Atom<'a>) -> Condition<'a> {
    Condition::AtMost(Box::new(Condition::All(
        needle.lower().iter().map(|piece| Condition::Atom(atom(piece.clone()))).collect(),
    )))
}

impl Test {
    fn condition(&self) -> Condition<'_> {
        match self {
            Self::Field(column, patterns) => matches(*column, patterns.iter()),
            Self::Actor(patterns) => any(&ACTOR, |column| matches(*column, patterns.iter())),
            Self::Subject(subjects) => {
                let whole = SUBJECT.map(|column| matches(column, subjects.iter().map(|subject| &subject.whole)));
                let parts = subjects
                    .iter()
                    .flat_map(|subject| [text(&subject.part, Atom::Description), text(&subject.part, Atom::Details)]);
                Condition::Any(whole.into_iter().chain(parts).collect())
            }
            Self::Verb(patterns) => Condition::Atom(Atom::Fits(
                Column::Action,
                Box::new(|action| patterns.iter().any(|pattern| pattern.matches(verb(action)))),
            )),
            Self::Entity(patterns) => any(patterns, EntityPattern::condition),
            Self::Ip(patterns) => any(patterns, |pattern| match pattern {
                IpPattern::Text(pattern) => matches(Column::Ip, std::iter::once(pattern)),
                IpPattern::Net(net) => Condition::Atom(Atom::Net(net)),
                IpPattern::Range(from, to) => {
                    Condition::Atom(Atom::Fits(Column::Ip, Box::new(|have| range_contains(*from, *to, have))))
                }
            }),
            Self::Agent(needles) => any(needles, |needle| {
                Condition::Atom(Atom::Fits(Column::Agent, Box::new(move |have| needle.is_in(have))))
            }),
            Self::Flag(patterns) => Condition::Atom(Atom::Fits(
                Column::Flags,
                Box::new(|have| {
                    have.split(FLAG_SEPARATOR).any(|rule| patterns.iter().any(|pattern| pattern.matches(rule)))
                }),
            )),
            Self::Via(patterns) => Condition::Atom(Atom::Fits(
                Column::Via,
                Box::new(|have| patterns.iter().any(|pattern| via_matches(pattern, have))),
            )),
            Self::Id(ids) => any(ids, |id| Condition::Atom(Atom::Id(*id))),
            Self::Seq(ranges) => any(ranges, |(from, to)| Condition::Atom(Atom::Seq(*from..=*to))),
            Self::Occurred(ranges) => any(ranges, |range| Condition::Atom(Atom::Occurred(range.from, range.to))),
            Self::Details(needles) => any(needles, |needle| text(needle, Atom::Details)),
            Self::Path(_, path, values) => Condition::AtMost(Box::new(Condition::All(vec![
                Condition::All(path_texts(path).map(|text| Condition::Atom(Atom::Details(text))).collect()),
                any(values, |value| {
                    Condition::All(value_texts(value).map(|text| Condition::Atom(Atom::Details(text))).collect())
                }),
            ]))),
            Self::Is(properties) => any(properties, |property| Condition::Atom(property.atom())),
            Self::Text(needles) => any(needles, |needle| text(needle, Atom::Description)),
        }
    }
}

/// Returns texts that JSON must contain if this path exists in it. A single key of the JSON may contain dots and then correspond
/// to several keys of the path, so each key of the path is searched for without quotes.
fn path_texts(path: &[String]) -> impl Iterator<Item = String> {
    path.iter().filter(|key| !matches!(key.as_str(), "old" | "new")).map(|key| fold(key))
}

/// Returns texts that JSON must contain if it contains this value. Returns none for a number, because it can be written in many
/// ways.
fn value_texts(value: &PathValue) -> impl Iterator<Item = String> {
    let pieces = match value {
        PathValue::Text(pattern) => pattern.pieces(),
        PathValue::Number(_) | PathValue::Range(..) => &[],
    };
    pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| fold(piece))
}

impl EntityPattern {
    fn condition(&self) -> Condition<'_> {
        let mut whole = vec![matches(Column::EntityType, std::iter::once(&self.kind))];
        let Some(id) = &self.id else { return Condition::All(whole) };
        whole.push(matches(Column::EntityId, std::iter::once(id)));
        if !self.affected {
            return Condition::All(whole);
        }
        let texts = id.pieces().iter().map(String::as_str).chain(["affected"]).filter(|piece| !piece.is_empty());
        let listed = texts.map(|text| Condition::Atom(Atom::Details(fold(text)))).collect();
        Condition::Any(vec![Condition::All(whole), Condition::AtMost(Box::new(Condition::All(listed)))])
    }
}

impl Property {
    fn atom(self) -> Atom<'static> {
        let marked = |mark: &'static str| {
            Atom::Fits(Column::Marks, Box::new(move |have: &str| have.split(' ').any(|word| word == mark)))
        };
        match self {
            Self::Failed => Atom::Is(Column::Outcome, vec!["failure"]),
            Self::Denied => Atom::Is(Column::Outcome, vec!["denied"]),
            Self::Flagged => Atom::Fits(Column::Flags, Box::new(|_| true)),
            Self::Impersonated => Atom::Fits(Column::Impersonator, Box::new(|_| true)),
            Self::Bulk => marked("bulk"),
            Self::Redacted => marked("redacted"),
            Self::Erased => Atom::Nothing,
        }
    }
}
