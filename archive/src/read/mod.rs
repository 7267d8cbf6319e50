//! Reading rows: by log, time range and filter, each row verified against the tree of its log.

mod cache;
mod candidates;
mod catalog;
mod error;
mod remote_file;
mod rows;
mod scan;

pub use cache::Caches;
pub use catalog::{Catalog, CatalogLog, CatalogRange};
pub use error::ReadError;
pub use rows::Reader;
pub use scan::{LogScan, ScanRange, ScanStep};
