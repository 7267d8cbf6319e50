//! Counting without reading rows: how often each value stands at the rows that a filter selects.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use piperoll_shared::log::column::{Column, FLAG_SEPARATOR};
use piperoll_shared::log::stats::{Counter, Facet, Plan, Totals};
use piperoll_shared::log::time::Timestamp;

use super::block::{Block, Candidates};
use super::set::Set;

/// What part of a block is counted: places in it, and times of its rows.
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) times: Range<Timestamp>,
}

/// Counts the rows of a block that fit for certain. Returns false, and counts nothing, when that takes reading them.
pub(super) fn count(
    block: &dyn Block,
    candidates: &Candidates,
    part: &Part,
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
    totals(block, &set, counter)?;
    count_column(block, Column::User, &set, |value, count| counter.add_value(None, value, count))?;
    for (number, facet) in counter.plan().facets.clone().into_iter().enumerate() {
        let field = Some(number);
        match facet {
            Facet::Of(column) => {
                count_column(block, column, &set, |value, count| counter.add_value(field, value, count))?;
            }
            Facet::Flag => count_column(block, Column::Flags, &set, |value, count| match value {
                None => counter.add_value(field, None, count),
                Some(rules) => {
                    rules.split(FLAG_SEPARATOR).for_each(|rule| counter.add_value(field, Some(rule), count));
                }
            })?,
            Facet::Entity => count_entities(block, &set, |value, count| counter.add_value(field, value, count))?,
        }
    }
    Ok(true)
}

/// The columns that a plan needs the values of.
fn columns(plan: &Plan) -> impl Iterator<Item = Column> {
    let of = |facet: &Facet| match facet {
        Facet::Of(column) => vec![*column],
        Facet::Entity => vec![Column::EntityType, Column::EntityId],
        Facet::Flag => vec![Column::Flags],
    };
    plan.facets.iter().flat_map(of).chain([Column::User, Column::Outcome, Column::Flags])
}

fn totals(block: &dyn Block, set: &Set, counter: &mut Counter) -> io::Result<()> {
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
    let Some(width) = counter.plan().bucket_micros else {
        counter.add_totals(within(0, rows), Timestamp::MIN);
        return Ok(());
    };
    let (first, last) = block.span();
    if first.div_euclid(width) == last.div_euclid(width) {
        counter.add_totals(within(0, rows), Timestamp::from_micros(first));
        return Ok(());
    }
    // Rows of one bucket stand together, but where the clock stepped back.
    let times = block.times()?;
    let mut from = 0;
    while from < rows {
        let bucket = times[from].div_euclid(width) * width;
        let to = times[from..].iter().position(|time| !(bucket..bucket.saturating_add(width)).contains(time));
        let to = to.map_or(rows, |length| from + length);
        let some = within(from, to);
        if some.entries > 0 {
            counter.add_totals(some, Timestamp::from_micros(times[from]));
        }
        from = to;
    }
    Ok(())
}

fn count_column(
    block: &dyn Block,
    column: Column,
    set: &Set,
    mut take: impl FnMut(Option<&str>, u64),
) -> io::Result<()> {
    let values = block.values(column)?;
    // One more for codes that are in no dictionary.
    let mut counts = vec![0u64; values.len() as usize + 2];
    let beyond = counts.len() - 1;
    let whole = block.codes(column)?.each(set, |code| counts[(code as usize).min(beyond)] += 1);
    if !whole || counts.pop() != Some(0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the codes of a column do not fit its values"));
    }
    for (code, count) in (0u32..).zip(counts).filter(|(_, count)| *count > 0) {
        take(values.of(code), count);
    }
    Ok(())
}

fn count_entities(block: &dyn Block, set: &Set, mut take: impl FnMut(Option<&str>, u64)) -> io::Result<()> {
    let (kinds, ids) = (block.values(Column::EntityType)?, block.values(Column::EntityId)?);
    let (kind_codes, id_codes) = (block.codes(Column::EntityType)?, block.codes(Column::EntityId)?);
    let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
    for row in set.iter() {
        let both = kind_codes.at(row).zip(id_codes.at(row)).filter(|(kind, id)| *kind > 0 && *id > 0);
        *counts.entry(both.unwrap_or_default()).or_default() += 1;
    }
    for ((kind, id), count) in counts {
        match kinds.of(kind).zip(ids.of(id)) {
            Some((kind, id)) => take(Some(&format!("{kind}/{id}")), count),
            None => take(None, count),
        }
    }
    Ok(())
}
