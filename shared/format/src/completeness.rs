//! Checks whether any row of a time range was left out (docs/format.md, "Completeness of a range").
//!
//! Timestamps never decrease within an era. So a gap between shown rows cannot contain a row of the range if the rows at
//! both ends of the gap belong to one era, and either the row after the gap is older than the range or the row before
//! the gap is newer than the range. To prove that a range is complete, a node therefore shows the rows of the range and,
//! in every era, the rows at the borders of the range.

use std::ops::Range;

use crate::order::Position;
use crate::time::Timestamp;

/// Maximum number of separate runs. A larger number means that rows were left out in many places, or that there are very many
/// eras.
const RUNS_MAX: usize = 4_096;

/// A row whose position in the tree and whose signed bytes are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenRow {
    pub seq: u64,
    pub era: u32,
    pub timestamp: Timestamp,
}

impl ProvenRow {
    fn position(self) -> Position {
        Position { timestamp: self.timestamp, seq: self.seq }
    }
}

/// Reasons why a range is not proven complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    #[error("rows {from} to {last} were not shown, and may belong to the range")]
    LeftOut { from: u64, last: u64 },
    #[error("row {0} belongs to the range but was shown as a row outside it")]
    Border(u64),
    #[error("rows below {to} were pruned, and the range reaches back to them")]
    Pruned { to: u64 },
    #[error("the rows shown have too many gaps between them")]
    TooMany,
}

/// The rows shown so far, as runs of consecutive rows.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    runs: Vec<(ProvenRow, ProvenRow)>,
    borders: Vec<Position>,
    too_many: bool,
    /// Log start, and the newest timestamp of the pruned rows before it, from a proven entry of the node.
    floor: Option<(u64, Timestamp)>,
}

impl Coverage {
    /// Adds a row of the range. Rows may be added in ascending or descending order, and those of different eras may be
    /// interleaved.
    pub fn row(&mut self, row: ProvenRow) {
        if self.too_many {
            return;
        }
        // Try the run that was begun last first. It is usually the one to extend, unless the clock was set back and the rows of
        // several eras are interleaved.
        for (first, last) in self.runs.iter_mut().rev() {
            if row.seq == last.seq + 1 {
                *last = row;
                return;
            }
            if row.seq + 1 == first.seq {
                *first = row;
                return;
            }
        }
        self.too_many |= self.runs.len() == RUNS_MAX;
        if !self.too_many {
            self.runs.push((row, row));
        }
    }

    /// Adds a border row, which lies outside the range.
    pub fn border(&mut self, row: ProvenRow) {
        self.row(row);
        if !self.too_many {
            self.borders.push(row.position());
        }
    }

    /// Records that, according to a proven entry of the node, the rows below `to` were pruned.
    pub fn pruned(&mut self, to: u64, newest: Timestamp) {
        self.floor = self.floor.max(Some((to, newest)));
    }

    /// If rows were pruned, returns the time from which no row was removed by pruning: one microsecond after the newest pruned
    /// row or after the first retained row, whichever is later. Returns `None` unless the first retained row was shown.
    pub fn since(&self) -> Option<Timestamp> {
        let (to, newest) = self.floor?;
        let first = self.runs.iter().map(|(first, _)| first).min_by_key(|first| first.seq)?;
        (first.seq == to).then(|| first.timestamp.max(newest).plus_micros(1))
    }

    /// Checks that every row of `begin..end` among the first `size` rows of the log was shown as a row of the range.
    pub fn is_whole(&self, begin: Position, end: Position, size: u64) -> Result<(), Unproven> {
        if self.too_many {
            return Err(Unproven::TooMany);
        }
        if let Some(inside) = self.borders.iter().find(|border| (begin..end).contains(*border)) {
            return Err(Unproven::Border(inside.seq));
        }
        let runs = self.sorted_runs();
        let (mut next, mut before): (u64, Option<ProvenRow>) = (0, None);
        if let (Some((to, newest)), Some((first, _))) = (self.floor, runs.first())
            && first.seq > 0
        {
            // The first retained row shows where the remaining log begins. Because it is not after `begin`, no pruned row of its
            // era belongs to the range. For eras that were pruned entirely, only the node's statement (`newest`) shows this.
            let shown = first.seq == to && first.position() <= begin && newest < begin.timestamp;
            if !shown {
                return Err(Unproven::Pruned { to });
            }
            (next, before) = (to, Some(*first));
        }
        are_whole(runs, (next, before), begin..end, size)
    }

    /// Checks that every row of `begin..end` among the rows `start..size` of the log was shown as a row of the range. Whether
    /// rows before `start` belong to the range does not matter here; row `start` must have been shown.
    pub fn is_whole_from(&self, start: u64, begin: Position, end: Position, size: u64) -> Result<(), Unproven> {
        if start == 0 {
            return self.is_whole(begin, end, size);
        }
        if self.too_many {
            return Err(Unproven::TooMany);
        }
        if let Some(inside) = self.borders.iter().find(|border| (begin..end).contains(*border)) {
            return Err(Unproven::Border(inside.seq));
        }
        let runs = self.sorted_runs();
        match runs.first() {
            Some((first, _)) if first.seq == start => are_whole(runs.clone(), (start, Some(*first)), begin..end, size),
            _ if start >= size => Ok(()),
            _ => Err(Unproven::LeftOut { from: start, last: size - 1 }),
        }
    }

    fn sorted_runs(&self) -> Vec<(ProvenRow, ProvenRow)> {
        let mut runs = self.runs.clone();
        runs.sort_by_key(|(first, _)| first.seq);
        runs
    }
}

/// Checks the gaps between runs of rows. `known` is the next seq and the row before the first run, if it is known.
fn are_whole(
    runs: Vec<(ProvenRow, ProvenRow)>,
    known: (u64, Option<ProvenRow>),
    range: Range<Position>,
    size: u64,
) -> Result<(), Unproven> {
    let Range { start: begin, end } = range;
    let (mut next, mut before) = known;
    for (first, last) in runs {
        // Rows before the first shown row are known to belong to the same era as that row only if it is in era 0.
        let same_era = before.map_or(0, |place| place.era) == first.era;
        let below = first.position() <= begin;
        let above = before.is_some_and(|place| place.position().next() >= end);
        if next < first.seq && !(same_era && (below || above)) {
            return Err(Unproven::LeftOut { from: next, last: first.seq - 1 });
        }
        next = last.seq + 1;
        before = Some(last);
    }
    if next < size { Err(Unproven::LeftOut { from: next, last: size - 1 }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64, seq: u64) -> Position {
        Position { timestamp: Timestamp::from_micros(micros), seq }
    }

    /// Generates a log: era and time of each row, as a node writes them.
    fn log() -> impl Strategy<Value = Vec<ProvenRow>> {
        prop::collection::vec((0u8..8, 0i64..3), 1..40).prop_map(|steps| {
            let (mut era, mut time) = (0, 10);
            let rows = steps.into_iter().enumerate().map(|(seq, (turn, step))| {
                if turn == 0 && seq > 0 {
                    era += 1;
                    time -= 6;
                } else {
                    time += step;
                }
                ProvenRow { seq: seq as u64, era, timestamp: Timestamp::from_micros(time) }
            });
            rows.collect()
        })
    }

    proptest! {
        /// Any row that a sender leaves out of a range is detected; the complete set of rows and borders proves the range.
        #[test]
        fn what_is_left_out_is_noticed(log in log(), a in 0i64..40, b in 0i64..40, hidden in any::<prop::sample::Index>()) {
            let (begin, end) = (at(a.min(b), 0), at(a.max(b), 0));
            let inside: Vec<&ProvenRow> = log.iter().filter(|row| (begin..end).contains(&row.position())).collect();
            let size = log.len() as u64;
            let shown = |hide: Option<u64>| {
                let mut shown = Coverage::default();
                let mut rows = inside.clone();
                rows.sort_by_key(|row| (row.timestamp, row.seq));
                rows.iter().filter(|row| Some(row.seq) != hide).for_each(|row| shown.row(**row));
                // Also show all rows outside the range, as a sender that hides a row could do.
                for row in log.iter().filter(|row| !inside.contains(row)) {
                    shown.border(*row);
                }
                shown
            };
            prop_assert_eq!(shown(None).is_whole(begin, end, size), Ok(()));
            if !inside.is_empty() {
                let hide = hidden.get(&inside).seq;
                prop_assert!(shown(Some(hide)).is_whole(begin, end, size).is_err());
                let mut as_border = shown(Some(hide));
                as_border.border(log[hide as usize]);
                prop_assert!(as_border.is_whole(begin, end, size).is_err());
            }
            prop_assert!(shown(None).is_whole(begin, end, size + 1).is_err());
        }

        /// The rows of a range and the border rows of every era are sufficient to prove that the range is complete.
        #[test]
        fn borders_of_every_era_are_enough(log in log(), a in 0i64..40, b in 0i64..40) {
            let (begin, end) = (at(a.min(b), 0), at(a.max(b), 0));
            let size = log.len() as u64;
            let mut shown = Coverage::default();
            for era in log.chunk_by(|a, b| a.era == b.era) {
                let inside = |row: &&ProvenRow| (begin..end).contains(&row.position());
                let from = era.iter().position(|row| row.position() >= begin).unwrap_or(era.len());
                let to = era.iter().position(|row| row.position() >= end).unwrap_or(era.len());
                era.iter().filter(inside).for_each(|row| shown.row(*row));
                let mut borders = vec![0, from.wrapping_sub(1), to, era.len() - 1];
                borders.sort_unstable();
                borders.dedup();
                let borders = borders.into_iter().filter_map(|index| era.get(index));
                borders.filter(|row| !inside(row)).for_each(|row| shown.border(*row));
            }
            prop_assert_eq!(shown.is_whole(begin, end, size), Ok(()));
        }

        /// From any retained row on, the remaining rows and borders prove the remaining range; whatever is left out is noticed.
        #[test]
        fn the_rest_of_a_range_is_proven_alone(log in log(), a in 0i64..40, b in 0i64..40, start in any::<prop::sample::Index>(), hidden in any::<prop::sample::Index>()) {
            let (begin, end) = (at(a.min(b), 0), at(a.max(b), 0));
            let (size, start) = (log.len() as u64, start.index(log.len()));
            let shown = |hide: Option<u64>| {
                let mut shown = Coverage::default();
                for row in log[start..].iter().filter(|row| Some(row.seq) != hide) {
                    if (begin..end).contains(&row.position()) { shown.row(*row) } else { shown.border(*row) }
                }
                shown
            };
            prop_assert_eq!(shown(None).is_whole_from(start as u64, begin, end, size), Ok(()));
            let inside: Vec<&ProvenRow> = log[start..].iter().filter(|row| (begin..end).contains(&row.position())).collect();
            if !inside.is_empty() {
                let hide = hidden.get(&inside).seq;
                prop_assert!(shown(Some(hide)).is_whole_from(start as u64, begin, end, size).is_err());
            }
        }

        /// After a prune, a range is complete if and only if it cannot include pruned rows.
        #[test]
        fn what_was_pruned_is_not_forgotten(log in log(), a in 0i64..40, b in 0i64..40, cut in any::<prop::sample::Index>()) {
            let (begin, end) = (at(a.min(b), 0), at(a.max(b), 0));
            let (size, cut) = (log.len() as u64, cut.index(log.len()));
            let newest = log[..cut].iter().map(|row| row.timestamp).max().unwrap_or(Timestamp::MIN);
            let mut shown = Coverage::default();
            for row in &log[cut..] {
                if (begin..end).contains(&row.position()) { shown.row(*row) } else { shown.border(*row) }
            }
            // Without the node's statement about the prune, a range is known to be complete only if the first retained row is in
            // the first era and not after `begin`.
            let knowable = log[cut].era == 0 && log[cut].position() <= begin;
            prop_assert_eq!(shown.is_whole(begin, end, size).is_ok(), cut == 0 || knowable);
            shown.pruned(cut as u64, newest);
            let reaches = cut > 0 && (newest >= begin.timestamp || log[cut].position() > begin);
            prop_assert_eq!(shown.is_whole(begin, end, size).is_err(), reaches);
            // If the first retained row is left out, completeness is not proven.
            if cut > 0 && cut + 1 < log.len() {
                let mut without = Coverage::default();
                log[cut + 1..].iter().for_each(|row| if (begin..end).contains(&row.position()) { without.row(*row) } else { without.border(*row) });
                without.pruned(cut as u64, newest);
                prop_assert!(without.is_whole(begin, end, size).is_err());
            }
        }
    }
}
