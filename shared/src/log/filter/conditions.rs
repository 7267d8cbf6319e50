//! A filter as an index sees it: what its terms ask of columns, texts and places.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::evaluate::{ACTOR, SUBJECT};
use super::{ActionPattern, Filter, IpPattern, Needle, Property, Test};
use crate::log::column::{Column, FLAG_SEPARATOR};
use crate::log::ids::EntryId;
use crate::log::time::Timestamp;

/// An index of texts knows their sequences of so many characters; shorter needles can only be found by reading.
pub const TRIGRAM_CHARS: usize = 3;

/// One term: it holds, or does not hold when negated, for entries for which all atoms of one list hold.
pub struct Condition<'a> {
    pub negated: bool,
    pub any: Vec<Vec<Atom<'a>>>,
}

/// A question about one entry that an index can answer without the entry.
pub enum Atom<'a> {
    /// The column has one of these values.
    Is(Column, Vec<&'a str>),
    /// The column has a value, and it fits.
    Fits(Column, Box<dyn Fn(&str) -> bool + 'a>),
    /// The address is one of this network; see [`net_contains`](super::net_contains).
    Net(&'a IpNet),
    /// The lower-cased description contains this.
    Description(&'a str),
    /// The lower-cased text of `changes` or `details` contains this.
    Details(&'a str),
    Seq(RangeInclusive<u64>),
    Id(EntryId),
    /// It happened in this half-open range.
    Occurred(Timestamp, Timestamp),
    /// No entry has this; an erased row is none any more.
    Nothing,
}

impl Filter {
    /// Every term; an entry fits the filter when all of them hold.
    pub fn conditions(&self) -> Vec<Condition<'_>> {
        self.terms.iter().map(|term| Condition { negated: term.negated, any: term.test.atoms() }).collect()
    }

    /// Texts that no index finds, because they are too short: every entry of the range is read for them.
    pub fn too_short_to_index(&self) -> Vec<&str> {
        let short = |needle: &&Needle| needle.lower.chars().count() < TRIGRAM_CHARS;
        self.terms
            .iter()
            .flat_map(|term| match &term.test {
                Test::Text(needle) => std::slice::from_ref(needle),
                Test::Details(needles) | Test::Subject(needles) => needles,
                _ => &[],
            })
            .filter(short)
            .map(|needle| needle.text.as_str())
            .collect()
    }
}

impl Test {
    fn atoms(&self) -> Vec<Vec<Atom<'_>>> {
        fn each<'a, T>(list: &'a [T], atom: impl Fn(&'a T) -> Atom<'a>) -> Vec<Vec<Atom<'a>>> {
            list.iter().map(|item| vec![atom(item)]).collect()
        }
        fn is(column: Column, values: &[String]) -> Atom<'_> {
            Atom::Is(column, values.iter().map(String::as_str).collect())
        }
        match self {
            Self::Field(column, values) => vec![vec![is(*column, values)]],
            Self::Actor(values) => ACTOR.iter().map(|column| vec![is(*column, values)]).collect(),
            Self::Subject(needles) => {
                let named = |column| Atom::Is(column, needles.iter().map(|needle| needle.text.as_str()).collect());
                let mut any: Vec<_> = SUBJECT.iter().map(|column| vec![named(*column)]).collect();
                any.extend(each(needles, |needle| Atom::Description(&needle.lower)));
                any.extend(each(needles, |needle| Atom::Details(&needle.lower)));
                any
            }
            Self::Action(patterns) => each(patterns, |pattern| match pattern {
                ActionPattern::Exact(text) => Atom::Is(Column::Action, vec![text]),
                ActionPattern::Prefix(text) => {
                    Atom::Fits(Column::Action, Box::new(move |have| have.starts_with(text.as_str())))
                }
            }),
            Self::Entity(patterns) => patterns
                .iter()
                .map(|pattern| {
                    let mut atoms = vec![Atom::Is(Column::EntityType, vec![&pattern.kind])];
                    atoms.extend(pattern.id.as_deref().map(|id| Atom::Is(Column::EntityId, vec![id])));
                    atoms
                })
                .collect(),
            Self::Ip(patterns) => each(patterns, |pattern| match pattern {
                IpPattern::Text(text) => Atom::Is(Column::Ip, vec![text]),
                IpPattern::Net(net) => Atom::Net(net),
            }),
            Self::Agent(needles) => {
                each(needles, |needle| Atom::Fits(Column::Agent, Box::new(move |have| needle.is_in(have))))
            }
            Self::Flag(rules) => vec![vec![Atom::Fits(
                Column::Flags,
                Box::new(move |have| have.split(FLAG_SEPARATOR).any(|rule| rules.iter().any(|wanted| wanted == rule))),
            )]],
            Self::Via(values) => vec![vec![Atom::Fits(
                Column::Via,
                Box::new(move |have| {
                    values.iter().any(|value| have == value || have.split(' ').next() == Some(value.as_str()))
                }),
            )]],
            Self::Id(ids) => each(ids, |id| Atom::Id(*id)),
            Self::Seq(ranges) => each(ranges, |(from, to)| Atom::Seq(*from..=*to)),
            Self::Occurred(ranges) => each(ranges, |range| Atom::Occurred(range.from, range.to)),
            Self::Details(needles) => each(needles, |needle| Atom::Details(&needle.lower)),
            Self::Is(properties) => properties.iter().map(|property| vec![property.atom()]).collect(),
            Self::Text(needle) => vec![vec![Atom::Description(&needle.lower)]],
        }
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
