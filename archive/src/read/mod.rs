//! Reading rows: by log, time range and filter, each row verified against the tree of its log.

mod cache;
mod candidates;
mod catalog;
mod erasures;
mod error;
mod expiry;
mod hashes;
mod remote_file;
mod replacements;
mod rows;
mod scan;

pub use cache::{Caches, Erasures};
pub use catalog::{Catalog, CatalogLog, CatalogRange};
pub use erasures::ERASURES_FILTER;
pub use error::ReadError;
pub use expiry::Expiry;
pub use replacements::DueErasures;
pub use rows::Reader;
pub use scan::{LogScan, ScanRange, ScanStep};
