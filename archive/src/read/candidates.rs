//! Selects the rows of a row group that may match a filter, by their columns. The body of each selected row decides.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, FixedSizeBinaryArray, RecordBatch, StringArray};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use piperoll_format::view::EntryView;
use piperoll_query::column::Column;
use piperoll_query::filter::{Atom, Condition, Filter, fold, net_contains, unescaped};

use super::remote_file::column_index;

/// How JSON contains the separator between the rules of [`Column::Flags`]. A rule that contains it cannot be told from two rules.
const SEPARATOR_ESCAPED: &str = "\\u001f";

/// Columns that a filter is evaluated on. An erased row has a `leaf`; a row that has neither `leaf` nor `via` has a body that cannot
/// be parsed as an entry.
pub(super) fn needed(filter: &Filter) -> Vec<&'static str> {
    let mut names = BTreeSet::from(["leaf", "via"]);
    collect(&filter.condition(), &mut names);
    names.into_iter().collect()
}

fn collect(condition: &Condition<'_>, names: &mut BTreeSet<&'static str>) {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().for_each(|part| collect(part, names)),
        Condition::Not(part) | Condition::AtMost(part) => collect(part, names),
        Condition::Atom(atom) => match atom {
            Atom::Is(column, _) | Atom::Fits(column, _) => names.extend(columns_of(*column)),
            Atom::Net(_) => names.extend(columns_of(Column::Ip)),
            Atom::Description(_) => names.extend(["description"]),
            Atom::Details(_) => names.extend(["changes", "details"]),
            Atom::Id(_) => names.extend(["id"]),
            Atom::Seq(_) | Atom::Nothing | Atom::Occurred(..) => {}
        },
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

/// Values that a column must have for the filter to match, if the filter requires any: the column's name, and the values.
pub(super) fn required(filter: &Filter) -> Vec<(&'static str, Vec<String>)> {
    let Condition::All(parts) = filter.condition() else { return Vec::new() };
    let required = parts.iter().filter_map(|part| match part {
        // An entry without an outcome counts as one with the outcome `unknown`.
        Condition::Atom(Atom::Is(Column::Outcome, _)) => None,
        Condition::Atom(Atom::Is(column, values)) => {
            let [name] = columns_of(*column) else { return None };
            Some((*name, values.iter().map(|value| (*value).to_owned()).collect()))
        }
        Condition::Any(ids) => {
            let ids: Option<Vec<String>> = ids
                .iter()
                .map(|id| if let Condition::Atom(Atom::Id(id)) = id { Some(id.to_string()) } else { None })
                .collect();
            ids.filter(|ids| !ids.is_empty()).map(|ids| ("id", ids))
        }
        _ => None,
    });
    required.collect()
}

/// Whether a row group may have one of the values, according to its smallest and largest value.
pub(super) fn is_within(group: &RowGroupMetaData, name: &str, values: &[String]) -> bool {
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
    /// Seq that the first row would have. Wraps around if rows of other logs come before the run.
    first_seq: u64,
}

impl<'a> Columns<'a> {
    /// Takes columns of a row group. `first_seq` is the seq that the first row of the group would have in the log's numbering.
    pub(super) fn new(node_id: &'a str, batch: &'a RecordBatch, first_seq: u64) -> Self {
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
        Self { node_id, rows: batch.num_rows(), texts, leaf, first_seq }
    }

    /// Rows of `rows` that may match the filter, erased rows, and rows whose columns do not represent them, as ranges. Without a
    /// filter, only erased rows.
    pub(super) fn select(&self, filter: Option<&Filter>, rows: Range<usize>) -> Vec<Range<usize>> {
        let may = match filter {
            Some(filter) => {
                let mut may = self.holds(&filter.condition()).may;
                may.iter_mut().enumerate().for_each(|(row, may)| *may |= self.is_odd(row));
                may
            }
            None => (0..self.rows).map(|row| self.is_erased(row)).collect(),
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

    /// Whether a row has no columns, or columns that do not represent it exactly.
    fn is_odd(&self, row: usize) -> bool {
        self.is_erased(row)
            || self.text("via", row).is_none()
            || self.text("flags", row).is_some_and(|flags| flags.contains(SEPARATOR_ESCAPED))
    }

    fn is_erased(&self, row: usize) -> bool {
        self.leaf.is_none_or(|leaf| leaf.is_valid(row))
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
            Atom::Is(column, values) => {
                self.exactly(|row| self.value(*column, row).is_some_and(|have| values.contains(&have.as_ref())))
            }
            Atom::Fits(column, fits) => self.exactly(|row| self.value(*column, row).is_some_and(|have| fits(&have))),
            Atom::Net(net) => {
                self.exactly(|row| self.value(Column::Ip, row).is_some_and(|have| net_contains(net, &have)))
            }
            Atom::Description(needle) => {
                let has =
                    self.exactly(|row| self.text("description", row).is_some_and(|text| fold(text).contains(needle)));
                Matched { must: vec![false; self.rows], ..has }
            }
            Atom::Details(needle) => {
                let has = |text: &str| fold(text).contains(needle) || fold(&unescaped(text)).contains(needle);
                let any = |row| ["changes", "details"].iter().any(|name| self.text(name, row).is_some_and(has));
                Matched { must: vec![false; self.rows], ..self.exactly(any) }
            }
            Atom::Seq(range) => self.exactly(|row| range.contains(&self.first_seq.wrapping_add(row as u64))),
            Atom::Id(id) => self.exactly(|row| self.text("id", row).is_some_and(|have| have.parse() == Ok(*id))),
            Atom::Nothing => self.none(),
            // The body decides: the time of an event without its own time is that of its recording.
            Atom::Occurred(..) => Matched { must: vec![false; self.rows], ..self.all() },
        }
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        let column = self.texts.get(name)?;
        column.is_valid(row).then(|| column.value(row))
    }

    fn value(&self, column: Column, row: usize) -> Option<Cow<'_, str>> {
        match column {
            Column::Node => Some(self.node_id.into()),
            Column::Outcome => Some(self.text("outcome", row).unwrap_or("unknown").into()),
            Column::Via => Some(self.text("via", row).unwrap_or_default().into()),
            Column::Flags | Column::Marks => {
                let raw = |name| self.text(name, row).and_then(|text| serde_json::from_str(text).ok());
                let view = EntryView {
                    flags: raw("flags"),
                    details: raw("details"),
                    redacted: raw("redacted"),
                    ..EntryView::default()
                };
                column.value(&view).map(|value| Cow::Owned(value.into_owned()))
            }
            simple => {
                let [name] = columns_of(simple) else { return None };
                self.text(name, row).map(Cow::Borrowed)
            }
        }
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
