//! Splits a count into pieces of bounded size, and adds up such pieces.

use serde::{Deserialize, Serialize};

use super::counter::Counter;
use super::result::Totals;

/// Maximum size in bytes of the values in one piece, and maximum number of buckets in one piece. In JSON, the values can become
/// six times larger.
const PIECE_BYTES: usize = 32 * 1024;
const PIECE_BUCKETS: usize = 1_000;

/// One piece of a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountPart {
    Totals {
        #[serde(flatten)]
        totals: Totals,
        unreadable: u64,
        /// Whether there were too many buckets.
        no_buckets: bool,
    },
    /// Properties of a field other than its values. If `field` is `None`, they are those of the users.
    Field {
        field: Option<usize>,
        none: u64,
        too_many: bool,
    },
    Values {
        field: Option<usize>,
        values: Vec<(String, u64)>,
    },
    Buckets(Vec<(i64, Totals)>),
}

impl Counter {
    /// Splits the whole count into pieces.
    pub fn into_parts(self) -> Vec<CountPart> {
        let no_buckets = self.plan().bucket_micros.is_some() && self.buckets.is_none();
        let mut parts = vec![CountPart::Totals { totals: self.totals, unreadable: self.unreadable, no_buckets }];
        let fields = self.fields.into_iter().enumerate().map(|(number, values)| (Some(number), values));
        for (field, all) in std::iter::once((None, self.users)).chain(fields) {
            parts.push(CountPart::Field { field, none: all.none, too_many: all.too_many });
            let (mut values, mut bytes) = (Vec::new(), 0);
            for (value, count) in all.counts {
                bytes += value.len() + 16;
                values.push((value, count));
                if bytes > PIECE_BYTES {
                    bytes = 0;
                    parts.push(CountPart::Values { field, values: std::mem::take(&mut values) });
                }
            }
            parts.push(CountPart::Values { field, values });
        }
        let buckets: Vec<_> = self.buckets.unwrap_or_default().into_iter().collect();
        parts.extend(buckets.chunks(PIECE_BUCKETS).map(|some| CountPart::Buckets(some.to_vec())));
        parts
    }

    /// Adds a piece of another count with the same plan.
    pub fn add_part(&mut self, part: CountPart) {
        match part {
            CountPart::Totals { totals, unreadable, no_buckets } => {
                self.totals.add(totals);
                self.unreadable = self.unreadable.saturating_add(unreadable);
                if no_buckets {
                    self.buckets = None;
                }
            }
            CountPart::Field { field, none, too_many } => {
                self.add_value(field, None, none);
                let values = match field {
                    None => Some(&mut self.users),
                    Some(field) => self.fields.get_mut(field),
                };
                if let Some(values) = values.filter(|_| too_many) {
                    values.too_many = true;
                    values.counts.clear();
                }
            }
            CountPart::Values { field, values } => {
                values.iter().for_each(|(value, count)| self.add_value(field, Some(value), *count));
            }
            CountPart::Buckets(buckets) => {
                buckets.into_iter().for_each(|(number, totals)| self.add_to_bucket(number, totals));
            }
        }
    }

    /// Adds all of another count with the same plan.
    pub fn merge(&mut self, other: Self) {
        self.erased = self.erased.saturating_add(other.erased);
        other.into_parts().into_iter().for_each(|part| self.add_part(part));
    }

    /// Returns the number of entries counted so far.
    pub fn entries(&self) -> u64 {
        self.totals.entries
    }
}
