//! Counts entries: totals, values of fields, and a histogram over time.
//!
//! Counts are exact or absent. Memory is bounded: a field with more distinct values than the limit is reported as having too
//! many, rather than counted in part.

mod counter;
mod part;
mod plan;
mod result;

pub use counter::Counter;
pub use part::CountPart;
pub use plan::{
    Axis, BUCKET_MICROS_MAX, BUCKET_MICROS_MIN, BUCKETS_MAX, BadPlan, FACETS_MAX, Facet, Plan, TOP_DEFAULT, TOP_MAX,
    UnknownFacet,
};
pub use result::{Bucket, FieldCounts, Histogram, Stats, Totals, ValueCount};
