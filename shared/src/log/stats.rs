//! Counting entries: totals, the values of fields, and a histogram over time.
//!
//! Counts are exact or they are not given. Memory is bounded: a field with more different values than fit is said to
//! have too many, rather than counted in part.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::column::Column;
use super::time::Timestamp;
use super::view::EntryView;

/// Values listed of a field: without asking, and at most.
pub const TOP_DEFAULT: usize = 20;
pub const TOP_MAX: usize = 1_000;
/// Fields counted in one answer.
pub const FACETS_MAX: usize = 8;
/// Buckets of one histogram.
pub const BUCKETS_MAX: i64 = 10_000;
/// A range may begin and end inside a bucket, and a node's clock be a little ahead.
const BUCKETS_COUNTED_MAX: usize = 10_100;
/// Different values of one field, and bytes of all of them.
const VALUES_MAX: usize = 100_000;
const VALUES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A field whose values can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facet {
    Of(Column),
    /// Type and id together, as `type/id`.
    Entity,
    /// The rules that flagged an entry; it may have several.
    Flag,
}

/// Names as in an entry, and as in a filter.
const FACETS: [(&str, &str, Facet); 20] = [
    ("user", "user", Facet::Of(Column::User)),
    ("user_type", "user_type", Facet::Of(Column::UserType)),
    ("impersonator", "impersonator", Facet::Of(Column::Impersonator)),
    ("session", "session", Facet::Of(Column::Session)),
    ("credential", "credential", Facet::Of(Column::Credential)),
    ("auth_method", "auth_method", Facet::Of(Column::AuthMethod)),
    ("category", "category", Facet::Of(Column::Category)),
    ("action", "action", Facet::Of(Column::Action)),
    ("outcome", "outcome", Facet::Of(Column::Outcome)),
    ("reason", "reason", Facet::Of(Column::Reason)),
    ("entity_type", "entity_type", Facet::Of(Column::EntityType)),
    ("entity", "entity", Facet::Entity),
    ("target", "target", Facet::Of(Column::Target)),
    ("domain", "domain", Facet::Of(Column::Domain)),
    ("ip_address", "ip", Facet::Of(Column::Ip)),
    ("user_agent", "agent", Facet::Of(Column::Agent)),
    ("request_id", "request", Facet::Of(Column::Request)),
    ("node_id", "node", Facet::Of(Column::Node)),
    ("flag", "flag", Facet::Flag),
    ("via", "via", Facet::Of(Column::Via)),
];

/// Not a field whose values can be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be counted by; the fields are {names}", names = FACETS.map(|(name, ..)| name).join(", "))]
pub struct UnknownFacet(String);

impl Facet {
    /// By its name in an entry or in a filter.
    pub fn parse(name: &str) -> Result<Self, UnknownFacet> {
        FACETS
            .iter()
            .find(|(entry, filter, _)| name == *entry || name == *filter)
            .map(|(.., facet)| *facet)
            .ok_or_else(|| UnknownFacet(name.to_owned()))
    }

    pub fn name(self) -> &'static str {
        FACETS.iter().find(|(.., facet)| *facet == self).map_or("", |(name, ..)| name)
    }

    fn values<'a>(self, entry: &'a EntryView<'_>) -> Vec<Cow<'a, str>> {
        match self {
            Self::Of(column) => column.value(entry).into_iter().collect(),
            Self::Entity => {
                let both = entry.entity_type.as_deref().zip(entry.entity_id.as_deref());
                both.map(|(kind, id)| Cow::Owned(format!("{kind}/{id}"))).into_iter().collect()
            }
            Self::Flag => {
                let mut rules = entry.flag_rules();
                rules.sort();
                rules.dedup();
                rules.into_iter().map(Cow::Owned).collect()
            }
        }
    }
}

/// What is to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub facets: Vec<Facet>,
    /// Values listed per field.
    pub top: usize,
    /// Width of the histogram's buckets in microseconds, at least 1.
    pub bucket_micros: Option<i64>,
}

/// How many entries there are, and how many of them stand out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Totals {
    pub entries: u64,
    /// Outcome `failure`.
    pub failed: u64,
    /// Outcome `denied`.
    pub denied: u64,
    pub flagged: u64,
}

/// Exact counts over the entries that were read and verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Stats {
    #[serde(flatten)]
    pub totals: Totals,
    /// Rows of the range whose content was erased; they are in no other count.
    pub erased: u64,
    /// Authentic rows that cannot be read as entries here, such as those of a newer version; they are in no other count.
    pub unreadable: u64,
    /// Different users; null when there are too many to count.
    pub distinct_users: Option<u64>,
    pub by: Vec<FieldCounts>,
    /// Null when none was asked for, or when there are more buckets than fit.
    pub histogram: Option<Histogram>,
}

/// The values of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct FieldCounts {
    pub field: String,
    /// Different values; null when there are too many to count, and then `top` is empty.
    pub distinct: Option<u64>,
    /// The most frequent values, then by name.
    pub top: Vec<ValueCount>,
    /// How often all other values stand there.
    pub other: u64,
    /// Entries without this field.
    pub none: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct ValueCount {
    pub value: String,
    pub count: u64,
}

/// Counts over time. Buckets without an entry are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Histogram {
    pub bucket_seconds: u64,
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Bucket {
    /// Where it begins, RFC 3339: a multiple of its width since 1970.
    pub from: String,
    #[serde(flatten)]
    pub totals: Totals,
}

/// Counts as it goes.
#[derive(Debug)]
pub struct Counter {
    plan: Plan,
    totals: Totals,
    erased: u64,
    unreadable: u64,
    users: Values,
    fields: Vec<Values>,
    /// None when there are none to count, or too many.
    buckets: Option<BTreeMap<i64, Totals>>,
}

/// How often each value of a field was seen.
#[derive(Debug, Default)]
struct Values {
    counts: HashMap<String, u64>,
    bytes: usize,
    too_many: bool,
    none: u64,
}

impl Counter {
    pub fn new(plan: Plan) -> Self {
        let fields = plan.facets.iter().map(|_| Values::default()).collect();
        let buckets = plan.bucket_micros.map(|_| BTreeMap::new());
        let users = Values::default();
        Self { plan, totals: Totals::default(), erased: 0, unreadable: 0, users, fields, buckets }
    }

    /// Counts a sound entry at its place in time.
    pub fn add(&mut self, entry: &EntryView<'_>, timestamp: Timestamp) {
        let one = Totals {
            entries: 1,
            failed: u64::from(entry.outcome.as_deref() == Some("failure")),
            denied: u64::from(entry.outcome.as_deref() == Some("denied")),
            flagged: u64::from(!entry.flag_rules().is_empty()),
        };
        self.totals.add(one);
        self.users.add(&Facet::Of(Column::User).values(entry));
        for (facet, values) in self.plan.facets.iter().zip(&mut self.fields) {
            values.add(&facet.values(entry));
        }
        if let (Some(width), Some(buckets)) = (self.plan.bucket_micros, &mut self.buckets) {
            buckets.entry(timestamp.micros().div_euclid(width)).or_default().add(one);
            if buckets.len() > BUCKETS_COUNTED_MAX {
                self.buckets = None;
            }
        }
    }

    /// Counts a row whose content is gone.
    pub fn add_erased(&mut self) {
        self.erased += 1;
    }

    /// Counts an authentic row that is no entry as far as can be read.
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
    fn add(&mut self, more: Self) {
        self.entries += more.entries;
        self.failed += more.failed;
        self.denied += more.denied;
        self.flagged += more.flagged;
    }
}

impl Values {
    fn add(&mut self, values: &[Cow<'_, str>]) {
        self.none += u64::from(values.is_empty());
        for value in values {
            if let Some(count) = self.counts.get_mut(value.as_ref()) {
                *count += 1;
            } else if !self.too_many {
                self.bytes += value.len();
                self.too_many = self.counts.len() >= VALUES_MAX || self.bytes > VALUES_BYTES_MAX;
                if self.too_many {
                    self.counts = HashMap::new();
                } else {
                    self.counts.insert(value.clone().into_owned(), 1);
                }
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

    fn body(user: Option<u8>, outcome: u8) -> String {
        let user = user.map_or(String::new(), |user| format!(r#","user":"u{user}""#));
        let outcome = ["success", "failure", "denied"][usize::from(outcome % 3)];
        format!(r#"{{"node_id":"mx1","via":"cli","outcome":"{outcome}"{user}}}"#)
    }

    proptest! {
        /// Against counting each value by itself.
        #[test]
        fn counts_what_is_there(
            rows in prop::collection::vec((prop::option::of(0u8..6), 0u8..3, -5_000i64..5_000), 0..60),
            top in 1usize..5,
            width in 1i64..3_000,
        ) {
            let plan = Plan { facets: vec![Facet::Of(Column::User), Facet::Of(Column::Outcome)], top, bucket_micros: Some(width) };
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

    #[test]
    fn every_field_has_a_name_that_is_understood() {
        for (entry, filter, facet) in FACETS {
            assert_eq!((Facet::parse(entry), Facet::parse(filter), facet.name()), (Ok(facet), Ok(facet), entry));
        }
        assert!(Facet::parse("nobody").is_err_and(|error| error.to_string().contains("ip_address")));
    }
}
