//! Counts without reading rows: determines how often each value occurs in the rows that a filter selects.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::ops::Range;

use piperoll_format::time::Timestamp;
use piperoll_query::column::{Column, FLAG_SEPARATOR};
use piperoll_query::filter::verb;
use piperoll_query::stats::{Axis, Counter, Facet, Plan, Totals};

use super::block::{Block, Candidates, Values};
use super::set::Set;

/// Part of a block in which rows are counted: the positions of the rows in the block, and their times.
pub(super) struct BlockPart {
    pub(super) rows: Range<usize>,
    pub(super) times: Range<Timestamp>,
}

/// Counts the rows of a block that are certain to match. Returns false, and counts nothing, if some rows would have to be read.
pub(super) fn count(
    block: &dyn Block,
    candidates: &Candidates,
    part: &BlockPart,
    counter: &mut Counter,
) -> io::Result<bool> {
    if !candidates.exact || columns(counter.plan()).any(|column| block.is_hashed(column)) {
        return Ok(false);
    }
    let rows = block.rows();
    let mut range = Set::none(rows);
    range.insert_range(part.rows.start, part.rows.end);
    let mut set = candidates.rows.clone().but(&candidates.odd).and(&range);
    let within = part.times.start.micros()..part.times.end.micros();
    let (first, last) = block.span();
    if !within.contains(&first) || !within.contains(&last) {
        set = set.and(&Set::of(rows, &block.times()?, |time| within.contains(&time)));
    }
    if set.is_empty() {
        return Ok(true);
    }
    // Read everything before counting: an error midway would leave a partial count in the counter.
    let found = totals(block, &set, counter.plan())?;
    let users = ColumnCounts::read(block, Column::User, &set)?;
    let facets: Vec<Found<'_>> =
        counter.plan().facets.iter().map(|facet| Found::read(block, *facet, &set)).collect::<io::Result<_>>()?;
    found.into_iter().for_each(|(totals, time)| counter.add_totals(totals, time));
    users.each(|value, count| counter.add_value(None, value, count));
    for (number, found) in facets.into_iter().enumerate() {
        let field = Some(number);
        match found {
            Found::Verbs(counts) => {
                counts.each(|action, count| counter.add_value(field, action.map(verb), count));
            }
            Found::Column(counts) => counts.each(|value, count| counter.add_value(field, value, count)),
            Found::Flags(counts) => counts.each(|value, count| match value {
                None => counter.add_value(field, None, count),
                Some(rules) => {
                    rules.split(FLAG_SEPARATOR).for_each(|rule| counter.add_value(field, Some(rule), count));
                }
            }),
            Found::Entities(counts) => {
                counts.iter().for_each(|(value, count)| counter.add_value(field, value.as_deref(), *count));
            }
        }
    }
    Ok(true)
}

/// Returns the columns whose values a plan needs.
fn columns(plan: &Plan) -> impl Iterator<Item = Column> {
    let of = |facet: &Facet| match facet {
        Facet::Of(column) => vec![*column],
        Facet::Entity => vec![Column::EntityType, Column::EntityId],
        Facet::Flag => vec![Column::Flags],
        Facet::Verb => vec![Column::Action],
    };
    plan.facets.iter().flat_map(of).chain([Column::User, Column::Outcome, Column::Flags])
}

/// Counts rows by outcome, for each time bucket of the plan.
fn totals(block: &dyn Block, set: &Set, plan: &Plan) -> io::Result<Vec<(Totals, Timestamp)>> {
    let rows = block.rows();
    let outcome = |value| -> io::Result<Set> {
        let code = block.code_of(Column::Outcome, value)?;
        Ok(set.clone().and(&super::block::with_codes(block, Column::Outcome, code.as_slice())?))
    };
    let (failed, denied) = (outcome("failure")?, outcome("denied")?);
    let flagged = set.clone().but(&super::block::with_codes(block, Column::Flags, &[0])?);
    let within = |from: usize, to: usize| Totals {
        entries: set.count(from, to),
        failed: failed.count(from, to),
        denied: denied.count(from, to),
        flagged: flagged.count(from, to),
    };
    let Some(width) = plan.bucket_micros else {
        return Ok(vec![(within(0, rows), Timestamp::MIN)]);
    };
    let earlier = if plan.axis == Axis::Occurred { block.earlier()? } else { Cow::Borrowed(&[][..]) };
    let (first, last) = block.span();
    if earlier.is_empty() && first.div_euclid(width) == last.div_euclid(width) {
        return Ok(vec![(within(0, rows), Timestamp::from_micros(first))]);
    }
    // Rows of one bucket are adjacent, unless the clock was set back or entries were imported in an order other than that of
    // the events.
    let times = block.times()?;
    let times: Cow<'_, [i64]> = if earlier.is_empty() {
        times
    } else {
        times.iter().zip(&*earlier).map(|(time, earlier)| time - earlier).collect()
    };
    let (mut found, mut from) = (Vec::new(), 0);
    while from < rows {
        let bucket = times[from].div_euclid(width) * width;
        let to = times[from..].iter().position(|time| !(bucket..bucket.saturating_add(width)).contains(time));
        let to = to.map_or(rows, |length| from + length);
        let some = within(from, to);
        if some.entries > 0 {
            found.push((some, Timestamp::from_micros(times[from])));
        }
        from = to;
    }
    Ok(found)
}

/// Counts of one facet in a block.
enum Found<'a> {
    Column(ColumnCounts<'a>),
    Flags(ColumnCounts<'a>),
    Verbs(ColumnCounts<'a>),
    Entities(Vec<(Option<String>, u64)>),
}

impl<'a> Found<'a> {
    fn read(block: &'a dyn Block, facet: Facet, set: &Set) -> io::Result<Self> {
        Ok(match facet {
            Facet::Of(column) => Self::Column(ColumnCounts::read(block, column, set)?),
            Facet::Flag => Self::Flags(ColumnCounts::read(block, Column::Flags, set)?),
            Facet::Verb => Self::Verbs(ColumnCounts::read(block, Column::Action, set)?),
            Facet::Entity => Self::Entities(entities(block, set)?),
        })
    }
}

/// Number of occurrences of each value of a column, by code.
struct ColumnCounts<'a> {
    values: Values<'a>,
    counts: Vec<u64>,
}

impl<'a> ColumnCounts<'a> {
    fn read(block: &'a dyn Block, column: Column, set: &Set) -> io::Result<Self> {
        let values = block.values(column)?;
        // One extra slot for codes that are not in the dictionary.
        let mut counts = vec![0u64; values.len() as usize + 2];
        let beyond = counts.len() - 1;
        let whole = block.codes(column)?.each(set, |code| counts[(code as usize).min(beyond)] += 1);
        if !whole || counts.pop() != Some(0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a column contains codes that are not in its dictionary",
            ));
        }
        Ok(Self { values, counts })
    }

    fn each(&self, mut take: impl FnMut(Option<&str>, u64)) {
        for (code, count) in (0u32..).zip(&self.counts).filter(|(_, count)| **count > 0) {
            take(self.values.of(code), *count);
        }
    }
}

fn entities(block: &dyn Block, set: &Set) -> io::Result<Vec<(Option<String>, u64)>> {
    let (kinds, ids) = (block.values(Column::EntityType)?, block.values(Column::EntityId)?);
    let (kind_codes, id_codes) = (block.codes(Column::EntityType)?, block.codes(Column::EntityId)?);
    let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
    for row in set.iter() {
        let both = kind_codes.at(row).zip(id_codes.at(row)).filter(|(kind, id)| *kind > 0 && *id > 0);
        *counts.entry(both.unwrap_or_default()).or_default() += 1;
    }
    let named = |(kind, id)| Some(format!("{}/{}", kinds.of(kind)?, ids.of(id)?));
    Ok(counts.into_iter().map(|(codes, count)| (named(codes), count)).collect())
}
