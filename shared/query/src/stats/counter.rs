//! Counts entries in bounded memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::plan::{Facet, Plan};
use super::result::{Bucket, FieldCounts, Histogram, Stats, Totals, ValueCount};
use crate::column::Column;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;

/// Maximum number of buckets counted. It is slightly larger than `BUCKETS_MAX`, because a range may begin and end inside a
/// bucket, and a node's clock may be a little ahead.
const BUCKETS_COUNTED_MAX: usize = 10_100;
/// Maximum number of distinct values of one field, and maximum total size of these values in bytes.
const VALUES_MAX: usize = 100_000;
const VALUES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Running counts of one plan.
#[derive(Debug, Clone)]
pub struct Counter {
    plan: Plan,
    pub(super) totals: Totals,
    pub(super) erased: u64,
    pub(super) unreadable: u64,
    pub(super) users: Values,
    pub(super) fields: Vec<Values>,
    /// `None` if the plan has no histogram, or if there were too many buckets.
    pub(super) buckets: Option<BTreeMap<i64, Totals>>,
}

/// Counts of the values of a field.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    pub(super) counts: HashMap<String, u64>,
    bytes: usize,
    pub(super) too_many: bool,
    pub(super) none: u64,
}

impl Counter {
    pub fn new(plan: Plan) -> Self {
        let fields = plan.facets.iter().map(|_| Values::default()).collect();
        let buckets = plan.bucket_micros.map(|_| BTreeMap::new());
        let users = Values::default();
        Self { plan, totals: Totals::default(), erased: 0, unreadable: 0, users, fields, buckets }
    }

    /// Counts a valid entry that was recorded at `timestamp`.
    pub fn add(&mut self, entry: &EntryView<'_>, timestamp: Timestamp) {
        let one = Totals {
            entries: 1,
            failed: u64::from(entry.outcome.as_deref() == Some("failure")),
            denied: u64::from(entry.outcome.as_deref() == Some("denied")),
            flagged: u64::from(!entry.flag_rules().is_empty()),
        };
        self.users.add(&Facet::Of(Column::User).values(entry));
        for (facet, values) in self.plan.facets.iter().zip(&mut self.fields) {
            values.add(&facet.values(entry));
        }
        self.add_totals(one, self.plan.axis.time(entry, timestamp));
    }

    /// Adds the counts of entries that share the bucket of `timestamp`.
    pub fn add_totals(&mut self, some: Totals, timestamp: Timestamp) {
        self.totals.add(some);
        if let Some(width) = self.plan.bucket_micros {
            self.add_to_bucket(timestamp.micros().div_euclid(width), some);
        }
    }

    pub(super) fn add_to_bucket(&mut self, number: i64, some: Totals) {
        let Some(buckets) = &mut self.buckets else { return };
        buckets.entry(number).or_default().add(some);
        if buckets.len() > BUCKETS_COUNTED_MAX {
            self.buckets = None;
        }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Adds `count` entries that have this value of a field; if `value` is `None`, the entries have no value. If `field` is
    /// `None`, the value is counted among the users.
    pub fn add_value(&mut self, field: Option<usize>, value: Option<&str>, count: u64) {
        let values = match field {
            None => &mut self.users,
            Some(field) => match self.fields.get_mut(field) {
                Some(values) => values,
                None => return,
            },
        };
        match value {
            Some(value) => values.add_many(value, count),
            None => values.none += count,
        }
    }

    /// Counts a row whose content was erased.
    pub fn add_erased(&mut self) {
        self.erased += 1;
    }

    /// Counts an authentic row that cannot be read as an entry.
    pub fn add_unreadable(&mut self) {
        self.unreadable += 1;
    }

    pub fn finish(self) -> Stats {
        let top = self.plan.top;
        let fields = self.plan.facets.iter().zip(self.fields);
        let histogram = self.plan.bucket_micros.zip(self.buckets).map(|(width, buckets)| Histogram {
            bucket_seconds: width.unsigned_abs() / 1_000_000,
            buckets: buckets
                .into_iter()
                .map(|(at, totals)| Bucket { from: Timestamp::from_micros(at.saturating_mul(width)).to_text(), totals })
                .collect(),
        });
        Stats {
            totals: self.totals,
            erased: self.erased,
            unreadable: self.unreadable,
            distinct_users: self.users.distinct(),
            by: fields.map(|(facet, values)| values.finish(facet.name(), top)).collect(),
            histogram,
        }
    }
}

impl Totals {
    pub(super) fn add(&mut self, more: Self) {
        self.entries += more.entries;
        self.failed += more.failed;
        self.denied += more.denied;
        self.flagged += more.flagged;
    }
}

impl Values {
    fn add(&mut self, values: &[Cow<'_, str>]) {
        self.none += u64::from(values.is_empty());
        values.iter().for_each(|value| self.add_many(value, 1));
    }

    fn add_many(&mut self, value: &str, count: u64) {
        if let Some(counted) = self.counts.get_mut(value) {
            *counted += count;
        } else if !self.too_many {
            self.bytes += value.len();
            self.too_many = self.counts.len() >= VALUES_MAX || self.bytes > VALUES_BYTES_MAX;
            if self.too_many {
                self.counts = HashMap::new();
            } else {
                self.counts.insert(value.to_owned(), count);
            }
        }
    }

    fn distinct(&self) -> Option<u64> {
        (!self.too_many).then_some(self.counts.len() as u64)
    }

    fn finish(self, field: &str, top: usize) -> FieldCounts {
        let distinct = self.distinct();
        let mut all: Vec<ValueCount> =
            self.counts.into_iter().map(|(value, count)| ValueCount { value, count }).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
        let other = all.iter().skip(top).map(|value| value.count).sum();
        all.truncate(top);
        FieldCounts { field: field.to_owned(), distinct, top: all, other, none: self.none }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::Axis;

    fn body(user: Option<u8>, outcome: u8) -> String {
        let user = user.map_or(String::new(), |user| format!(r#","user":"u{user}""#));
        let outcome = ["success", "failure", "denied"][usize::from(outcome % 3)];
        format!(r#"{{"node_id":"mx1","via":"cli","outcome":"{outcome}"{user}}}"#)
    }

    proptest! {
        /// Compares the result with a separate count of each value.
        #[test]
        fn counts_what_is_there(
            rows in prop::collection::vec((prop::option::of(0u8..6), 0u8..3, -5_000i64..5_000), 0..60),
            top in 1usize..5,
            width in 1i64..3_000,
        ) {
            let plan = Plan { facets: vec![Facet::Of(Column::User), Facet::Of(Column::Outcome)], top, bucket_micros: Some(width), axis: Axis::default() };
            let mut counter = Counter::new(plan);
            for (user, outcome, time) in &rows {
                let body = body(*user, *outcome);
                counter.add(&EntryView::parse(body.as_bytes()).unwrap_or_default(), Timestamp::from_micros(*time));
            }
            let stats = counter.finish();
            prop_assert_eq!(stats.totals.entries, rows.len() as u64);
            prop_assert_eq!(stats.totals.failed, rows.iter().filter(|row| row.1 % 3 == 1).count() as u64);
            let of = |user: u8| rows.iter().filter(|row| row.0 == Some(user)).count() as u64;
            let mut expected: Vec<(u64, String)> = (0..6).map(|user| (of(user), format!("u{user}"))).filter(|(n, _)| *n > 0).collect();
            expected.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            prop_assert_eq!(stats.distinct_users, Some(expected.len() as u64));
            let users = &stats.by[0];
            prop_assert_eq!(users.other, expected.iter().skip(top).map(|(n, _)| n).sum::<u64>());
            prop_assert_eq!(users.none, rows.iter().filter(|row| row.0.is_none()).count() as u64);
            let shown: Vec<(u64, String)> = users.top.iter().map(|v| (v.count, v.value.clone())).collect();
            expected.truncate(top);
            prop_assert_eq!(shown, expected);
            for bucket in stats.histogram.iter().flat_map(|histogram| &histogram.buckets) {
                let from = Timestamp::parse_rfc3339(&bucket.from).map(Timestamp::micros).unwrap_or_default();
                let inside = rows.iter().filter(|row| (from..from + width).contains(&row.2)).count();
                prop_assert_eq!(bucket.totals.entries, inside as u64);
                prop_assert_eq!(from.rem_euclid(width), 0);
            }
        }
    }

    #[test]
    fn too_many_values_are_said_to_be_too_many() {
        let mut values = Values::default();
        for n in 0..=VALUES_MAX {
            values.add(&[Cow::Owned(n.to_string())]);
        }
        let counted = values.finish("request_id", 10);
        assert_eq!((counted.distinct, counted.top.len(), counted.other), (None, 0, 0));
    }
}
