//! Selects the rows of a row group that may match a filter, by their columns. The body of each selected row decides.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, FixedSizeBinaryArray, RecordBatch, StringArray};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use piperoll_format::view::EntryView;
use piperoll_query::column::Column;
use piperoll_query::filter::{Atom, Condition, Filter, fold, net_contains, unescaped};

use super::remote_file::{FileMeta, column_index};
use crate::file::{AFFECTED, Traits};

/// How JSON contains the separator between the rules of [`Column::Flags`]. A rule that contains it cannot be told from two rules.
const SEPARATOR_ESCAPED: &str = "\\u001f";

/// Knowledge about the entries of one row group that needs none of them.
pub(super) struct Grounds<'a> {
    pub(super) meta: &'a FileMeta,
    pub(super) group: usize,
    pub(super) blooms: HashMap<&'static str, Arc<Sbbf>>,
}

impl Grounds<'_> {
    /// Whether no entry of the row group fulfils a condition.
    pub(super) fn rule_out(&self, condition: &Condition<'_>) -> bool {
        match condition {
            Condition::All(parts) => parts.iter().any(|part| self.rule_out(part)),
            Condition::Any(parts) => parts.iter().all(|part| self.rule_out(part)),
            Condition::Not(_) => false,
            Condition::AtMost(part) => self.rule_out(part),
            Condition::Atom(Atom::Nothing) => true,
            Condition::Atom(Atom::Details(needle)) => needle.contains(AFFECTED) && !self.traits().affected,
            Condition::Atom(atom) => self.literals(atom).is_some_and(|(name, values)| self.has_none(name, &values)),
        }
    }

    fn traits(&self) -> Traits {
        self.meta.traits(self.group)
    }

    /// The column of which an atom requires one of some values, and these values.
    fn literals<'a>(&self, atom: &'a Atom<'_>) -> Option<(&'static str, Vec<Cow<'a, str>>)> {
        match atom {
            // An entry without an outcome counts as one with the outcome `unknown`, and one without `via` as one with an empty `via`.
            Atom::Is(Column::Outcome | Column::Via, _) => None,
            Atom::Is(column, values) => {
                let [name] = columns_of(*column) else { return None };
                Some((*name, values.iter().map(|value| Cow::Borrowed(*value)).collect()))
            }
            Atom::Net(net) if net.prefix_len() == net.max_prefix_len() && !self.traits().other_addresses => {
                Some(("ip_address", vec![Cow::Owned(net.addr().to_canonical().to_string())]))
            }
            Atom::Id(id) => Some(("id", vec![Cow::Owned(id.to_string())])),
            _ => None,
        }
    }

    fn has_none(&self, name: &str, values: &[Cow<'_, str>]) -> bool {
        let bloom = self.blooms.get(name);
        let may_have = |value: &str| bloom.is_none_or(|bloom| bloom.check(&value));
        !is_within(self.meta.group(self.group), name, values) || !values.iter().any(|value| may_have(value))
    }

    /// Columns whose Bloom filters may rule out a condition that is not ruled out yet. They cannot rule out a negation.
    pub(super) fn helpful_blooms(&self, condition: &Condition<'_>) -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        self.collect(condition, true, &mut |atom, may_skip| {
            names.extend(self.literals(atom).filter(|_| may_skip).map(|(name, _)| name));
        });
        names
    }

    /// Columns that a condition is evaluated on. What is ruled out is not evaluated.
    pub(super) fn needed(&self, condition: &Condition<'_>) -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        self.collect(condition, true, &mut |atom, _| names.extend(columns_of_atom(atom)));
        if self.meta.has_odd_rows(self.group) {
            names.extend(ODD_ROWS);
        }
        names
    }

    /// Passes the atoms of a condition to `each`, with `may_skip`. Without their columns, conditions that are ruled out hold for no row, but their negation
    /// would; `may_skip` is therefore false within negations.
    fn collect<'c>(&self, condition: &'c Condition<'_>, may_skip: bool, each: &mut impl FnMut(&'c Atom<'c>, bool)) {
        if may_skip && self.rule_out(condition) {
            return;
        }
        match condition {
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().for_each(|part| self.collect(part, may_skip, each));
            }
            Condition::Not(part) => self.collect(part, false, each),
            Condition::AtMost(part) => self.collect(part, may_skip, each),
            Condition::Atom(atom) => each(atom, may_skip),
        }
    }
}

/// Columns of erased rows and of rows whose columns do not represent them: an erased row has a `leaf`; a row that has neither `leaf` nor
/// `via` has a body that cannot be parsed as an entry.
pub(super) const ODD_ROWS: [&str; 2] = ["leaf", "via"];

fn columns_of_atom(atom: &Atom<'_>) -> &'static [&'static str] {
    match atom {
        Atom::Is(column, _) | Atom::Fits(column, _) => columns_of(*column),
        Atom::Net(_) => columns_of(Column::Ip),
        Atom::Description(_) => &["description"],
        Atom::Details(_) => &["changes", "details"],
        Atom::Id(_) => &["id"],
        Atom::Seq(_) | Atom::Nothing | Atom::Occurred(..) => &[],
    }
}

/// Columns of a file from which the value of a column of the filter language is derived.
fn columns_of(column: Column) -> &'static [&'static str] {
    match column {
        Column::User => &["user"],
        Column::UserType => &["user_type"],
        Column::Impersonator => &["impersonator"],
        Column::Session => &["session"],
        Column::Credential => &["credential"],
        Column::AuthMethod => &["auth_method"],
        Column::Category => &["category"],
        Column::Action => &["action"],
        Column::Outcome => &["outcome"],
        Column::Reason => &["reason"],
        Column::EntityType => &["entity_type"],
        Column::EntityId => &["entity_id"],
        Column::Target => &["target"],
        Column::Domain => &["domain"],
        Column::Ip => &["ip_address"],
        Column::Agent => &["user_agent"],
        Column::Request => &["request_id"],
        Column::Node => &[],
        Column::Via => &["via"],
        Column::Flags => &["flags"],
        Column::Marks => &["details", "redacted"],
    }
}

/// Whether a row group may have one of the values, according to its smallest and largest value.
fn is_within(group: &RowGroupMetaData, name: &str, values: &[Cow<'_, str>]) -> bool {
    let Some(Statistics::ByteArray(statistics)) = group.column(column_index(name)).statistics() else { return true };
    let bounds = statistics.min_bytes_opt().zip(statistics.max_bytes_opt());
    // Long values are shortened, the largest one upwards, so the comparison holds for them too.
    bounds.is_none_or(|(min, max)| values.iter().any(|value| min <= value.as_bytes() && value.as_bytes() <= max))
}

/// Rows that may match, and the subset that is certain to match.
struct Matched {
    may: Vec<bool>,
    must: Vec<bool>,
}

/// Columns of some rows of one row group.
pub(super) struct Columns<'a> {
    node_id: &'a str,
    rows: usize,
    texts: HashMap<&'a str, &'a StringArray>,
    leaf: Option<&'a FixedSizeBinaryArray>,
    /// Whether rows may have no columns, or columns that do not represent them.
    has_odd_rows: bool,
    /// Seq of the first row.
    first_seq: u64,
}

impl<'a> Columns<'a> {
    /// Takes columns of some rows of a row group. `first_seq` is the seq of the first of them. If
    /// `has_odd_rows`, the columns [`ODD_ROWS`] must be among them.
    pub(super) fn new(node_id: &'a str, batch: &'a RecordBatch, first_seq: u64, has_odd_rows: bool) -> Self {
        let mut texts = HashMap::new();
        let mut leaf = None;
        let schema = batch.schema_ref();
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            match field.name().as_str() {
                "leaf" => leaf = column.as_fixed_size_binary_opt(),
                name => {
                    if let Some(text) = column.as_string_opt::<i32>() {
                        texts.insert(name, text);
                    }
                }
            }
        }
        Self { node_id, rows: batch.num_rows(), texts, leaf, has_odd_rows, first_seq }
    }

    /// Rows of `rows` that may match the filter, erased rows, and rows whose columns do not represent them, as ranges. Without a
    /// filter, only rows that have no columns.
    pub(super) fn select(&self, filter: Option<&Filter>, rows: Range<usize>) -> Vec<Range<usize>> {
        let may = match filter {
            Some(filter) => {
                let mut may = self.holds(&filter.condition()).may;
                let is_odd = self.odd_rows();
                may.iter_mut().enumerate().for_each(|(row, may)| *may |= is_odd(row));
                may
            }
            None => (0..self.rows).map(self.rows_without_columns()).collect(),
        };
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for row in (rows.start..rows.end.min(self.rows)).filter(|row| may.get(*row) == Some(&true)) {
            match ranges.last_mut() {
                Some(last) if last.end == row => last.end += 1,
                _ => ranges.push(row..row + 1),
            }
        }
        ranges
    }

    /// Whether rows have no columns, or columns that do not represent them exactly.
    fn odd_rows(&self) -> impl Fn(usize) -> bool + '_ {
        let (lacks_columns, flags) = (self.rows_without_columns(), self.text("flags"));
        move |row| lacks_columns(row) || flags.at(row).is_some_and(|flags| flags.contains(SEPARATOR_ESCAPED))
    }

    /// Whether rows are erased, or have a body that cannot be parsed.
    fn rows_without_columns(&self) -> impl Fn(usize) -> bool + '_ {
        let via = self.text("via");
        move |row| self.has_odd_rows && (self.leaf.is_none_or(|leaf| leaf.is_valid(row)) || via.at(row).is_none())
    }

    fn exactly(&self, fits: impl FnMut(usize) -> bool) -> Matched {
        let may: Vec<bool> = (0..self.rows).map(fits).collect();
        Matched { must: may.clone(), may }
    }

    fn all(&self) -> Matched {
        self.exactly(|_| true)
    }

    fn none(&self) -> Matched {
        self.exactly(|_| false)
    }

    fn holds(&self, condition: &Condition<'_>) -> Matched {
        let and = |a: &[bool], b: &[bool]| a.iter().zip(b).map(|(a, b)| *a && *b).collect();
        let or = |a: &[bool], b: &[bool]| a.iter().zip(b).map(|(a, b)| *a || *b).collect();
        match condition {
            Condition::Atom(atom) => self.fits(atom),
            Condition::All(parts) => parts.iter().fold(self.all(), |all, part| {
                let one = self.holds(part);
                Matched { may: and(&all.may, &one.may), must: and(&all.must, &one.must) }
            }),
            Condition::Any(parts) => parts.iter().fold(self.none(), |any, part| {
                let one = self.holds(part);
                Matched { may: or(&any.may, &one.may), must: or(&any.must, &one.must) }
            }),
            Condition::Not(part) => {
                let one = self.holds(part);
                let not = |set: &[bool]| set.iter().map(|is| !is).collect();
                Matched { may: not(&one.must), must: not(&one.may) }
            }
            Condition::AtMost(part) => Matched { may: self.holds(part).may, must: vec![false; self.rows] },
        }
    }

    fn fits(&self, atom: &Atom<'_>) -> Matched {
        match atom {
            Atom::Is(column, values) => self.exactly(self.having(*column, |have| values.contains(&have))),
            Atom::Fits(column, fits) => self.exactly(self.having(*column, fits)),
            Atom::Net(net) => self.exactly(self.having(Column::Ip, |have| net_contains(net, have))),
            Atom::Description(needle) => {
                let text = self.text("description");
                let has = self.exactly(|row| text.at(row).is_some_and(|text| fold(text).contains(needle)));
                Matched { must: vec![false; self.rows], ..has }
            }
            Atom::Details(needle) => {
                let has = |text: &str| fold(text).contains(needle) || fold(&unescaped(text)).contains(needle);
                let texts = ["changes", "details"].map(|name| self.text(name));
                let any = |row| texts.iter().any(|text| text.at(row).is_some_and(has));
                Matched { must: vec![false; self.rows], ..self.exactly(any) }
            }
            Atom::Seq(range) => self.exactly(|row| range.contains(&self.first_seq.wrapping_add(row as u64))),
            Atom::Id(id) => {
                let text = self.text("id");
                self.exactly(|row| text.at(row).is_some_and(|have| have.parse() == Ok(*id)))
            }
            Atom::Nothing => self.none(),
            // The body decides: the time of an event without its own time is that of its recording.
            Atom::Occurred(..) => Matched { must: vec![false; self.rows], ..self.all() },
        }
    }

    fn text(&self, name: &str) -> Texts<'a> {
        Texts(self.texts.get(name).copied())
    }

    /// Whether rows have a value of a column that `fits`.
    fn having(&self, column: Column, fits: impl Fn(&str) -> bool) -> impl Fn(usize) -> bool {
        let node_id = self.node_id;
        let texts: Vec<Texts<'_>> = columns_of(column).iter().map(|name| self.text(name)).collect();
        let [flags, details, redacted] = ["flags", "details", "redacted"].map(|name| self.text(name));
        move |row| match column {
            Column::Node => fits(node_id),
            Column::Flags | Column::Marks => {
                let raw = |text: Texts<'a>| text.at(row).and_then(|text| serde_json::from_str(text).ok());
                let view = EntryView {
                    flags: raw(flags),
                    details: raw(details),
                    redacted: raw(redacted),
                    ..EntryView::default()
                };
                column.value(&view).is_some_and(|value| fits(&value))
            }
            _ => {
                let have = texts.first().and_then(|text| text.at(row));
                let default = match column {
                    Column::Outcome => Some("unknown"),
                    Column::Via => Some(""),
                    _ => None,
                };
                have.or(default).is_some_and(&fits)
            }
        }
    }
}

/// A column of texts; without it, no row has a value.
#[derive(Clone, Copy)]
struct Texts<'a>(Option<&'a StringArray>);

impl<'a> Texts<'a> {
    fn at(self, row: usize) -> Option<&'a str> {
        let column = self.0?;
        column.is_valid(row).then(|| column.value(row))
    }
}

/// Times of the rows of a row group, in microseconds.
pub(super) fn times(batch: &RecordBatch) -> Vec<i64> {
    let column = batch.column_by_name("timestamp");
    let times = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    times.map(|times| times.values().to_vec()).unwrap_or_default()
}

/// Values of a column of numbers.
pub(super) fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a arrow_array::PrimitiveArray<Int64Type>> {
    batch.column_by_name(name)?.as_primitive_opt()
}
