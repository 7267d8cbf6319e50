//! Evaluates the conditions of a filter on one block of rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;

use ipnet::IpNet;
use piperoll_format::ids::EntryId;
use piperoll_query::column::Column;
use piperoll_query::filter::{Atom, Condition};

use super::dictionary::Dictionary;
use super::set::Set;
use super::text::{GROUP_ROWS, Groups, buckets};

/// Maximum number of trigrams of a needle that are considered; they are evenly spaced in the needle. Of these, at most
/// `TRIGRAMS_READ_MAX` are read, rarest first: the others exclude hardly any rows, and reading each of them takes time.
const TRIGRAMS_MAX: usize = 12;
const TRIGRAMS_READ_MAX: usize = 4;

/// The indexed texts that support substring search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Description,
    /// The fields `changes` and `details`.
    Details,
}

/// A column's values as one number per row: 0 means no value, and 1 means the first value of the dictionary.
pub(super) enum Codes<'a> {
    Same(u32),
    One(Cow<'a, [u8]>),
    Two(Vec<u8>),
    Four(Cow<'a, [u32]>),
}

/// Values of a dictionary; the first value has the code 1.
pub(super) enum Values<'a> {
    Borrowed(&'a [Box<str>]),
    Read(Dictionary),
}

impl Values<'_> {
    /// Highest code.
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::Borrowed(values) => values.len() as u32,
            Self::Read(dictionary) => dictionary.len(),
        }
    }

    /// Returns the value with this code.
    pub(super) fn of(&self, code: u32) -> Option<&str> {
        let place = code.checked_sub(1)?;
        match self {
            Self::Borrowed(values) => values.get(place as usize).map(|value| &**value),
            Self::Read(dictionary) => dictionary.value(place).ok(),
        }
    }
}

impl Codes<'_> {
    /// Calls `take` with the code of every row in a set. Returns false if there are fewer codes than rows.
    pub(super) fn each(&self, set: &Set, mut take: impl FnMut(u32)) -> bool {
        match self {
            Self::Same(code) => (0..set.len()).for_each(|_| take(*code)),
            Self::One(codes) => return set.pick(codes, |code| take(u32::from(code))),
            Self::Two(bytes) => {
                return set.pick(bytes.as_chunks::<2>().0, |code| take(u32::from(u16::from_le_bytes(code))));
            }
            Self::Four(codes) => return set.pick(codes, take),
        }
        true
    }

    /// Returns the code of one row.
    pub(super) fn at(&self, row: usize) -> Option<u32> {
        match self {
            Self::Same(code) => Some(*code),
            Self::One(codes) => codes.get(row).map(|code| u32::from(*code)),
            Self::Two(bytes) => bytes.as_chunks::<2>().0.get(row).map(|code| u32::from(u16::from_le_bytes(*code))),
            Self::Four(codes) => codes.get(row).copied(),
        }
    }
}

/// Columns, texts and times of consecutive rows. Rows that are not sound entries are called odd; the block has no information
/// about them.
pub(super) trait Block {
    /// Number of rows in the block; the first `pruned` of them were pruned.
    fn rows(&self) -> usize;
    fn pruned(&self) -> usize;
    fn odd(&self) -> io::Result<Set>;
    /// Returns whether a column has so many distinct values that its dictionary holds only hashes.
    fn is_hashed(&self, column: Column) -> bool;
    fn code_of(&self, column: Column, value: &str) -> io::Result<Option<u32>>;
    /// Returns the dictionary of a column, which is empty if only hashes are stored.
    fn values(&self, column: Column) -> io::Result<Values<'_>>;
    /// Returns the codes of the addresses in a network.
    fn codes_in(&self, net: &IpNet) -> io::Result<Vec<u32>>;
    fn codes(&self, column: Column) -> io::Result<Codes<'_>>;
    /// Returns the number of bytes that have to be read for a bucket.
    fn groups_bytes(&self, text: Text, bucket: u16) -> io::Result<usize>;
    fn groups(&self, text: Text, bucket: u16) -> io::Result<Cow<'_, Groups>>;
    /// Earliest and latest time of the rows.
    fn span(&self) -> (i64, i64);
    /// Time of each row, in microseconds since 1970.
    fn times(&self) -> io::Result<Cow<'_, [i64]>>;
    /// For each row, the number of microseconds from the event to its recording; empty if this number is 0 for every row.
    fn earlier(&self) -> io::Result<Cow<'_, [i64]>>;
}

/// Rows that may match, and the subset that is certain to match.
struct MatchedRows {
    may: Set,
    must: Set,
}

impl MatchedRows {
    fn exactly(set: Set) -> Self {
        Self { must: set.clone(), may: set }
    }

    /// Returns a result in which only rows of `set` may match, and none is known to match.
    fn at_most(set: Set) -> Self {
        Self { must: Set::none(set.rows()), may: set }
    }
}

/// A filter condition to evaluate on every block.
pub(in crate::store) struct IndexQuery<'a> {
    pub(in crate::store) condition: Condition<'a>,
    /// Seqs of the entries whose IDs the condition names.
    pub(in crate::store) ids: &'a HashMap<EntryId, u64>,
}

/// Rows of a block that a filter selects, as far as the index can tell.
#[derive(Debug)]
pub(in crate::store) struct Candidates {
    /// Rows to read: all rows that match, and all rows that are not sound.
    pub(in crate::store) rows: Set,
    /// The subset of `rows` about which the index has no information.
    pub(in crate::store) odd: Set,
    /// Whether every row in `rows` that is not in `odd` is certain to match.
    pub(in crate::store) exact: bool,
}

/// Returns the rows that may match, for the block that begins at seq `first`.
pub(super) fn candidates(block: &dyn Block, first: u64, ask: &IndexQuery<'_>) -> io::Result<Candidates> {
    let there = Set::from(block.pruned(), block.rows());
    let MatchedRows { may, must } = holds(block, first, &ask.condition, ask)?;
    let (may, must) = (may.and(&there), must.and(&there));
    let odd = block.odd()?.and(&there);
    let exact = may.clone().but(&must).but(&odd).is_empty();
    Ok(Candidates { rows: may.or(&odd), odd, exact })
}

fn holds(block: &dyn Block, first: u64, condition: &Condition<'_>, ask: &IndexQuery<'_>) -> io::Result<MatchedRows> {
    let rows = block.rows();
    Ok(match condition {
        Condition::Atom(atom) => fits(block, first, atom, ask)?,
        Condition::All(parts) => {
            let mut all = MatchedRows::exactly(Set::from(0, rows));
            for part in parts {
                if all.may.is_empty() {
                    break;
                }
                let one = holds(block, first, part, ask)?;
                all = MatchedRows { may: all.may.and(&one.may), must: all.must.and(&one.must) };
            }
            all
        }
        Condition::Any(parts) => {
            let mut any = MatchedRows::exactly(Set::none(rows));
            for part in parts {
                let one = holds(block, first, part, ask)?;
                any = MatchedRows { may: any.may.or(&one.may), must: any.must.or(&one.must) };
            }
            any
        }
        // Negation swaps the sets: a row that only may match may also fail to match, and a row that certainly matches is
        // excluded.
        Condition::Not(part) => {
            let one = holds(block, first, part, ask)?;
            let all = Set::from(0, rows);
            MatchedRows { may: all.clone().but(&one.must), must: all.but(&one.may) }
        }
        Condition::AtMost(part) => MatchedRows::at_most(holds(block, first, part, ask)?.may),
    })
}

fn fits(block: &dyn Block, first: u64, atom: &Atom<'_>, ask: &IndexQuery<'_>) -> io::Result<MatchedRows> {
    let rows = block.rows();
    let exactly = MatchedRows::exactly;
    Ok(match atom {
        Atom::Is(column, values) => {
            let mut wanted = Vec::new();
            for value in values {
                wanted.extend(block.code_of(*column, value)?);
            }
            let set = with_codes(block, *column, &wanted)?;
            if block.is_hashed(*column) { MatchedRows::at_most(set) } else { exactly(set) }
        }
        Atom::Fits(column, fits) => {
            if block.is_hashed(*column) {
                return Ok(MatchedRows::at_most(Set::from(0, rows)));
            }
            let values = block.values(*column)?;
            let wanted: Vec<u32> = (1..=values.len()).filter(|code| values.of(*code).is_some_and(fits)).collect();
            exactly(with_codes(block, *column, &wanted)?)
        }
        Atom::Net(net) => exactly(with_codes(block, Column::Ip, &block.codes_in(net)?)?),
        Atom::Description(needle) => MatchedRows::at_most(with_text(block, Text::Description, needle)?),
        Atom::Details(needle) => MatchedRows::at_most(with_text(block, Text::Details, needle)?),
        Atom::Seq(range) => {
            let place = |seq: u64| usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX).min(rows);
            let mut set = Set::none(rows);
            if *range.end() >= first {
                set.insert_range(place(*range.start()), place(range.end().saturating_add(1)));
            }
            exactly(set)
        }
        Atom::Id(id) => {
            let mut set = Set::none(rows);
            let at = ask.ids.get(id).and_then(|seq| seq.checked_sub(first));
            at.and_then(|at| usize::try_from(at).ok()).into_iter().for_each(|at| set.insert(at));
            exactly(set)
        }
        Atom::Nothing => exactly(Set::none(rows)),
        Atom::Occurred(from, to) => {
            let (times, earlier) = (block.times()?, block.earlier()?);
            let wanted = from.micros()..to.micros();
            if earlier.is_empty() {
                return Ok(exactly(Set::of(rows, &times, |time| wanted.contains(&time))));
            }
            let happened: Vec<i64> = times.iter().zip(&*earlier).map(|(time, earlier)| time - earlier).collect();
            exactly(Set::of(rows, &happened, |time| wanted.contains(&time)))
        }
    })
}

pub(super) fn with_codes(block: &dyn Block, column: Column, wanted: &[u32]) -> io::Result<Set> {
    let rows = block.rows();
    if wanted.is_empty() {
        return Ok(Set::none(rows));
    }
    Ok(match block.codes(column)? {
        Codes::Same(code) => Set::from(if wanted.contains(&code) { 0 } else { rows }, rows),
        Codes::One(codes) => pick(rows, &codes, u32::from, wanted),
        Codes::Two(bytes) => pick(rows, bytes.as_chunks::<2>().0, |code| u32::from(u16::from_le_bytes(code)), wanted),
        Codes::Four(codes) => pick(rows, &codes, |code| code, wanted),
    })
}

fn pick<T: Copy>(rows: usize, codes: &[T], number: impl Fn(T) -> u32, wanted: &[u32]) -> Set {
    if let [one] = wanted {
        return Set::of(rows, codes, |code| number(code) == *one);
    }
    let most = wanted.iter().max().map_or(0, |most| *most as usize);
    let mut fits = vec![false; most + 1];
    wanted.iter().for_each(|code| fits[*code as usize] = true);
    Set::of(rows, codes, |code| fits.get(number(code) as usize).copied().unwrap_or(false))
}

/// Returns the rows of those groups that contain every trigram of the needle, or all rows if the needle has no trigrams.
fn with_text(block: &dyn Block, text: Text, needle: &str) -> io::Result<Set> {
    let rows = block.rows();
    let mut wanted: Vec<u16> = buckets(needle).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let step = wanted.len().div_ceil(TRIGRAMS_MAX).max(1);
    let mut sizes = Vec::new();
    for bucket in wanted.into_iter().step_by(step) {
        sizes.push((block.groups_bytes(text, bucket)?, bucket));
    }
    sizes.sort_unstable();
    if sizes.first().is_some_and(|(bytes, _)| *bytes == 0) {
        return Ok(Set::none(rows));
    }
    let mut found = Vec::new();
    for (_, bucket) in sizes.into_iter().take(TRIGRAMS_READ_MAX) {
        found.push(block.groups(text, bucket)?);
    }
    let mut set = Set::none(rows);
    let has_all = |group: usize| found.iter().all(|groups| groups.contains(group));
    let mut take = |group: usize| set.insert_range(group * GROUP_ROWS, (group + 1) * GROUP_ROWS);
    match found.first().map(|groups| &**groups) {
        // Check only the groups that the rarest bucket lists.
        Some(Groups::List(list)) => {
            list.iter().map(|group| usize::from(*group)).filter(|group| has_all(*group)).for_each(&mut take);
        }
        _ => (0..rows.div_ceil(GROUP_ROWS)).filter(|group| has_all(*group)).for_each(&mut take),
    }
    Ok(set)
}
