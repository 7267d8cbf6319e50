//! Result of a count.

use serde::{Deserialize, Serialize};

/// Number of entries, and how many of them failed, were denied, or were flagged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stats {
    #[serde(flatten)]
    pub totals: Totals,
    /// Rows of the range whose content was erased, whether or not they would have matched the filter. No other count includes
    /// them.
    pub erased: u64,
    /// Authentic rows that this version cannot read as entries, such as those of a newer version. No other count includes them.
    pub unreadable: u64,
    /// Distinct users; null when there are too many to count.
    pub distinct_users: Option<u64>,
    pub by: Vec<FieldCounts>,
    /// Null when none was requested, or when there are too many buckets.
    pub histogram: Option<Histogram>,
}

/// The values of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldCounts {
    pub field: String,
    /// Number of distinct values; null if there are too many to count, in which case `top` is empty.
    pub distinct: Option<u64>,
    /// The most frequent values. Values with equal counts are sorted by value.
    pub top: Vec<ValueCount>,
    /// Number of occurrences of all other values.
    pub other: u64,
    /// Entries without this field.
    pub none: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ValueCount {
    pub value: String,
    pub count: u64,
}

/// Counts over time. Buckets without an entry are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Histogram {
    pub bucket_seconds: u64,
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bucket {
    /// Start of the bucket, RFC 3339. It is a multiple of the bucket's width since 1970.
    pub from: String,
    #[serde(flatten)]
    pub totals: Totals,
}
