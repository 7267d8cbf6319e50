//! Queries of the log: the filter language, its columns, statistics, and times as people type them (docs/filters.md).

pub mod column;
pub mod filter;
pub mod human_time;
pub mod stats;
pub mod zone;
