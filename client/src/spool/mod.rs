//! Entries that wait on this machine's disk (docs/recording.md, "Spool").
//!
//! A folder belongs to one process. It holds segments: files of records that are appended to, read from the front, and removed
//! when all of their records are in the log. An entry keeps its id, so one that is sent twice is recorded once; that is why
//! nothing needs to be remembered about how far a segment was read.

mod extent;
mod folder;
mod record;
mod segment;
mod waiting;
mod writer;

pub(crate) use folder::Spool;
pub(crate) use record::Kept;
pub(crate) use segment::{Read, SegmentReader};
pub use waiting::SpoolError;
pub(crate) use waiting::Waiting;
